// SPDX-License-Identifier: MPL-2.0
// Vector-wise int8 (LLM.int8(), arXiv:2208.07339): a row or a column of codes shares one absmax. The scalar definition
// that every backend answers to. Bytes: doc/formats.md#int8.
#ifndef EIGENQ_INT8CODEC_H
#define EIGENQ_INT8CODEC_H

#include <cfloat>
#include <cmath>
#include <cstdint>

#include "Macros.h"

namespace EigenQ {
namespace internal {

constexpr float kInt8Max = 127;
constexpr float kInverse127 = 1.0f / kInt8Max;

/** Below this the scale 127/absmax would overflow: such a vector counts as zero. */
constexpr float kInt8SmallestAbsmax = kInt8Max / FLT_MAX * (1 + FLT_EPSILON);

/** Codes per unit of value in a vector of the given absmax; 0 for a vector that counts as zero. */
EIGENQ_HOST_DEVICE EIGENQ_STRONG_INLINE float int8Scale(float absmax) {
  return absmax < kInt8SmallestAbsmax ? 0.0f : kInt8Max / absmax;
}

/** Code of \a value in [-127, 127], ties to even; NaN takes code 0. -128 is never produced.
 * The clamp matters only for values beyond the absmax that \a scale was made from. */
EIGENQ_HOST_DEVICE EIGENQ_STRONG_INLINE std::int8_t encodeInt8(float value, float scale) {
  const float rounded = std::rint(value * scale);
  const float clamped = rounded > kInt8Max ? kInt8Max : rounded < -kInt8Max ? -kInt8Max : rounded;
  return static_cast<std::int8_t>(clamped == clamped ? clamped : 0);
}

/** What a code is multiplied by, one after the other: absmax, then RN(1/127), as bitsandbytes' int8_vectorwise_dequant;
 * the other way round where 127·absmax would overflow, which gives infinities there. */
struct Int8Factors {
  float first, second;

  EIGENQ_HOST_DEVICE EIGENQ_STRONG_INLINE explicit Int8Factors(float absmax)
      : first(absmax > FLT_MAX / kInt8Max ? kInverse127 : absmax),
        second(absmax > FLT_MAX / kInt8Max ? absmax : kInverse127) {}
};

/** r32(r32(code·absmax)·RN(1/127)): two roundings. */
EIGENQ_HOST_DEVICE EIGENQ_STRONG_INLINE float decodeInt8(std::int8_t code, float absmax) {
  const Int8Factors factors(absmax);
  return static_cast<float>(code) * factors.first * factors.second;
}

}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_INT8CODEC_H
