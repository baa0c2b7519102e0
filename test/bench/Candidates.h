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

/** Samples of every candidate in turn, for \a seconds and at least five each; before that, one that does not count. */
inline void takeTurns(std::vector<Candidate>& candidates, int threads, double seconds) {
  for (Candidate& c : candidates) c.run(0);
  const double end = now(threads) + seconds;
  for (std::size_t sample = 1; sample < 6 || now(threads) < end; ++sample) {
    for (Candidate& c : candidates) {
      const double start = now(threads);
      c.run(sample);
      c.seconds.push_back(now(threads) - start);
    }
  }
}

}  // namespace bench
}  // namespace EigenQ

#endif  // EIGENQ_TEST_BENCH_CANDIDATES_H
