// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_CUDA_MMA_CUH
#define EIGENQ_CUDA_MMA_CUH

#include <cstdint>

#include "ptx.cuh"
#include "scalar.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
/** d (16×8) += a (16×16) · b (16×8), both of the tag's scalar; fragments as in ptx.cuh. */
__device__ __forceinline__ void multiplyAccumulate(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                                   std::uint32_t b1, TypeTag<__nv_bfloat16>) {
  ptx::mmaBFloat16(d, a[0], a[1], a[2], a[3], b0, b1);
}
__device__ __forceinline__ void multiplyAccumulate(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                                   std::uint32_t b1, TypeTag<__half>) {
  ptx::mmaHalf(d, a[0], a[1], a[2], a[3], b0, b1);
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_MMA_CUH
