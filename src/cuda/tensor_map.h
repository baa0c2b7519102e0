// SPDX-License-Identifier: MPL-2.0
// Arrays as Hopper's copy engine sees them.
#ifndef EIGENQ_CUDA_TENSOR_MAP_H
#define EIGENQ_CUDA_TENSOR_MAP_H

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <eigen_q/src/Views.h>

#include "check.h"

namespace EigenQ {
namespace gpu {
namespace internal {

/** The driver's function, without linking against the driver. */
inline decltype(&cuTensorMapEncodeTiled) encodeTiled() {
  static const auto function = [] {
    void* entry = nullptr;
    cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
    EIGENQ_CUDA_CHECK(
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000, cudaEnableDefault, &found));
#else
    EIGENQ_CUDA_CHECK(cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &entry, cudaEnableDefault, &found));
#endif
    if (found != cudaDriverEntryPointSuccess) EIGENQ_CUDA_CHECK(cudaErrorSymbolNotFound);
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(entry);
  }();
  return function;
}

/** Bytes in kRank dimensions, the innermost without gaps, copied in boxes of \a box. What a box has outside of the
 * array is zero. \param bytes    at a multiple of 16 \param strides  of the outer dimensions, multiples of 16 \param
 * swizzle  which 16-byte pieces of a line change places, so that lines of a box lie in different banks */
template <int kRank>
CUtensorMap tensorMap(const void* bytes, const Index (&sizes)[kRank], const Index (&strides)[kRank - 1],
                      const Index (&box)[kRank], CUtensorMapSwizzle swizzle) {
  cuuint64_t extents[kRank], steps[kRank - 1];
  cuuint32_t window[kRank], every[kRank];
  for (int i = 0; i < kRank; ++i) {
    extents[i] = static_cast<cuuint64_t>(sizes[i]);
    window[i] = static_cast<cuuint32_t>(box[i]);
    every[i] = 1;
    if (i > 0) steps[i - 1] = static_cast<cuuint64_t>(strides[i - 1]);
  }
  CUtensorMap map;
  const CUresult status = encodeTiled()(&map, CU_TENSOR_MAP_DATA_TYPE_UINT8, kRank, const_cast<void*>(bytes), extents,
                                        steps, window, every, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle,
                                        CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  // The runtime's and the driver's numbers agree where both have one.
  EIGENQ_CUDA_CHECK(static_cast<cudaError_t>(status));
  return map;
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_TENSOR_MAP_H
