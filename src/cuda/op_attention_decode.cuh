// SPDX-License-Identifier: MPL-2.0
// A warp attends with one query to some of its keys: what the kernels of generation share.
#ifndef EIGENQ_CUDA_OP_ATTENTION_DECODE_CUH
#define EIGENQ_CUDA_OP_ATTENTION_DECODE_CUH

#include "op_blockwise.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {

constexpr int kKeysAtOnce = 4;  // loads in flight of a lane, for K and for V

/** Softmax and weighted sum of some keys, relative to exp(top). */
template <int kEntries>
struct Partial {
  float top = kNegativeInfinity;
  float total = 0;
  float sum[kEntries] = {};

  /** Brings the weights to a larger top. \returns it, or 0 where there is none yet */
  __device__ __forceinline__ float raise(float to) {
    const float base = finiteTop(to), factor = expf(top - base);
    total *= factor;
#pragma unroll
    for (int i = 0; i < kEntries; ++i) sum[i] *= factor;
    top = to;
    return base;
  }
};

/** Lane l's entries l·kEntries … of a vector of headDim; zeros behind its end. */
template <int kEntries, typename T>
__device__ __forceinline__ void loadEntries(const T* from, int headDim, bool packed, float (&v)[kEntries]) {
  const int first = static_cast<int>(threadIdx.x % kWarp) * kEntries;
  if (packed) return load(from + first, v);
#pragma unroll
  for (int i = 0; i < kEntries; ++i) v[i] = first + i < headDim ? toFloat(from[first + i]) : 0.0f;
}

/** Takes in kKeysAtOnce keys and their values; those that are not \a inside count for nothing. */
template <int kEntries>
__device__ __forceinline__ void attend(const float (&q)[kEntries], const float (&keys)[kKeysAtOnce][kEntries],
                                       const float (&values)[kKeysAtOnce][kEntries], int inside,
                                       Partial<kEntries>& partial) {
  float score[kKeysAtOnce], most = partial.top;
#pragma unroll
  for (int n = 0; n < kKeysAtOnce; ++n) {
    score[n] = 0;
#pragma unroll
    for (int i = 0; i < kEntries; ++i) score[n] = fmaf(q[i], keys[n][i], score[n]);
    score[n] = n < inside ? warpReduce(score[n], Plus()) : kNegativeInfinity;  // the whole warp agrees
    most = fmaxf(most, score[n]);
  }
  const float base = partial.raise(most);
#pragma unroll
  for (int n = 0; n < kKeysAtOnce; ++n) {
    const float weight = expf(score[n] - base);
    partial.total += weight;
#pragma unroll
    for (int i = 0; i < kEntries; ++i) partial.sum[i] = fmaf(weight, values[n][i], partial.sum[i]);
  }
}

/** One warp's keys of begin … end - 1. \tparam kWarps  that share them */
template <int kWarps, int kEntries, typename T>
__device__ __forceinline__ void attend(const float (&q)[kEntries], const T* k, const T* v, Index kStride, Index vStride,
                                       int begin, int end, int headDim, bool packed, Partial<kEntries>& partial) {
  const int warp = static_cast<int>(threadIdx.x / kWarp);
  for (int key = begin + warp * kKeysAtOnce; key < end; key += kWarps * kKeysAtOnce) {
    float keys[kKeysAtOnce][kEntries], values[kKeysAtOnce][kEntries];
#pragma unroll
    for (int n = 0; n < kKeysAtOnce; ++n) {
      const Index token = min(key + n, end - 1);
      loadEntries(k + token * kStride, headDim, packed, keys[n]);
      loadEntries(v + token * vStride, headDim, packed, values[n]);
    }
    attend(q, keys, values, end - key, partial);
  }
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_OP_ATTENTION_DECODE_CUH
