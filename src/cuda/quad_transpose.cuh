// SPDX-License-Identifier: MPL-2.0
// What four neighbouring lanes of a fragment exchange, so that each stores 16 bytes of its own.
#ifndef EIGENQ_CUDA_QUAD_TRANSPOSE_CUH
#define EIGENQ_CUDA_QUAD_TRANSPOSE_CUH

#include <cstdint>

namespace EigenQ {
namespace gpu {
namespace internal {

/** Lanes 4g to 4g + 3 hold a 4×4 matrix of words, a column each; afterwards its transpose: lane 4g + c has what they
 * held in w[c]. By all lanes of a warp. */
__device__ __forceinline__ void transposeQuad(std::uint32_t (&w)[4]) {
  const bool odd = threadIdx.x % 2 != 0, high = threadIdx.x / 2 % 2 != 0;
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const std::uint32_t other = __shfl_xor_sync(0xffffffffu, odd ? w[i] : w[i + 1], 1);
    (odd ? w[i] : w[i + 1]) = other;
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const std::uint32_t other = __shfl_xor_sync(0xffffffffu, high ? w[i] : w[i + 2], 2);
    (high ? w[i] : w[i + 2]) = other;
  }
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_QUAD_TRANSPOSE_CUH
