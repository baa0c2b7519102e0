// SPDX-License-Identifier: MPL-2.0
// Sums in double by a tree that depends on the count alone: the same bits from run to run and on every device.
//
//   values ─ a thread block takes every n-th run of 256 ─→ n ≤ 1024 partial sums ─ one thread block ─→ the sum
#ifndef EIGENQ_CUDA_TREE_SUM_CUH
#define EIGENQ_CUDA_TREE_SUM_CUH

#include <algorithm>

#include "op_launch.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {

constexpr unsigned kSumThreads = 256;
constexpr Index kSumPart = 8192;  // values that justify another thread block
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

template <typename Term>
__global__ void __launch_bounds__(kSumThreads) sumParts(const float* values, Index count, Term term, double* parts) {
  double sum = 0;
  const Index step = static_cast<Index>(gridDim.x) * kSumThreads;
  for (Index i = static_cast<Index>(blockIdx.x) * kSumThreads + threadIdx.x; i < count; i += step)
    sum += term(static_cast<double>(values[i]));
  sum = sumOverBlock(sum);
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

template <typename Finish>
__global__ void __launch_bounds__(kSumThreads) finishSum(const double* parts, int count, Finish finish) {
  double sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kSumThreads) sum += parts[i];
  sum = sumOverBlock(sum);
  if (threadIdx.x == 0) finish(sum);
}

/** finish(Σ term(values[i])), on the device. */
template <typename Term, typename Finish>
void treeSum(const char* name, const float* values, Index count, Term term, Finish finish, Context& context) {
  Scratch scratch(context);
  const Index parts = std::min((count + kSumPart - 1) / kSumPart, kMaxSumParts);
  double* const partial = scratch.array<double>(parts);
  if (parts > 0)
    launch(name, sumParts<Term>, {static_cast<unsigned>(parts), kSumThreads}, context, values, count, term, partial);
  launch(name, finishSum<Finish>, {1, kSumThreads}, context, partial, static_cast<int>(parts), finish);
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_TREE_SUM_CUH
