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

/** One turn of \a c on several threads, \a sample counted on. It rests first, until workers of the candidate before
 * have gone to sleep (OpenBLAS' wait awake for 26 ms). Then come samples that are not kept, while its own workers wake
 * up and the system, which may have woken them on the caller's core, finds them one of their own: in a virtual machine
 * that takes milliseconds. */
inline void takeLongTurn(Candidate& c, int threads, std::size_t& sample) {
  constexpr int kSamples = 10;
  constexpr double kWaking = 0.02, kTurn = 0.05;  // seconds
  std::this_thread::sleep_for(std::chrono::milliseconds(40));
  const double begin = now(threads);
  do c.run(sample++);
  while (now(threads) - begin < kWaking);
  const double awake = now(threads);
  for (int kept = 0; kept < kSamples; ++kept) {
    const double start = now(threads);
    if (kept > 0 && start - awake > kTurn) return;
    c.run(sample++);
    c.seconds.push_back(now(threads) - start);
  }
}

/** One turn: a sample, or with several threads a few. */
inline void takeTurn(Candidate& c, int threads, std::size_t& sample) {
  if (threads > 1) return takeLongTurn(c, threads, sample);
  const double start = now(threads);
  c.run(sample++);
  c.seconds.push_back(now(threads) - start);
}

/** Turns of every candidate, for \a seconds and at least three long or five short ones; before that, a sample that does
 * not count. Samples are numbered across candidates: what one has just read is not what the next reads, where they
 * share weights. */
inline void takeTurns(std::vector<Candidate>& candidates, int threads, double seconds) {
  std::size_t sample = 0;
  for (Candidate& c : candidates) c.run(sample++);
  const double end = now(threads) + seconds;
  for (int left = threads > 1 ? 3 : 5; left > 0 || now(threads) < end; --left) {
    for (Candidate& c : candidates) takeTurn(c, threads, sample);
  }
}

}  // namespace bench
}  // namespace EigenQ

#endif  // EIGENQ_TEST_BENCH_CANDIDATES_H
