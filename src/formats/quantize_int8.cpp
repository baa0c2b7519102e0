// SPDX-License-Identifier: MPL-2.0
// quantize_int8.cpp: vector-wise int8 with outlier columns set apart (LLM.int8()).
//
// Rows need whole rows and nothing else, but an outlier anywhere in a column empties the column, so with a threshold a
// first pass finds the columns. Columns need their statistics before their first code: two passes as well.
#include <algorithm>
#include <cmath>

#include <eigen_q/src/BlockScale.h>
#include <eigen_q/src/Int8Codec.h>
#include <eigen_q/src/Quantizers.h>

#include "row_major.h"

namespace EigenQ {
namespace internal {
namespace {

/** Calls \a f(values, row) for each row of \a a. */
template <typename F>
void forEachRow(const ConstDenseView& a, F&& f) {
  forEachRun(a, a.cols, [&](const float* run, Index begin, Index count) {
    for (Index i = 0; i < count; i += a.cols) f(run + i, (begin + i) / a.cols);
  });
}

/** Magnitudes at and above this are outliers; an infinite limit lets nothing count as one but infinities. */
struct OutlierRule {
  bool active;
  float threshold;

  explicit OutlierRule(float t) : active(t > 0), threshold(t) {}
  bool operator()(float v) const { return active && std::fabs(v) >= threshold; }
};

std::vector<Index> findOutlierColumns(const ConstDenseView& a, const OutlierRule& isOutlier) {
  std::vector<Index> columns;
  if (!isOutlier.active) return columns;
  std::vector<char> found(static_cast<std::size_t>(a.cols));
  forEachRow(a, [&](const float* values, Index) {
    for (std::size_t c = 0; c < found.size(); ++c) found[c] = static_cast<char>(found[c] | isOutlier(values[c]));
  });
  for (Index c = 0; c < a.cols; ++c)
    if (found[static_cast<std::size_t>(c)]) columns.push_back(c);
  return columns;
}

/** magnitudeBits of what counts in statistics. */
std::int32_t countedBits(float v, const OutlierRule& isOutlier) { return isOutlier(v) ? 0 : magnitudeBits(v); }

float rowAbsmaxOf(const float* values, Index count, const OutlierRule& isOutlier) {
  std::int32_t largest = 0;
  for (Index c = 0; c < count; ++c) largest = std::max(largest, countedBits(values[c], isOutlier));
  return floatOf(static_cast<std::uint32_t>(largest));
}

std::vector<float> colAbsmaxOf(const ConstDenseView& a, const OutlierRule& isOutlier) {
  std::vector<std::int32_t> largest(static_cast<std::size_t>(a.cols));
  forEachRow(a, [&](const float* values, Index) {
    for (std::size_t c = 0; c < largest.size(); ++c)
      largest[c] = std::max(largest[c], countedBits(values[c], isOutlier));
  });
  std::vector<float> absmax(largest.size());
  std::transform(largest.begin(), largest.end(), absmax.begin(),
                 [](std::int32_t bits) { return floatOf(static_cast<std::uint32_t>(bits)); });
  return absmax;
}

void clearColumns(const std::vector<Index>& columns, std::int8_t* row) {
  for (const Index c : columns) row[c] = 0;
}

}  // namespace

void quantizeInt8Rows(const ConstDenseView& a, float threshold, std::int8_t* codes, float* rowAbsmax,
                      std::vector<Index>* outlierColumns) {
  const OutlierRule isOutlier(threshold);
  std::vector<Index> outliers = findOutlierColumns(a, isOutlier);
  std::fill_n(rowAbsmax, a.rows, 0.0f);  // rows without columns
  forEachRow(a, [&](const float* values, Index row) {
    rowAbsmax[row] = rowAbsmaxOf(values, a.cols, isOutlier);
    const float scale = int8Scale(rowAbsmax[row]);
    std::int8_t* out = codes + row * a.cols;
    for (Index c = 0; c < a.cols; ++c) out[c] = encodeInt8(values[c], scale);
    clearColumns(outliers, out);
  });
  if (outlierColumns) *outlierColumns = std::move(outliers);
}

void quantizeInt8Cols(const ConstDenseView& a, float threshold, std::int8_t* codes, float* colAbsmax,
                      std::vector<Index>* outlierColumns) {
  const OutlierRule isOutlier(threshold);
  std::vector<Index> outliers = findOutlierColumns(a, isOutlier);
  const std::vector<float> absmax = colAbsmaxOf(a, isOutlier);
  std::copy(absmax.begin(), absmax.end(), colAbsmax);
  std::vector<float> scales(absmax.size());
  std::transform(absmax.begin(), absmax.end(), scales.begin(), int8Scale);
  forEachRow(a, [&](const float* values, Index row) {
    std::int8_t* out = codes + row * a.cols;
    for (std::size_t c = 0; c < scales.size(); ++c) out[c] = encodeInt8(values[c], scales[c]);
    clearColumns(outliers, out);
  });
  if (outlierColumns) *outlierColumns = std::move(outliers);
}

}  // namespace internal
}  // namespace EigenQ
