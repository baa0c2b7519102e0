// SPDX-License-Identifier: MPL-2.0
// The seven int8 types of bitsandbytes 0.43, value by value: the scalar definition that every backend answers to. Each
// rounds where the original rounds in float32; a number over a tensor is a reciprocal and a product there.
#ifndef EIGENQ_VECTORWISECODEC_H
#define EIGENQ_VECTORWISECODEC_H

#include <cmath>
#include <cstdint>
#include <limits>

#include "Int8Codec.h"
#include "ScalarConvert.h"
#include "VectorwiseType.h"

namespace EigenQ {
namespace internal {

constexpr float kTruncation = 0.7f;
constexpr float kAffineLevels = 255;
constexpr std::uint32_t kQuietNaN = 0x7fc00000u;
constexpr double kAffineCentre = 128;  // moves codes 0 to 255 into int8's range

/** What the codes of a vector depend on. The order of include() does not matter. */
struct ValueRange {
  float low = std::numeric_limits<float>::infinity();  // of what is no NaN
  float high = -std::numeric_limits<float>::infinity();
  bool holdsNaN = false;

  EIGENQ_HOST_DEVICE void include(float v) {
    low = v < low ? v : low;
    high = v > high ? v : high;
    holdsNaN = holdsNaN || v != v;
  }
  EIGENQ_HOST_DEVICE void include(const ValueRange& other) {
    low = other.low < low ? other.low : low;
    high = other.high > high ? other.high : high;
    holdsNaN = holdsNaN || other.holdsNaN;
  }
  EIGENQ_HOST_DEVICE bool isEmpty() const { return low > high && !holdsNaN; }
};

/** 255 over the range; 255 itself for a range that is zero or so small that this would overflow. */
EIGENQ_HOST_DEVICE inline float affineScale(const ValueRange& r) {
  if (r.isEmpty()) return kAffineLevels;
  if (r.holdsNaN || !isFinite(r.low) || !isFinite(r.high)) return floatOf(kQuietNaN);
  const float range = r.high - r.low;
  if (!isFinite(range)) {  // the difference of two large floats
    return static_cast<float>(static_cast<double>(kAffineLevels) /
                              (static_cast<double>(r.high) - static_cast<double>(r.low)));
  }
  const float scale = 1 / range * kAffineLevels;
  return isFinite(scale) ? scale : kAffineLevels;
}

EIGENQ_HOST_DEVICE inline float absmaxOf(const ValueRange& r) {
  if (r.holdsNaN) return floatOf(kQuietNaN);
  if (r.isEmpty()) return 0;
  return std::fabs(r.low) > std::fabs(r.high) ? std::fabs(r.low) : std::fabs(r.high);
}

/** The statistic and the zero point of a vector, and the codes of its values. */
class VectorwiseCode {
 public:
  EIGENQ_HOST_DEVICE VectorwiseCode(VectorwiseType type, const ValueRange& range) : m_type(type) {
    if (isZeropoint(type)) {
      m_stat = affineScale(range);
      m_zero = range.isEmpty() ? 0.0f : std::rint(range.low * m_stat);
    } else {
      m_stat = type == VectorwiseType::kTruncatedVector ? absmaxOf(range) * kTruncation : absmaxOf(range);
    }
    setScale();
  }
  /** From what is stored. The subtraction is exact: a zero point is a float plus 128, rounded to double. */
  EIGENQ_HOST_DEVICE VectorwiseCode(VectorwiseType type, float stat, double zeroPoint)
      : m_type(type), m_stat(stat), m_zero(static_cast<float>(zeroPoint - kAffineCentre)) {
    setScale();
  }

  EIGENQ_HOST_DEVICE float stat() const { return m_stat; }
  /** Of the zero-point types. */
  EIGENQ_HOST_DEVICE double zeroPoint() const { return static_cast<double>(m_zero) + kAffineCentre; }

  EIGENQ_HOST_DEVICE std::int8_t operator()(float v) const {
    if (isZeropoint(m_type)) {
      const float step = std::rint(v * m_stat - m_zero);
      const float clamped = step > kAffineLevels ? kAffineLevels : step > 0 ? step : 0;  // NaN takes 0
      return static_cast<std::int8_t>(static_cast<int>(clamped) - static_cast<int>(kAffineCentre));
    }
    if (m_type == VectorwiseType::kVector || m_type == VectorwiseType::kRow) return encodeInt8(v, m_scale);
    const float clipped = v < -m_stat ? -m_stat : v > m_stat ? m_stat : v;
    return encodeInt8(clipped / m_stat * kInt8Max, 1.0f);
  }

 private:
  EIGENQ_HOST_DEVICE void setScale() { m_scale = int8Scale(m_stat) == 0 ? 0 : 1 / m_stat * kInt8Max; }

  VectorwiseType m_type;
  float m_stat;
  float m_zero = 0;
  float m_scale;
};

EIGENQ_HOST_DEVICE inline double decodeVectorwise(VectorwiseType type, std::int8_t code, float stat, double zeroPoint) {
  const double c = static_cast<double>(code), s = static_cast<double>(stat);
  return isZeropoint(type) ? (c + zeroPoint) / s : c * (s / 127);
}

/** The value behind the sum of code products Σ ca·cb; with zero points, behind Σ(ca + za)(cb + zb). */
EIGENQ_HOST_DEVICE inline double scaleSum(double sum, VectorwiseType type, double statA, double statB) {
  return isZeropoint(type) ? sum / statA / statB : sum * (statA / 127) * (statB / 127);
}

/** Σ(ca + za)(cb + zb) from Σ ca·cb, Σ ca and Σ cb, of \a depth terms each. */
EIGENQ_HOST_DEVICE inline double addZeroPoints(double sum, double za, double zb, double aSum, double bSum,
                                               double depth) {
  return sum + (za * bSum + zb * aSum + depth * za * zb);
}

}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_VECTORWISECODEC_H
