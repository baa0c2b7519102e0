// SPDX-License-Identifier: MPL-2.0
// What stands between the integer sums of LLM.int8() and its results, with the host's roundings.
#ifndef EIGENQ_CUDA_INT8_SCALE_CUH
#define EIGENQ_CUDA_INT8_SCALE_CUH

#include "int8_product.h"
#include "scalar.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {

constexpr double kInverse127Squared = 1.0 / (127.0 * 127.0);

__device__ __forceinline__ double rowScale(float rowStat) { return static_cast<double>(rowStat) * kInverse127Squared; }

/** The sum in double, exactly: 2⁵² + 2³¹ + sum has the sum's bits, offset, as its low word. One addition, where the
 * conversion instruction runs at a quarter of that rate. */
__device__ __forceinline__ double exactDouble(std::int32_t sum) {
  const double shifted = __hiloint2double(0x43300000, sum ^ static_cast<int>(0x80000000u));
  return shifted - 4503601774854144.0;  // 2⁵² + 2³¹
}

/** r32(sum·(row scale·absmax) + outliers), as DecomposedProduct on the host. */
__device__ __forceinline__ float scaledSum(double sum, double rowScale, float absmax, float outliers) {
  return static_cast<float>(sum * (rowScale * static_cast<double>(absmax)) + static_cast<double>(outliers));
}

__device__ __forceinline__ float readFloat(const ConstDenseView& view, Index i, Index j) {
  const Index at = i * view.rowStride + j * view.colStride;
  switch (view.scalar) {
    case ScalarType::kFloat:
      return static_cast<const float*>(view.data)[at];
    case ScalarType::kHalf:
      return toFloat(static_cast<const __half*>(view.data)[at]);
    case ScalarType::kBFloat16:
      return toFloat(static_cast<const __nv_bfloat16*>(view.data)[at]);
    case ScalarType::kDouble:
      return static_cast<float>(static_cast<const double*>(view.data)[at]);
  }
  return 0;
}

/** What outlier column k of X is multiplied by. */
__device__ __forceinline__ float outlierWeight(const DeviceDecomposedProduct& p, Index j, Index k) {
  return p.outlierWeights.data ? readFloat(p.outlierWeights, j, k) : p.w.coeff(j, k);
}

__device__ __forceinline__ int outlierCount(const DeviceActivations& a) { return a.outlierCount ? *a.outlierCount : 0; }

/** Σ x(i, k)·w(j, k) over the outlier columns from \a first on, in ascending order, starting from \a sum. */
__device__ __forceinline__ float sumOutliers(const DeviceDecomposedProduct& p, Index i, Index j, int first, int count,
                                             float sum) {
#pragma unroll 4
  for (int o = first; o < count; ++o) {
    const Index k = p.activations.outliers[o];
    sum = fmaf(readFloat(p.x, i, k), outlierWeight(p, j, k), sum);
  }
  return sum;
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_INT8_SCALE_CUH
