// SPDX-License-Identifier: MPL-2.0
// int8_product_outliers.cu: dense copies of what LLM.int8() multiplies in full precision.
//
//   X  m×k   · · │o₀│ · · │o₁│ ·      x[0] = X(:, o₀)   x[1] = X(:, o₁) …   as floats
//   W  n×k   · · │o₀│ · · │o₁│ ·      w[0] = W(:, o₀)   w[1] = W(:, o₁) …   decoded
//
// How many there are is known to the device only: the grid has room for kGatheredOutliers, and blocks beyond the count
// end at once. Traffic: a 32-byte sector of W for each weight, which is why they are read once a call and not once a
// tile: 28672 rows and 8 outliers are 7 MB, 2 us.
#include "int8_kernels.h"
#include "int8_scale.cuh"
#include "op_launch.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

constexpr int kThreads = 256;
constexpr int kColumnsPerBlock = 8;

__global__ void __launch_bounds__(kThreads)
    gatherKernel(const __grid_constant__ DeviceDecomposedProduct p, float* x, Index xStride, float* w, Index wStride) {
  const int count = *p.activations.outlierCount;
  const int first = static_cast<int>(blockIdx.y) * kColumnsPerBlock;
  if (first >= count) return;
  const Index at = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  const Index n = p.w.rows;
#pragma unroll
  for (int o = first; o < first + kColumnsPerBlock; ++o) {
    if (o >= count) break;
    const Index k = p.activations.outliers[o];
    if (at < n) {
      w[o * wStride + at] = outlierWeight(p, at, k);
    } else if (at - n < p.x.rows) {
      x[o * xStride + at - n] = readFloat(p.x, at - n, k);
    }
  }
}

}  // namespace

GatheredOutliers gatherOutliers(const DeviceDecomposedProduct& p, Scratch& scratch, Context& context) {
  if (!p.activations.outlierCount) return {};
  // Eight values are read at a time, from a multiple of four on: room for those behind the last.
  const Index xStride = roundUp(p.x.rows + 4, 8), wStride = roundUp(p.w.rows + 4, 8);
  const Index most = p.w.cols < kGatheredOutliers ? roundUp(p.w.cols, kColumnsPerBlock) : kGatheredOutliers;
  float* const x = scratch.array<float>(most * xStride);
  float* const w = scratch.array<float>(most * wStride);
  const dim3 grid(static_cast<unsigned>((p.w.rows + p.x.rows + kThreads - 1) / kThreads),
                  static_cast<unsigned>(most / kColumnsPerBlock));
  launch("gather of outlier columns", gatherKernel, {grid, kThreads}, context, p, x, xStride, w, wStride);
  return {x, xStride, w, wStride};
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
