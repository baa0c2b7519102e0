// SPDX-License-Identifier: MPL-2.0
// quantize_int8.cpp: vector-wise int8 with outlier columns set apart (LLM.int8()).
//
// Rows need whole rows and nothing else, but an outlier anywhere in a column empties the column, so with a threshold a
// first pass finds the columns. Columns need their statistics before their first code: two passes as well.
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>

#include <eigen_q/src/BlockScale.h>
#include <eigen_q/src/Int8Codec.h>
#include <eigen_q/src/Int8Product.h>
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

  float absmaxOf(const float* values, Index count) const {
    const ConvertKernels& kernels = convertKernels();
    const float absmax = kernels.absmax(values, count);
    return (*this)(absmax) ? kernels.absmaxBelow(values, count, threshold) : absmax;
  }
};

std::vector<Index> findOutlierColumns(const ConstDenseView& a, const OutlierRule& isOutlier) {
  std::vector<Index> columns;
  if (!isOutlier.active) return columns;
  std::vector<char> found(static_cast<std::size_t>(a.cols));
  forEachRow(a, [&](const float* values, Index) {
    // Subnormals count as zeros in the absmax, which matters only below any sensible threshold.
    if (isOutlier.threshold >= FLT_MIN && !isOutlier(convertKernels().absmax(values, a.cols))) return;
    for (std::size_t c = 0; c < found.size(); ++c) found[c] = static_cast<char>(found[c] | isOutlier(values[c]));
  });
  for (Index c = 0; c < a.cols; ++c)
    if (found[static_cast<std::size_t>(c)]) columns.push_back(c);
  return columns;
}

/** magnitudeBits of what counts in statistics. */
std::int32_t countedBits(float v, const OutlierRule& isOutlier) { return isOutlier(v) ? 0 : magnitudeBits(v); }

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
    rowAbsmax[row] = isOutlier.absmaxOf(values, a.cols);
    std::int8_t* out = codes + row * a.cols;
    convertKernels().encodeInt8(values, a.cols, int8Scale(rowAbsmax[row]), out);
    clearColumns(outliers, out);
  });
  if (outlierColumns) *outlierColumns = std::move(outliers);
}

void markRowsWithNaN(const ConstDenseView& x, float* stats) {
  if (x.cols == 0) return;  // and maybe no memory at all
  forEachRow(x, [&](const float* values, Index row) {
    if (convertKernels().holdsNaN(values, x.cols)) stats[row] = std::numeric_limits<float>::quiet_NaN();
  });
}

void quantizeInt8Cols(const ConstDenseView& a, float threshold, std::int8_t* codes, float* colAbsmax,
                      std::vector<Index>* outlierColumns) {
  const OutlierRule isOutlier(threshold);
  std::vector<Index> outliers = findOutlierColumns(a, isOutlier);
  const std::vector<float> absmax = colAbsmaxOf(a, isOutlier);
  std::copy(absmax.begin(), absmax.end(), colAbsmax);
  std::vector<float> scales(absmax.size());
  std::transform(absmax.begin(), absmax.end(), scales.begin(), [](float m) { return int8Scale(m); });
  forEachRow(a, [&](const float* values, Index row) {
    std::int8_t* out = codes + row * a.cols;
    for (std::size_t c = 0; c < scales.size(); ++c) out[c] = encodeInt8(values[c], scales[c]);
    clearColumns(outliers, out);
  });
  if (outlierColumns) *outlierColumns = std::move(outliers);
}

}  // namespace internal
}  // namespace EigenQ
