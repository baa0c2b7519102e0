// SPDX-License-Identifier: MPL-2.0
// Sums in double by a tree that depends on the count alone: the same bits from run to run and on every device.
//
//   values ─ a thread block takes every n-th run of 256 ─→ n ≤ 1024 partial sums ─ one thread block ─→ the sum
#ifndef EIGENQ_CUDA_TREE_SUM_CUH
#define EIGENQ_CUDA_TREE_SUM_CUH

#include <algorithm>

#include "alignment.h"
#include "op_launch.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {

constexpr unsigned kSumThreads = 256;
constexpr Index kSumPart = 2048;  // values that justify another thread block
constexpr Index kMaxSumParts = 1024;

/** Thread 0 gets the sum over the block. */
__device__ __forceinline__ double sumOverBlock(double v) {
  __shared__ double warpSum[kSumThreads / 32];
  for (int distance = 16; distance > 0; distance /= 2) v += __shfl_xor_sync(0xffffffffu, v, distance);
  if (threadIdx.x % 32 == 0) warpSum[threadIdx.x / 32] = v;
  __syncthreads();
  double sum = 0;
  if (threadIdx.x == 0)
    for (const double s : warpSum) sum += s;
  return sum;
}

/** What sumInParts() leaves. */
struct SumParts {
  const double* parts = nullptr;
  int count = 0;
};

/** Thread 0 gets the sum over all parts. By all threads of a block of kSumThreads. */
__device__ __forceinline__ double sumOverParts(const SumParts& from) {
  double sum = 0;
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < from.count; i += kSumThreads) sum += from.parts[i];
  return sumOverBlock(sum);
}

template <typename Term>
__global__ void __launch_bounds__(kSumThreads) sumParts(const float* values, Index count, Term term, double* parts) {
  joinStreamThenAllow();
  double sum = 0;
  const Index step = static_cast<Index>(gridDim.x) * kSumThreads;
#pragma unroll 8
  for (Index i = static_cast<Index>(blockIdx.x) * kSumThreads + threadIdx.x; i < count; i += step)
    sum += term(static_cast<double>(values[i]));
  sum = sumOverBlock(sum);
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

template <typename Finish>
__global__ void __launch_bounds__(kSumThreads) finishSum(const SumParts from, Finish finish) {
  joinStreamThenAllow();
  const double sum = sumOverParts(from);
  if (threadIdx.x == 0) finish(sum);
}

/** Partial sums of term(values[i]), at most kMaxSumParts. */
template <typename Term>
SumParts sumInParts(const char* name, const float* values, Index count, Term term, Scratch& scratch, Context& context) {
  const Index parts = std::min(ceilDiv(count, kSumPart), kMaxSumParts);
  double* const partial = scratch.array<double>(parts);
  if (parts > 0)
    launchEarly(name, sumParts<Term>, {static_cast<unsigned>(parts), kSumThreads}, context, values, count, term,
                partial);
  return {partial, static_cast<int>(parts)};
}

/** finish(Σ term(values[i])), on the device. */
template <typename Term, typename Finish>
void treeSum(const char* name, const float* values, Index count, Term term, Finish finish, Context& context) {
  Scratch scratch(context);
  const SumParts parts = sumInParts(name, values, count, term, scratch, context);
  launchEarly(name, finishSum<Finish>, {1, kSumThreads}, context, parts, finish);
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_TREE_SUM_CUH
