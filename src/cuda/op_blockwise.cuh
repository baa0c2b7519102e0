// SPDX-License-Identifier: MPL-2.0
// Sums and maxima over the threads of a warp or block, in a fixed order.
#ifndef EIGENQ_CUDA_OP_BLOCKWISE_CUH
#define EIGENQ_CUDA_OP_BLOCKWISE_CUH

#include "op_columns.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {

constexpr unsigned kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr unsigned kMaxWarps = 32;

struct Plus {
  template <typename V>
  __device__ __forceinline__ V operator()(const V& a, const V& b) const {
    return a + b;
  }
};

/** The number of largest magnitude that is subtracted before exp(), and Σ exp(xᵢ - top). */
struct LogSumExp {
  float top;
  float sum;

  __device__ __forceinline__ float value() const { return top + logf(sum); }
};
constexpr float kNegativeInfinity = -std::numeric_limits<float>::infinity();

/** Without a number yet, top is -∞ and nothing may be subtracted. A NaN reaches sum, and so the result. */
__device__ __forceinline__ float finiteTop(float top) { return top == kNegativeInfinity ? 0.0f : top; }

struct Merge {
  __device__ __forceinline__ LogSumExp operator()(const LogSumExp& a, const LogSumExp& b) const {
    const float top = fmaxf(a.top, b.top), base = finiteTop(top);
    return {top, a.sum * expf(a.top - base) + b.sum * expf(b.top - base)};
  }
};

__device__ __forceinline__ float shuffleXor(float v, unsigned mask) { return __shfl_xor_sync(kAllLanes, v, mask); }
__device__ __forceinline__ double shuffleXor(double v, unsigned mask) { return __shfl_xor_sync(kAllLanes, v, mask); }
__device__ __forceinline__ LogSumExp shuffleXor(const LogSumExp& v, unsigned mask) {
  return {shuffleXor(v.top, mask), shuffleXor(v.sum, mask)};
}

/** Every lane gets the combination of all; \a op is commutative. */
template <typename V, typename Op>
__device__ __forceinline__ V warpReduce(V v, Op op) {
#pragma unroll
  for (unsigned mask = kWarp / 2; mask > 0; mask /= 2) v = op(v, shuffleXor(v, mask));
  return v;
}

/** Every thread gets the combination of all. Whole warps, all of them. */
template <typename V, typename Op>
__device__ __forceinline__ V blockReduce(V v, Op op) {
  __shared__ V parts[kMaxWarps];
  v = warpReduce(v, op);
  __syncthreads();  // parts may still be read by the call before
  if (threadIdx.x % kWarp == 0) parts[threadIdx.x / kWarp] = v;
  __syncthreads();
  V total = parts[0];
  for (unsigned warp = 1; warp < blockDim.x / kWarp; ++warp) total = op(total, parts[warp]);
  return total;
}

/** Log-sum-exp of a column in one pass: each thread rescales its sum when its maximum grows. */
template <int kWidth, typename T>
__device__ __forceinline__ LogSumExp columnLogSumExp(const T* x, Index rows) {
  LogSumExp s = {kNegativeInfinity, 0};
  for (Index i = Index{threadIdx.x} * kWidth; i < rows; i += Index{blockDim.x} * kWidth) {
    float v[kWidth];
    load(x + i, v);
    float top = v[0];
#pragma unroll
    for (int k = 1; k < kWidth; ++k) top = fmaxf(top, v[k]);
    if (top > s.top) {
      s.sum *= expf(s.top - top);
      s.top = top;
    }
    const float base = finiteTop(s.top);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) s.sum += expf(v[k] - base);
  }
  return blockReduce(s, Merge());
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_OP_BLOCKWISE_CUH
