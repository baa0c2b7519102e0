// SPDX-License-Identifier: MPL-2.0
// int8_product_reference.cu: LLM.int8()'s product for what every other way refuses: a warp a value of Y, 64-bit sums of
// any depth. Beside it, plain copies of codes and sums for the ways that need theirs laid out otherwise.
//
// Traffic  k bytes of X and of W a value, from the caches: for odd cases, not for speed.
// Needs    nothing.
#include "epilogue.cuh"
#include "int8_kernels.h"
#include "int8_scale.cuh"
#include "op_launch.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

constexpr int kThreads = 256;
constexpr unsigned kMostBlocks = 1u << 16;

unsigned blocksFor(Index items, Index itemsPerBlock) {
  const Index blocks = (items + itemsPerBlock - 1) / itemsPerBlock;
  return static_cast<unsigned>(blocks < kMostBlocks ? blocks : kMostBlocks);
}

__device__ __forceinline__ long long sumOverWarp(long long sum) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, distance);
  return sum;
}

template <typename T>
__global__ void __launch_bounds__(kThreads) referenceKernel(const __grid_constant__ DeviceDecomposedProduct p) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const Index m = p.y.rows, n = p.y.cols, warps = static_cast<Index>(gridDim.x) * (kThreads / 32);
  const std::int8_t* const w = static_cast<const std::int8_t*>(p.w.codes) + p.w.offset;
  for (Index at = static_cast<Index>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32; at < m * n; at += warps) {
    const Index i = at / n, j = at % n;
    long long sum = 0;
    for (Index k = lane; k < p.w.cols; k += 32)
      sum +=
          static_cast<int>(p.activations.codes[i * p.activations.stride + k]) * static_cast<int>(w[j * p.w.stride + k]);
    sum = sumOverWarp(sum);
    if (lane != 0) continue;
    const float outliers = sumOutliers(p, i, j, 0, outlierCount(p.activations), 0.0f);
    const float v =
        scaledSum(static_cast<double>(sum), rowScale(p.activations.rowStats[i]), p.w.rowAbsmax[j], outliers);
    storeResult<T>(p.y, p.epilogue, v, i, j);
  }
}

__global__ void __launch_bounds__(kThreads)
    copyCodesKernel(const std::int8_t* in, Index inRowStride, Index inColStride, Index rows, Index cols,
                    std::int8_t* out, Index outRows, Index outStride) {
  const Index step = static_cast<Index>(gridDim.x) * kThreads;
  for (Index at = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x; at < outRows * outStride; at += step) {
    const Index i = at / outStride, j = at % outStride;
    out[at] = i < rows && j < cols ? in[i * inRowStride + j * inColStride] : std::int8_t{0};
  }
}

__global__ void __launch_bounds__(kThreads)
    copySumsKernel(const std::int32_t* sums, Index stride, const __grid_constant__ Int8Product p) {
  const Index step = static_cast<Index>(gridDim.x) * kThreads;
  for (Index at = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x; at < p.m * p.n; at += step) {
    const Index i = at / p.n, j = at % p.n;
    p.c[i * p.cRowStride + j * p.cColStride] = sums[i * stride + j];
  }
}

}  // namespace

void runDecomposedReference(const DeviceDecomposedProduct& p, Context& context) {
  if (p.y.rows == 0 || p.y.cols == 0) return;
  dispatchDeviceScalar(p.y.scalar, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch("int8.reference", referenceKernel<T>, {blocksFor(p.y.rows * p.y.cols, kThreads / 32), kThreads}, context, p);
  });
}

void copyCodes(const std::int8_t* in, Index inRowStride, Index inColStride, Index rows, Index cols, std::int8_t* out,
               Index outRows, Index outStride, Context& context) {
  if (outRows == 0 || outStride == 0) return;
  launch("copy of codes", copyCodesKernel, {blocksFor(outRows * outStride, kThreads), kThreads}, context, in,
         inRowStride, inColStride, rows, cols, out, outRows, outStride);
}

void copySums(const std::int32_t* sums, Index stride, const Int8Product& p, Context& context) {
  launch("copy of sums", copySumsKernel, {blocksFor(p.m * p.n, kThreads), kThreads}, context, sums, stride, p);
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
