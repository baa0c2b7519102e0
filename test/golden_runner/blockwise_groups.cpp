// SPDX-License-Identifier: MPL-2.0
// blockwise_groups.cpp: quantize_blockwise and the stored tables.
#include <cfloat>

#include <eigen_q/src/BlockScale.h>

#include "Groups.h"

namespace EigenQ {
namespace golden {

void checkQuantizeBlockwise(const Case& c, CaseReport& report) {
  const test::Tensor& input = c.tensor("input");
  const auto blockSize = c.parameter<Index>("blocksize");
  BlockwiseQuantized ours = c.backend().quantizeBlockwise(viewOf(input), blockSize);
  report.compareFloats("absmax", c.tensor("absmax").floats(), toVector(ours.absmax));

  const std::vector<float> values = widened(input);
  const internal::ByteThresholds thresholds = internal::byteThresholds(ours.codeTable.data());
  const auto reciprocalAt = [&](std::size_t i) {
    return internal::blockReciprocal(ours.absmax[static_cast<Index>(i) / blockSize]);
  };
  const auto quotientAt = [&](std::size_t i) { return internal::normalized(values[i], reciprocalAt(i)); };
  const std::vector<std::uint8_t> fileCodes = c.tensor("codes").bytesU8();
  compareCodes(
      report, "codes", fileCodes, toVector(ours.codes), kBlockQuotientUlps, quotientAt,
      [&](float v) { return internal::encodeByte(v, thresholds.data()); },
      [&](std::size_t i) { return reciprocalAt(i) < FLT_MIN; });

  if (!report.sameCount("codes", fileCodes.size(), values.size())) return;
  std::copy(fileCodes.begin(), fileCodes.end(), ours.codes.data());
  report.compareFloats("dequantized", widened(c.tensor("dequantized")),
                       c.backend().dequantizeBlockwise(ours, scalarOf(input)));
}

bool checkTable(const test::Tensor& table, CaseReport& report) {
  std::vector<float> ours;
  if (table.key == "dynamic_map") {
    ours = toVector(Eigen::VectorXf(dynamicMap()));
  } else if (table.key == "nf4_code" || table.key == "fp4_code") {
    const FourBitType type = table.key == "nf4_code" ? FourBitType::kNF4 : FourBitType::kFP4;
    ours = toVector(QuantState(type, 64, ScalarType::kFloat, {0, 0}, Eigen::VectorXf()).quantMap());
  } else {
    return false;
  }
  report.compareFloats("levels", table.floats(), ours);
  return true;
}

}  // namespace golden
}  // namespace EigenQ
