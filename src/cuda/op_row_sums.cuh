// SPDX-License-Identifier: MPL-2.0
// Sums over the tokens, one for each feature, as gradients of gains and biases are: in two stages, so that the order is
// fixed without atomics.
//
//            tokens ──►
//   features │ chunk 0 │ chunk 1 │ …    a thread walks a pack of features through one chunk of tokens: partials
//          │ └────┬────┘────┬────┘      then a thread adds the partials of a feature, in the order of the chunks
//          ▼
//
// Traffic  the operands once, and 4 bytes a feature and chunk twice: at most 128 chunks, of at least 32 tokens.
// Error    at most max(32, tokens/128) + 128 roundings reach a term, where one running sum would have `tokens`.
#ifndef EIGENQ_CUDA_OP_ROW_SUMS_CUH
#define EIGENQ_CUDA_OP_ROW_SUMS_CUH

#include "op_columns.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {

constexpr unsigned kRowSumThreads = 128;

/** \tparam Terms  terms(i, t, sums) adds the terms of kWidth features from i on and token t to each of kCount sums */
template <typename Terms>
__global__ void __launch_bounds__(kRowSumThreads)
    partialRowSumsKernel(const Terms terms, Index rows, Index cols, Index chunk, double* partials) {
  constexpr int kWidth = Terms::kWidth, kCount = Terms::kCount;
  const Index step = Index{gridDim.x} * blockDim.x * kWidth;
  const Index begin = Index{blockIdx.y} * chunk, end = begin + chunk < cols ? begin + chunk : cols;
  for (Index i = (Index{blockIdx.x} * blockDim.x + threadIdx.x) * kWidth; i < rows; i += step) {
    double sums[kCount][kWidth] = {};
    for (Index t = begin; t < end; ++t) terms(i, t, sums);
#pragma unroll
    for (int n = 0; n < kCount; ++n) {
#pragma unroll
      for (int k = 0; k < kWidth; ++k) partials[(n * Index{gridDim.y} + blockIdx.y) * rows + i + k] = sums[n][k];
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kRowSumThreads)
    finishRowSumsKernel(const double* partials, Index rows, Index chunks, T* totals, bool accumulate) {
  const Index step = Index{gridDim.x} * blockDim.x;
  for (Index i = Index{blockIdx.x} * blockDim.x + threadIdx.x; i < rows; i += step) {
    double sum = 0;
#pragma unroll 8
    for (Index c = 0; c < chunks; ++c) sum += partials[c * rows + i];
    const float v[1] = {static_cast<float>(sum)};
    store(totals + i, v, accumulate);
  }
}

struct RowSumTarget {
  DenseView totals;  // rows×1; without data: not wanted
  bool accumulate;
};

/** \param targets  of the Terms::kCount sums */
template <typename T, typename Terms>
void launchRowSums(const char* name, const Terms& terms, Index rows, Index cols,
                   const RowSumTarget (&targets)[Terms::kCount], Context& context) {
  constexpr Index kMaxChunks = 128, kMinChunk = 32;
  if (rows <= 0) return;
  const Index chunk = std::max(kMinChunk, (cols + kMaxChunks - 1) / kMaxChunks), chunks = (cols + chunk - 1) / chunk;
  Scratch scratch(context);
  double* const partials = scratch.array<double>(Terms::kCount * chunks * rows);
  const auto blocksFor = [](Index threads) { return gridFor((threads + kRowSumThreads - 1) / kRowSumThreads); };
  if (chunks > 0)
    launch(name, partialRowSumsKernel<Terms>,
           {dim3(blocksFor(rows / Terms::kWidth), static_cast<unsigned>(chunks)), kRowSumThreads}, context, terms, rows,
           cols, chunk, partials);
  for (int n = 0; n < Terms::kCount; ++n) {
    if (!targets[n].totals.data) continue;
    launch(name, finishRowSumsKernel<T>, {dim3(blocksFor(rows)), kRowSumThreads}, context, partials + n * chunks * rows,
           rows, chunks, static_cast<T*>(targets[n].totals.data), targets[n].accumulate);
  }
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_OP_ROW_SUMS_CUH
