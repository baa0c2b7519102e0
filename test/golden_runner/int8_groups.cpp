// SPDX-License-Identifier: MPL-2.0
// int8_groups.cpp: int8_vectorwise_quant, int8_double_quant and the weights of matmul_8bit.
#include <algorithm>
#include <cmath>

#include <eigen_q/src/Int8Codec.h>

#include "Groups.h"

namespace EigenQ {
namespace golden {
namespace {

/** \param statAt  the absmax that scales element i */
template <typename StatAt>
void compareInt8(const char* what, const std::vector<std::int8_t>& expected, const Int8Codes& found,
                 const std::vector<float>& values, StatAt&& statAt, CaseReport& report) {
  compareCodes(
      report, what, expected, toVector(found), kInt8QuotientUlps,
      [&](std::size_t i) { return values[i] * internal::int8Scale(statAt(static_cast<Index>(i))); },
      [](float v) { return internal::encodeInt8(v, 1.0f); });
}

void compareOutliers(const Case& c, const IndexVector& found, CaseReport& report) {
  std::vector<std::int64_t> expected;  // the original returns none without a threshold
  if (c.has("outlier_columns")) expected = c.tensor("outlier_columns").as<std::int64_t>("I64");
  if (!c.has("outlier_columns") && c.parameter<float>("threshold") > 0) report.fail("outlier_columns: tensor missing");
  report.compareIntegers("outlier_columns", expected, std::vector<std::int64_t>(found.begin(), found.end()));
}

/** Row statistics as recorded. The original's maximum of a row of outliers alone is -0. */
std::vector<float> recordedRowStats(const Case& c, CaseReport& report) {
  std::vector<float> stats = c.tensor("row_stats").floats();
  const auto negativeZeros =
      std::count_if(stats.begin(), stats.end(), [](float v) { return v == 0 && std::signbit(v); });
  if (negativeZeros > 0) {
    report.note(
        "row_stats: " + std::to_string(negativeZeros) + " of " + std::to_string(stats.size()) + " are -0, ours 0", 0);
  }
  for (float& v : stats) v = v == 0 ? 0.0f : v;
  return stats;
}

float roundToHalf(float v) { return internal::halfToFloat(internal::floatToHalf(v)); }

/** The original rounds 127·a to half before it divides, so its column codes may be a step away from ours; they must
 * then be what that arithmetic gives. */
void compareColumnCodes(const Case& c, const std::vector<float>& values, const Int8DoubleQuantized& ours,
                        CaseReport& report) {
  const auto expected = c.tensor("codes_col").as<std::int8_t>("I8");
  if (!report.sameCount("codes_col", expected.size(), values.size())) return;
  std::vector<char> outlier(static_cast<std::size_t>(ours.colStats.size()));
  for (const Index column : ours.outlierColumns) outlier[static_cast<std::size_t>(column)] = 1;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const std::size_t column = i % outlier.size();
    const std::int8_t found = ours.colCodes.data()[i];
    if (expected[i] == found || outlier[column]) continue;  // an outlier column is the caller's to clear there
    const float theirs = std::nearbyint(roundToHalf(values[i] * 127) / ours.colStats[static_cast<Index>(column)]);
    const std::string text = "codes_col[" + std::to_string(i) + "]: the file holds " + std::to_string(expected[i]) +
                             ", ours " + std::to_string(found);
    if (theirs == static_cast<float>(expected[i]) && std::abs(expected[i] - found) == 1) {
      report.note(text + ", half rounding of 127·a", 1);
    } else {
      report.fail(text);
    }
  }
}

}  // namespace

void checkInt8VectorwiseQuant(const Case& c, CaseReport& report) {
  const test::Tensor& input = c.tensor("input");
  const auto threshold = c.parameter<float>("threshold");
  const Int8Quantized ours = c.backend().int8VectorwiseQuant(viewOf(input), threshold);
  report.compareFloats("row_stats", recordedRowStats(c, report), toVector(ours.rowStats));
  compareOutliers(c, ours.outlierColumns, report);
  compareInt8(
      "codes", c.tensor("codes").as<std::int8_t>("I8"), ours.codes, widened(input),
      [&](Index i) { return ours.rowStats[i / input.cols()]; }, report);
}

void checkInt8DoubleQuant(const Case& c, CaseReport& report) {
  const test::Tensor& input = c.tensor("input");
  const auto threshold = c.parameter<float>("threshold");
  const Int8DoubleQuantized ours = c.backend().int8DoubleQuant(viewOf(input), threshold);
  report.compareFloats("row_stats", recordedRowStats(c, report), toVector(ours.rowStats));
  report.compareFloats("col_stats", c.tensor("col_stats").floats(), toVector(ours.colStats));
  compareOutliers(c, ours.outlierColumns, report);
  const std::vector<float> values = widened(input);
  compareInt8(
      "codes_row", c.tensor("codes_row").as<std::int8_t>("I8"), ours.rowCodes, values,
      [&](Index i) { return ours.rowStats[i / input.cols()]; }, report);
  if (c.has("codes_col")) compareColumnCodes(c, values, ours, report);
}

void checkMatmul8bitWeights(const Case& c, CaseReport& report) {
  if (c.parameter<bool>("has_fp16_weights")) return;  // no codes are recorded
  // The original quantises weights through half, whatever their type.
  std::vector<float> values = widened(c.tensor("W"));
  std::transform(values.begin(), values.end(), values.begin(), roundToHalf);
  const MatrixMap<float> weights(values.data(), c.tensor("W").rows(), c.tensor("W").cols());
  const Int8Quantized ours = c.backend().int8VectorwiseQuant(internal::viewOf(weights), 0);
  report.compareFloats("SCB", c.tensor("SCB").floats(), toVector(ours.rowStats));
  compareInt8(
      "CB", c.tensor("CB").as<std::int8_t>("I8"), ours.codes, values,
      [&](Index i) { return ours.rowStats[i / weights.cols()]; }, report);
}

}  // namespace golden
}  // namespace EigenQ
