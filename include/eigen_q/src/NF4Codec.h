// SPDX-License-Identifier: MPL-2.0
// NF4: sixteen levels at the quantiles of a normal distribution (QLoRA, arXiv:2305.14314). The scalar definition that
// every backend answers to. Bytes: doc/formats.md#nf4.
#ifndef EIGENQ_NF4CODEC_H
#define EIGENQ_NF4CODEC_H

#include <cstdint>

#include "FourBit.h"
#include "Macros.h"

namespace EigenQ {
namespace internal {

/** Level of each code, ascending, in units of the block's absmax. */
inline constexpr float kNF4Table[kFourBitLevels] = {
    -0x1p+0f,        -0x1.647362p-1f, -0x1.0cd66p-1f,  -0x1.94654p-2f,  //
    -0x1.23449ap-2f, -0x1.7a6a7ep-3f, -0x1.74f0e2p-4f, 0x0p+0f,         //
    0x1.45f5fep-4f,  0x1.4995c6p-3f,  0x1.f809bap-3f,  0x1.5a0674p-2f,  //
    0x1.c3497p-2f,   0x1.200f56p-1f,  0x1.722766p-1f,  0x1p+0f};

/** at[j] parts code j from code j + 1. */
struct NF4Thresholds {
  float at[kFourBitLevels - 1];
};

/** Those of bitsandbytes' CUDA kernel. Four of them (0, 8, 12, 14) lie one ulp beside the midpoint of their levels,
 * where its CPU code puts them: the kernel's decimal literals were rounded once more. */
EIGENQ_HOST_DEVICE constexpr NF4Thresholds nf4Thresholds() {
  return {{-0x1.b239b2p-1f, -0x1.38a4ep-1f, -0x1.d709p-2f, -0x1.5bd4ecp-2f, -0x1.e079d8p-3f, -0x1.1a7178p-3f,
           -0x1.74f0e2p-5f, 0x1.45f5fep-5f, 0x1.ec90c6p-4f, 0x1.a0cfcp-3f, 0x1.2b05a8p-2f, 0x1.8ea7f2p-2f,
           0x1.00da06p-1f, 0x1.491b5ep-1f, 0x1.b913b2p-1f}};
}

/** Code of \a v = value / absmax. A value on a threshold takes the lower code; NaN takes code 0. */
EIGENQ_HOST_DEVICE EIGENQ_STRONG_INLINE std::uint8_t encodeNF4(float v) {
  constexpr NF4Thresholds thresholds = nf4Thresholds();  // local, because device code may not index a host array
  std::int32_t code = 0;  // as wide as a float, so that the loop around this one vectorises
  for (const float threshold : thresholds.at) code += v > threshold;
  return static_cast<std::uint8_t>(code);
}

}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_NF4CODEC_H
