// SPDX-License-Identifier: MPL-2.0
// The command line of benchmarks over rows of X: [THREADS [SECONDS [ROWS…]]].
#ifndef EIGENQ_BENCH_ARGUMENTS_H
#define EIGENQ_BENCH_ARGUMENTS_H

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include <Eigen/Core>

namespace EigenQ {
namespace bench {

struct Arguments {
  int threads = 1;
  double seconds;                  // of each measurement
  std::vector<Eigen::Index> rows;  // of X

  /** What is not given stays as it is; prints the usage and ends the program where an argument is no such number. */
  void parse(int argc, char** argv) {
    if (argc > 1) threads = std::atoi(argv[1]);
    if (argc > 2) seconds = std::atof(argv[2]);
    if (argc > 3) rows.clear();
    for (int i = 3; i < argc; ++i) rows.push_back(std::atoi(argv[i]));
    const auto isPositive = [](Eigen::Index n) { return n > 0; };
    if (threads > 0 && seconds > 0 && std::all_of(rows.begin(), rows.end(), isPositive)) return;
    std::fprintf(stderr, "usage: %s [THREADS [SECONDS [ROWS...]]]\n", argv[0]);
    std::exit(EXIT_FAILURE);
  }
};

}  // namespace bench
}  // namespace EigenQ

#endif  // EIGENQ_BENCH_ARGUMENTS_H
