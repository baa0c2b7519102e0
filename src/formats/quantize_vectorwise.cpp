// SPDX-License-Identifier: MPL-2.0
// quantize_vectorwise.cpp: the seven int8 types of bitsandbytes 0.43. Each rounds where the original rounds in float32;
// a number over a tensor is a reciprocal and a product there.
#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include <eigen_q/src/Int8Codec.h>
#include <eigen_q/src/VectorwiseType.h>

#include "row_major.h"

namespace EigenQ {
namespace internal {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kTruncation = 0.7f;
constexpr float kAffineLevels = 255;
constexpr double kCentre = 128;  // moves codes 0 to 255 into int8's range

float withNaN(float larger, float v) { return v != v || larger != larger ? kNaN : std::max(larger, v); }

float absmaxOf(const float* values, Index count) {
  float largest = 0;
  for (Index i = 0; i < count; ++i) largest = withNaN(largest, std::fabs(values[i]));
  return largest;
}

std::int8_t encodeNormalized(float value, float absmax) { return encodeInt8(value / absmax * kInt8Max, 1.0f); }

void encodeSymmetric(const float* values, Index count, VectorwiseType type, float stat, std::int8_t* codes) {
  if (type == VectorwiseType::kVector || type == VectorwiseType::kRow) {
    const float scale = int8Scale(stat) == 0 ? 0 : 1 / stat * kInt8Max;
    for (Index i = 0; i < count; ++i) codes[i] = encodeInt8(values[i], scale);
  } else {
    for (Index i = 0; i < count; ++i) codes[i] = encodeNormalized(std::clamp(values[i], -stat, stat), stat);
  }
}

/** 255 steps from the smallest value to the largest: code = rint(s·x - z) - 128, z = rint(s·min). */
struct Affine {
  float stat;
  float zero;

  Affine(const float* values, Index count) : stat(kAffineLevels), zero(0) {
    if (count == 0) return;
    float low = values[0], high = values[0];
    for (Index i = 0; i < count; ++i) {
      low = -withNaN(-low, -values[i]);
      high = withNaN(high, values[i]);
    }
    stat = statOf(low, high);
    zero = std::rint(low * stat);
  }

  std::int8_t encode(float value) const {
    const float step = std::rint(value * stat - zero);
    const float clamped = step > kAffineLevels ? kAffineLevels : step > 0 ? step : 0;  // NaN takes 0
    return static_cast<std::int8_t>(static_cast<int>(clamped) - static_cast<int>(kCentre));
  }
  double zeroPoint() const { return static_cast<double>(zero) + kCentre; }

 private:
  static float statOf(float low, float high) {
    if (!std::isfinite(low) || !std::isfinite(high)) return kNaN;
    const float range = high - low;
    if (!std::isfinite(range)) {  // the difference of two large floats
      return static_cast<float>(double{kAffineLevels} / (static_cast<double>(high) - static_cast<double>(low)));
    }
    const float scale = 1 / range * kAffineLevels;
    return std::isfinite(scale) ? scale : kAffineLevels;
  }
};

void quantizeVector(const float* values, Index count, VectorwiseType type, std::int8_t* codes, float* stat,
                    double* zeroPoint) {
  if (isZeropoint(type)) {
    const Affine affine(values, count);
    for (Index i = 0; i < count; ++i) codes[i] = affine.encode(values[i]);
    *stat = affine.stat;
    *zeroPoint = affine.zeroPoint();
  } else {
    *stat = absmaxOf(values, count);
    if (type == VectorwiseType::kTruncatedVector) *stat *= kTruncation;
    encodeSymmetric(values, count, type, *stat, codes);
  }
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
