// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_BENCH_OPTIONS_H
#define EIGENQ_BENCH_OPTIONS_H

#include <string>
#include <vector>

#include "Case.h"

namespace EigenQ {
namespace bench {

struct Options {
  std::vector<std::string> kernels;  // none: all
  std::vector<Shape> shapes;
  std::vector<Index> rows;             // of X
  std::vector<std::string> lowerings;  // that compute quantised products, one after another; none: as the table chooses
  ScalarType scalar = ScalarType::kBFloat16;
  double budget = 30e-3;  // seconds of samples a cell
  bool quick = false;
  std::string json;              // a file to write; empty: none
  double bfloat16Rate = 790e12;  // operations a second; measured on an H200 with random data
  double int8Rate = 1600e12;
  double floatRate = 60e12;

  double rate(Rate rate) const;
};

/** Throws std::invalid_argument, what() for the user. */
Options parseOptions(int argc, const char* const* argv);

const char* usage();

}  // namespace bench
}  // namespace EigenQ

#endif  // EIGENQ_BENCH_OPTIONS_H
