// SPDX-License-Identifier: MPL-2.0
// Vector-wise int8 (LLM.int8(), arXiv:2208.07339): a row or a column of codes shares one absmax. The scalar definition
// that every backend answers to. Bytes: doc/formats.md#int8.
#ifndef EIGENQ_INT8CODEC_H
#define EIGENQ_INT8CODEC_H

#include <cfloat>
#include <cmath>
#include <cstdint>

#include "Macros.h"
#include "Views.h"

namespace EigenQ {
namespace internal {

constexpr float kInt8Max = 127;

/** Below this the scale 127/absmax would overflow: such a vector counts as zero. */
constexpr float kInt8SmallestAbsmax = kInt8Max / FLT_MAX * (1 + FLT_EPSILON);

/** Codes per unit of value in a vector of the given absmax; 0 for a vector that counts as zero. */
EIGENQ_HOST_DEVICE inline float int8Scale(float absmax) {
  return absmax < kInt8SmallestAbsmax ? 0.0f : kInt8Max / absmax;
}

/** Code of \a value in [-127, 127], ties to even; NaN takes code 0. -128 is never produced.
 * The clamp matters only for values beyond the absmax that \a scale was made from. */
EIGENQ_HOST_DEVICE inline std::int8_t encodeInt8(float value, float scale) {
  const float rounded = std::rint(value * scale);
  const float clamped = rounded > kInt8Max ? kInt8Max : rounded < -kInt8Max ? -kInt8Max : rounded;
  return static_cast<std::int8_t>(clamped == clamped ? clamped : 0);
}

/** r32(r32(code·absmax)·RN(1/127)): two roundings, as bitsandbytes' int8_vectorwise_dequant. */
EIGENQ_HOST_DEVICE inline float decodeInt8(std::int8_t code, float absmax) {
  return static_cast<float>(code) * absmax * kInverse127;
}

}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_INT8CODEC_H
