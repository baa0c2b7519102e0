// SPDX-License-Identifier: MPL-2.0
// vectorwise_groups.cpp: vectorwise_quant, the codes and statistics of 0.43's quantisation types.
#include <eigen_q/src/Vectorwise.h>

#include "Groups.h"

namespace EigenQ {
namespace golden {
namespace {

/** The zero-point types return floats: our codes and their zero points together. */
void compareAffineCodes(const Case& c, const VectorwiseQuantized& ours, CaseReport& report) {
  const std::vector<float> expected = c.tensor("codes").floats();
  std::vector<float> found;
  for (Index i = 0; i < ours.codes.rows(); ++i) {
    for (Index j = 0; j < ours.codes.cols(); ++j) {
      const Index v = ours.zeroPoints.size() == 1 ? 0 : ours.axis == VectorAxis::kRows ? i : j;
      found.push_back(static_cast<float>(static_cast<double>(ours.codes(i, j)) + ours.zeroPoints[v]));
    }
  }
  report.compareFloats("codes", expected, found);
}

}  // namespace

void checkVectorwiseQuant(const Case& c, CaseReport& report) {
  const test::Tensor& input = c.tensor("input");
  const VectorwiseType type = vectorwiseType(c.parameter<std::string>("quant_type"));
  const auto dim = c.parameter<Index>("dim");
  const bool alongRows = dim == -1 || dim + 1 == static_cast<Index>(input.shape.size());
  const VectorwiseQuantized ours =
      c.backend().vectorwiseQuant(viewOf(input), type, alongRows ? VectorAxis::kRows : VectorAxis::kCols);
  report.compareFloats("stats", widened(c.tensor("stats")), toVector(ours.stats));
  if (isZeropoint(type)) {
    compareAffineCodes(c, ours, report);
  } else {
    report.compareIntegers("codes", c.tensor("codes").as<std::int8_t>("I8"), toVector(ours.codes));
  }
}

}  // namespace golden
}  // namespace EigenQ
