// SPDX-License-Identifier: MPL-2.0
// Sums of matrices, their rows and their columns. Whole matrices are summed in double, in two stages of fixed order;
// memory is the limit of all of them.
#include <eigen_q/src/gpu/OpKernels.h>

#include "op_blockwise.cuh"
#include "op_row_sums.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

constexpr unsigned kThreads = 256;
constexpr Index kMaxPartials = 1024;

/** partials[block] = Σ of the block's entries, or of their squares. */
template <typename T, int kWidth, bool kSquares>
__global__ void __launch_bounds__(kThreads)
    partialSumKernel(Columns<const T> x, Index packsPerColumn, Index packs, double* partials) {
  const Index step = Index{gridDim.x} * blockDim.x;
  double sum = 0;
  for (Index p = Index{blockIdx.x} * blockDim.x + threadIdx.x; p < packs; p += step) {
    const Index j = packs == packsPerColumn ? 0 : p / packsPerColumn;
    float v[kWidth];
    load(x(j) + (p - j * packsPerColumn) * kWidth, v);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      const double d = static_cast<double>(v[k]);
      sum = kSquares ? fma(d, d, sum) : sum + d;
    }
  }
  sum = blockReduce(sum, Plus());
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

/** The sum of all partials; thread 0 has it. */
__device__ __forceinline__ double sumPartials(const double* partials, unsigned count) {
  double sum = 0;
  for (unsigned p = threadIdx.x; p < count; p += kThreads) sum += partials[p];
  return blockReduce(sum, Plus());
}

__global__ void __launch_bounds__(kThreads)
    finishSumKernel(const double* partials, unsigned count, double alpha, DenseView total, bool accumulate) {
  const double sum = alpha * sumPartials(partials, count);
  if (threadIdx.x != 0) return;
  storeScalar(total, accumulate ? sum + static_cast<double>(loadAs(total.scalar, total.data, 0)) : sum);
}

__global__ void __launch_bounds__(kThreads)
    finishSquaresKernel(const double* partials, unsigned count, double* total, bool accumulate) {
  const double sum = sumPartials(partials, count);
  if (threadIdx.x == 0) *total = accumulate ? *total + sum : sum;
}

/** \returns how many partials were written: none for an empty matrix */
template <bool kSquares>
unsigned launchPartials(const char* name, const ConstDenseView& x, double* partials, Context& context) {
  const Walk walk({x});
  if (walk.empty()) return 0;
  unsigned blocks = 0;
  dispatchWalk(walk, [&](auto tag, auto width) {
    using T = typename decltype(tag)::type;
    constexpr int kWidth = decltype(width)::value;
    const Index rows = walk.gapless ? walk.rows * walk.cols : walk.rows;
    const Index packsPerColumn = rows / kWidth, packs = walk.gapless ? packsPerColumn : packsPerColumn * walk.cols;
    blocks = static_cast<unsigned>(std::min(kMaxPartials, (packs + kThreads - 1) / kThreads));
    launch(name, partialSumKernel<T, kWidth, kSquares>, {dim3(blocks), kThreads}, context, Columns<const T>(x),
           packsPerColumn, packs, partials);
  });
  return blocks;
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(512)
    columnSumsKernel(Columns<const T> x, Index rows, Index cols, Columns<T> totals, bool accumulate) {
  for (Index j = blockIdx.x; j < cols; j += gridDim.x) {
    float sum = 0;
    for (Index i = Index{threadIdx.x} * kWidth; i < rows; i += Index{blockDim.x} * kWidth) {
      float v[kWidth];
      load(x(j) + i, v);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) sum += v[k];
    }
    const float total[1] = {blockReduce(sum, Plus())};
    if (threadIdx.x == 0) store(totals(j), total, accumulate);
  }
}

template <typename T, int kWidth_>
struct Entries {
  static constexpr int kWidth = kWidth_, kCount = 1;
  Columns<const T> x;

  __device__ __forceinline__ void operator()(Index i, Index t, double (&sums)[1][kWidth]) const {
    float v[kWidth];
    load(x(t) + i, v);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) sums[0][k] += v[k];
  }
};

}  // namespace

void sum(const ConstDenseView& x, double alpha, const DenseView& total, bool accumulate, Context& context) {
  Scratch scratch(context);
  double* const partials = scratch.array<double>(kMaxPartials);
  const unsigned count = launchPartials<false>("sum", x, partials, context);
  launch("sum", finishSumKernel, {dim3(1), kThreads}, context, partials, count, alpha, total, accumulate);
}

void sumOfSquares(const ConstDenseView& x, double* total, bool accumulate, Context& context) {
  Scratch scratch(context);
  double* const partials = scratch.array<double>(kMaxPartials);
  const unsigned count = launchPartials<true>("sumOfSquares", x, partials, context);
  launch("sumOfSquares", finishSquaresKernel, {dim3(1), kThreads}, context, partials, count, total, accumulate);
}

void rowSums(const ConstDenseView& x, const DenseView& totals, bool accumulate, Context& context) {
  assert(totals.rows == x.rows && totals.cols == 1 && totals.scalar == x.scalar && "rowSums: expected rows×1 totals");
  dispatchWalk(Walk({x}), [&](auto tag, auto width) {
    using T = typename decltype(tag)::type;
    const Entries<T, decltype(width)::value> entries = {Columns<const T>(x)};
    launchRowSums<T>("rowSums", entries, x.rows, x.cols, {{totals, accumulate}}, context);
  });
}

void colSums(const ConstDenseView& x, const DenseView& totals, bool accumulate, Context& context) {
  assert(totals.cols == x.cols && totals.rows == 1 && totals.scalar == x.scalar && "colSums: expected 1×cols totals");
  if (x.cols <= 0) return;
  dispatchWalk(Walk({x}), [&](auto tag, auto width) {
    using T = typename decltype(tag)::type;
    constexpr int kWidth = decltype(width)::value;
    launch("colSums", columnSumsKernel<T, kWidth>, {dim3(gridFor(x.cols)), threadsForColumn(x.rows / kWidth)}, context,
           Columns<const T>(x), x.rows, x.cols, Columns<T>(totals), accumulate);
  });
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
