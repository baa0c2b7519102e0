// SPDX-License-Identifier: MPL-2.0
// The dynamic maps of optimiser moments as the kernels search them, made once, by code for the baseline instruction
// set.
//
//   bits of |v|   eeeeeeee mmmmmm mmmmmmmmmmmmmmmmm      v = value / absmax, in [-1, 1]
//                 └── bucket ───┘ └─── compared ──┘
//
// Magnitudes that share the exponent and the first bits of the mantissa are a bucket, so narrow that codes change once
// in it at most: one lookup and one comparison find a code where the search of DynamicMap.h takes eight of each in
// turn. Below kLeastMagnitude, and so in one bucket of each sign, codes do not change.
#ifndef EIGENQ_CPU_MOMENT_MAP_H
#define EIGENQ_CPU_MOMENT_MAP_H

#include <eigen_q/src/Macros.h>
#include <eigen_q/src/ScalarConvert.h>

#include <cstdint>

namespace EigenQ {
namespace internal {

constexpr std::int32_t kLeastMagnitude = (127 - 26) << 23, kOneMagnitude = 127 << 23;  // bits of 2^-26 and 1

/** levels: 256. A bucket: the code of its smallest magnitude, shifted by kCodeShift, and the low bits, \a compared of
 * them, of the largest magnitude that has this code; codes of larger ones are one further from zero. */
struct MomentMap {
  static constexpr int kCodeShift = 24;

  const float* levels;
  const std::uint32_t* buckets;  // of positive values, then of negative ones
  int compared;

  /** encodeByte() of v in [-1, 1]. */
  EIGENQ_STRONG_INLINE std::uint8_t encode(float v) const {
    const std::int32_t mask = (1 << compared) - 1, first = kLeastMagnitude >> compared;
    const std::int32_t bucketsOfSign = (kOneMagnitude >> compared) - first + 1;
    const auto bits = static_cast<std::int32_t>(bitsOf(v)), magnitude = bits & 0x7fffffff;
    const std::int32_t above = magnitude > kLeastMagnitude ? magnitude : kLeastMagnitude;
    const std::int32_t m = above < kOneMagnitude ? above : kOneMagnitude, negative = bits >> 31;  // -1 or 0
    const auto bucket = static_cast<std::int32_t>(buckets[(m >> compared) - first + (negative & bucketsOfSign)]);
    const std::int32_t further = -static_cast<std::int32_t>((m & mask) > (bucket & mask));
    return static_cast<std::uint8_t>((bucket >> kCodeShift) - (further ^ negative) + negative);
  }
};

MomentMap signedMomentMap();
MomentMap unsignedMomentMap();

}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_MOMENT_MAP_H
