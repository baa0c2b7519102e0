// SPDX-License-Identifier: MPL-2.0
// quantize_vectorwise.cpp: the seven int8 types of bitsandbytes 0.43 over whole matrices; each value by
// VectorwiseCodec.h.
#include <algorithm>
#include <iterator>
#include <stdexcept>

#include <eigen_q/src/VectorwiseCodec.h>

#include "row_major.h"

namespace EigenQ {
namespace internal {
namespace {

void quantizeVector(const float* values, Index count, VectorwiseType type, std::int8_t* codes, float* stat,
                    double* zeroPoint) {
  ValueRange range;
  for (Index i = 0; i < count; ++i) range.include(values[i]);
  const VectorwiseCode code(type, range);
  for (Index i = 0; i < count; ++i) codes[i] = code(values[i]);
  *stat = code.stat();
  if (isZeropoint(type)) *zeroPoint = code.zeroPoint();
}

}  // namespace

void quantizeVectorwise(const ConstDenseView& a, VectorwiseType type, std::int8_t* codes, float* stats,
                        double* zeroPoints) {
  if (isWholeMatrix(type)) {
    const Index size = a.rows * a.cols;  // forEachRun hands over a single run of a whole unit
    if (size == 0) return quantizeVector(nullptr, 0, type, codes, stats, zeroPoints);
    return forEachRun(a, size, [&](const float* values, Index, Index count) {
      quantizeVector(values, count, type, codes, stats, zeroPoints);
    });
  }
  const auto quantizeRow = [&](const float* values, Index row) {
    quantizeVector(values, a.cols, type, codes + row * a.cols, stats + row,
                   isZeropoint(type) ? zeroPoints + row : nullptr);
  };
  if (a.cols == 0) {
    for (Index row = 0; row < a.rows; ++row) quantizeRow(nullptr, row);
    return;
  }
  forEachRun(a, a.cols, [&](const float* run, Index begin, Index count) {
    for (Index i = 0; i < count; i += a.cols) quantizeRow(run + i, (begin + i) / a.cols);
  });
}

}  // namespace internal

VectorwiseType vectorwiseType(const std::string& name) {
  constexpr const char* kNames[] = {"vector",           "row",          "linear", "truncated-vector", "zeropoint",
                                    "vector-zeropoint", "row-zeropoint"};
  const auto* found = std::find(std::begin(kNames), std::end(kNames), name);
  if (found == std::end(kNames)) throw std::invalid_argument("vectorwiseType: unknown quantisation type " + name);
  return static_cast<VectorwiseType>(found - std::begin(kNames));
}

}  // namespace EigenQ
