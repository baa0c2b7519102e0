// SPDX-License-Identifier: MPL-2.0
// Experiments with controls: several ways to do the same work, timed in turn in one process, so that all meet the same
// clock, caches and neighbours.
#ifndef EIGENQ_TEST_BENCH_CANDIDATES_H
#define EIGENQ_TEST_BENCH_CANDIDATES_H

#include <algorithm>
#include <chrono>
#include <ctime>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace EigenQ {
namespace bench {

constexpr double kColdBytes = 160e6;  // five times a last-level cache of 32 MiB

/** Seconds. One thread is timed by its own clock, which stands still while other programs have the core. */
inline double now(int threads) {
  if (threads > 1) return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

/** One way to do the work; \a run takes the number of a sample, and uses another copy of its weights for each. */
struct Candidate {
  Candidate(std::string n, std::function<void(std::size_t)> r) : name(std::move(n)), run(std::move(r)) {}

  double median() const {
    std::vector<double> sorted = seconds;
    std::sort(sorted.begin(), sorted.end());
    return sorted[sorted.size() / 2];
  }

  std::string name;
  std::function<void(std::size_t)> run;
  std::vector<double> seconds;
};

/** One turn of \a c on \a threads threads, \a sample counted on. One thread takes a sample. Several rest first, until
 * workers of the candidate before have gone to sleep (OpenBLAS' wait awake for 26 ms), and wake their own by a sample
 * that is not kept. */
inline void takeTurn(Candidate& c, int threads, std::size_t& sample) {
  constexpr auto kRest = std::chrono::milliseconds(50);
  constexpr double kTurn = 0.05;  // seconds
  if (threads > 1) {
    std::this_thread::sleep_for(kRest);
    c.run(sample++);
  }
  const double begin = now(threads);
  for (int kept = 0; kept < (threads > 1 ? 5 : 1); ++kept) {
    const double start = now(threads);
    if (kept > 0 && start - begin > kTurn) return;
    c.run(sample++);
    c.seconds.push_back(now(threads) - start);
  }
}

/** Turns of every candidate, for \a seconds and at least five each; before that, a sample that does not count. Samples
 * are numbered across candidates: what one has just read is not what the next reads, where they share weights. */
inline void takeTurns(std::vector<Candidate>& candidates, int threads, double seconds) {
  std::size_t sample = 0;
  for (Candidate& c : candidates) c.run(sample++);
  const double end = now(threads) + seconds;
  for (int turn = 0; turn < 5 || now(threads) < end; ++turn) {
    for (Candidate& c : candidates) takeTurn(c, threads, sample);
  }
}

}  // namespace bench
}  // namespace EigenQ

#endif  // EIGENQ_TEST_BENCH_CANDIDATES_H
