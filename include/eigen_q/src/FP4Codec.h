// SPDX-License-Identifier: MPL-2.0
// FP4: a sign and eight magnitudes in twelfths of absmax, in bitsandbytes' own order. The scalar definition that every
// backend answers to. Bytes: doc/formats.md#fp4.
#ifndef EIGENQ_FP4CODEC_H
#define EIGENQ_FP4CODEC_H

#include <cfloat>
#include <cstdint>

#include "FourBit.h"
#include "Macros.h"

namespace EigenQ {
namespace internal {

/** Level of each code in units of the block's absmax; bit 3 is the sign. Code 8 decodes to
 * -0, as in bitsandbytes' CUDA kernel; the tables that it stores hold +0 there. */
inline constexpr float kFP4Table[kFourBitLevels] = {
    0x0p+0f,  0x1.555556p-8f,  0x1.555556p-1f,  0x1p+0f,  0x1.555556p-2f,  0x1p-1f,  0x1.555556p-3f,  0x1p-2f,
    -0x0p+0f, -0x1.555556p-8f, -0x1.555556p-1f, -0x1p+0f, -0x1.555556p-2f, -0x1p-1f, -0x1.555556p-3f, -0x1p-2f};

/** Code of \a v = value / absmax. A magnitude on a threshold takes the smaller level; NaN takes code 0, and so does -0,
 * while a negative value that rounds to zero takes code 8. Thresholds and signs are those of bitsandbytes' CUDA kernel;
 * its CPU code rounds ties towards minus infinity and swaps the two zeros. */
EIGENQ_HOST_DEVICE EIGENQ_STRONG_INLINE std::uint8_t encodeFP4(float v) {
  constexpr float thresholds[] = {0x1.555572p-9f, 0x1.6p-4f,     0x1.aaaaaap-3f, 0x1.2aaaaap-2f,
                                  0x1.aaaaacp-2f, 0x1.2aaaap-1f, 0x1.aaaaaap-1f};
  const float magnitude = v < 0 ? -v : v;
  std::int32_t rank = 0;  // position among the magnitudes in ascending order
  for (const float threshold : thresholds) rank += magnitude > threshold;
  // Ascending magnitudes bear codes 0 1 6 7 4 5 2 3: bit 2 is flipped where bit 1 is set.
  const std::int32_t code = rank ^ ((rank & 2) << 1);
  // The kernel compares with subnormals flushed, so a quotient that small is no longer negative.
  const std::int32_t sign = v <= -FLT_MIN ? 8 : 0;
  return static_cast<std::uint8_t>(code | sign);
}

}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_FP4CODEC_H
