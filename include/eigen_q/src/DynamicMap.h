// SPDX-License-Identifier: MPL-2.0
// The dynamic map: 256 levels whose spacing shrinks with magnitude (8-bit Optimizers, arXiv:2110.02861), and the search
// for the level nearest to a value. The scalar definition that every backend answers to. Bytes: doc/formats.md#dynamic.
#ifndef EIGENQ_DYNAMICMAP_H
#define EIGENQ_DYNAMICMAP_H

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>

#include "Macros.h"

namespace EigenQ {
namespace internal {

constexpr int kByteLevels = 256;

/** Levels in ascending order. */
using ByteCodeTable = std::array<float, kByteLevels>;

/** The default 8-bit code tables, made once: signed for values, unsigned for second moments. */
const ByteCodeTable& signedDynamicMap();
const ByteCodeTable& unsignedDynamicMap();

/** thresholds[j] parts code j from code j + 1: the code of v is the number of thresholds that v exceeds. */
using ByteThresholds = std::array<float, kByteLevels - 1>;

/** Midpoints of neighbouring levels, rounded to float as bitsandbytes' CUDA kernel does. A tie goes to the even code:
 * an odd midpoint therefore moves down by one ulp, which makes one strict comparison serve both parities. */
inline ByteThresholds byteThresholds(const float* table) {
  ByteThresholds thresholds{};
  float previous = -std::numeric_limits<float>::infinity();
  for (std::size_t j = 0; j < thresholds.size(); ++j) {
    const float midpoint = (table[j] + table[j + 1]) * 0.5f;
    const bool odd = j % 2 == 1;
    const float t = odd ? std::nextafter(midpoint, -std::numeric_limits<float>::infinity()) : midpoint;
    thresholds[j] = previous = std::max(previous, t);  // levels that repeat must not unsort the search
  }
  return thresholds;
}

/** The code with \a Bit and all lower bits decided. Unrolled by hand: a loop in here would keep the compiler from
 * vectorising the loop around it. */
template <unsigned Bit>
EIGENQ_HOST_DEVICE EIGENQ_STRONG_INLINE unsigned searchByte(float v, const float* thresholds, unsigned code) {
  if constexpr (Bit == 0) {
    return code;
  } else {
    // A mask, not a branch: nobody can predict the bits of a code.
    code |= Bit & -static_cast<unsigned>(v > thresholds[(code | Bit) - 1]);
    return searchByte<Bit / 2>(v, thresholds, code);
  }
}

/** Code of the level nearest to \a v = value / absmax; NaN takes code 0, as in bitsandbytes' CUDA kernel. */
EIGENQ_HOST_DEVICE EIGENQ_STRONG_INLINE std::uint8_t encodeByte(float v, const float* thresholds) {
  return static_cast<std::uint8_t>(searchByte<kByteLevels / 2>(v, thresholds, 0));
}

}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_DYNAMICMAP_H
