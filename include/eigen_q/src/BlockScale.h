// SPDX-License-Identifier: MPL-2.0
// How a block of values becomes absmax and quotients. The scalar definition that every backend answers to.
#ifndef EIGENQ_BLOCKSCALE_H
#define EIGENQ_BLOCKSCALE_H

#include <cfloat>
#include <limits>

#include "Macros.h"
#include "ScalarConvert.h"

namespace EigenQ {
namespace internal {

/** |v| as its bits, which order as magnitudes do; 0 for NaN, which absmax ignores, and for subnormals, which
 * bitsandbytes' CUDA kernels flush. */
EIGENQ_HOST_DEVICE EIGENQ_STRONG_INLINE std::int32_t magnitudeBits(float v) {
  // Signed: every magnitude is positive, and SSE2 compares only signed integers.
  const std::int32_t bits = static_cast<std::int32_t>(bitsOf(v) & ~kFloatSign);
  constexpr std::int32_t infinity = 0x7f800000, smallestNormal = 0x00800000;
  return bits > infinity || bits < smallestNormal ? 0 : bits;
}

/** r32(1/absmax), infinite for a block of zeros. CUDA's reciprocal is approximate, within an ulp of this one. */
EIGENQ_HOST_DEVICE EIGENQ_STRONG_INLINE float blockReciprocal(float absmax) {
  return absmax > 0 ? 1.0f / absmax : std::numeric_limits<float>::infinity();
}

/** The quotient that a codec encodes, in [-1, 1]; NaN in a block of zeros, and for NaN and infinities. */
EIGENQ_HOST_DEVICE EIGENQ_STRONG_INLINE float normalized(float v, float reciprocal) {
  const bool subnormal = v < FLT_MIN && v > -FLT_MIN;
  return (subnormal ? 0.0f : v) * reciprocal;
}

}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_BLOCKSCALE_H
