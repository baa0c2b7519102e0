// SPDX-License-Identifier: MPL-2.0
// encodeInt8 of eight values, for kernels whose scale fits its values.
#ifndef EIGENQ_CUDA_INT8_CODES_CUH
#define EIGENQ_CUDA_INT8_CODES_CUH

#include <math_constants.h>

#include "eight_values.cuh"
#include "quantizers.h"

namespace EigenQ {
namespace gpu {
namespace internal {

/** Four codes in memory order. The conversion rounds to nearest even and takes NaN to 0, as encodeInt8 does; what it
 * lacks is the clamp, which matters only for magnitudes beyond the absmax behind the scale. Those are outliers, whose
 * column holds 0 in the end, or infinities, whose product with their scale 0 is a NaN. */
__device__ __forceinline__ std::uint32_t encodeFour(float v0, float v1, float v2, float v3) {
  const std::uint32_t low = __byte_perm(__float2int_rn(v0), __float2int_rn(v1), 0x0040);
  const std::uint32_t high = __byte_perm(__float2int_rn(v2), __float2int_rn(v3), 0x0040);
  return __byte_perm(low, high, 0x5410);
}

__device__ __forceinline__ std::uint64_t joinWords(std::uint32_t low, std::uint32_t high) {
  return static_cast<std::uint64_t>(high) << 32 | low;
}

/** \param scale  of the row */
template <typename T>
__device__ __forceinline__ std::uint64_t encodeEight(const EightValues<T>& v, float scale) {
  float f[kEight];
  toFloats(v, f);
  return joinWords(encodeFour(f[0] * scale, f[1] * scale, f[2] * scale, f[3] * scale),
                   encodeFour(f[4] * scale, f[5] * scale, f[6] * scale, f[7] * scale));
}

/** \param scale  one a column */
template <typename T>
__device__ __forceinline__ std::uint64_t encodeEight(const EightValues<T>& v, const float (&scale)[kEight]) {
  float f[kEight];
  toFloats(v, f);
  return joinWords(encodeFour(f[0] * scale[0], f[1] * scale[1], f[2] * scale[2], f[3] * scale[3]),
                   encodeFour(f[4] * scale[4], f[5] * scale[5], f[6] * scale[6], f[7] * scale[7]));
}

/** Whether every row allows 16-byte loads of values, or 8-byte stores of codes, at multiples of eight columns. */
inline bool hasAlignedRows(const ConstDenseView& a) {
  const Index perVector = a.scalar == ScalarType::kFloat ? 4 : 8;
  return isAligned(a.data, 16) && (a.rows == 1 || a.rowStride % perVector == 0);
}
inline bool hasAlignedRows(const Int8Codes& codes) { return isAligned(codes.data, 8) && codes.stride % 8 == 0; }

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_INT8_CODES_CUH
