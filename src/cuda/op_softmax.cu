// SPDX-License-Identifier: MPL-2.0
// softmax and log-softmax of every column, and their pullbacks.
//
//   column j │ pack │ pack │ …    one block a column: maximum and sum in one pass, the result in a second, which finds
//                                 the column in L1 or L2
//
// Traffic  forward reads x once from memory and writes y; backward reads y and dy once. Memory is the limit.
#include <eigen_q/src/gpu/OpKernels.h>

#include "op_blockwise.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

constexpr unsigned kMaxThreads = 512;

template <typename T, int kWidth, bool kLog>
__global__ void __launch_bounds__(kMaxThreads) softmaxKernel(Columns<const T> x, Columns<T> y, Index rows, Index cols) {
  for (Index j = blockIdx.x; j < cols; j += gridDim.x) {
    const LogSumExp s = columnLogSumExp<kWidth>(x(j), rows);
    const float lse = s.value();
    for (Index i = Index{threadIdx.x} * kWidth; i < rows; i += Index{blockDim.x} * kWidth) {
      float v[kWidth];
      load(x(j) + i, v);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) v[k] = kLog ? v[k] - lse : expf(v[k] - s.top) / s.sum;
      store(y(j) + i, v);
    }
    __syncthreads();  // x may be y: the next column's sums come after this column's entries
  }
}

/** softmax: dx = y ∘ (dy - ⟨y, dy⟩); log-softmax: dx = dy - exp(y)·Σdy. */
template <typename T, int kWidth, bool kLog>
__global__ void __launch_bounds__(kMaxThreads)
    softmaxPullbackKernel(Columns<const T> y, Columns<const T> dy, Columns<T> dx, Index rows, Index cols,
                          bool accumulate) {
  for (Index j = blockIdx.x; j < cols; j += gridDim.x) {
    float dot = 0;
    for (Index i = Index{threadIdx.x} * kWidth; i < rows; i += Index{blockDim.x} * kWidth) {
      float p[kWidth], d[kWidth];
      load(y(j) + i, p);
      load(dy(j) + i, d);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) dot = kLog ? dot + d[k] : fmaf(p[k], d[k], dot);
    }
    dot = blockReduce(dot, Plus());
    for (Index i = Index{threadIdx.x} * kWidth; i < rows; i += Index{blockDim.x} * kWidth) {
      float p[kWidth], d[kWidth];
      load(y(j) + i, p);
      load(dy(j) + i, d);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) d[k] = kLog ? fmaf(-expf(p[k]), dot, d[k]) : p[k] * (d[k] - dot);
      store(dx(j) + i, d, accumulate);
    }
  }
}

template <bool kLog>
void forward(const char* name, const ConstDenseView& x, const DenseView& y, Context& context) {
  const Walk walk({x, asConst(y)});
  if (walk.empty()) return;
  dispatchWalk(walk, [&](auto tag, auto width) {
    using T = typename decltype(tag)::type;
    constexpr int kWidth = decltype(width)::value;
    launch(name, softmaxKernel<T, kWidth, kLog>, {dim3(gridFor(walk.cols)), threadsForColumn(walk.rows / kWidth)},
           context, Columns<const T>(x), Columns<T>(y), walk.rows, walk.cols);
  });
}

template <bool kLog>
void backward(const char* name, const ConstDenseView& y, const ConstDenseView& dy, const DenseView& dx, bool accumulate,
              Context& context) {
  const Walk walk({y, dy, asConst(dx)});
  if (walk.empty()) return;
  dispatchWalk(walk, [&](auto tag, auto width) {
    using T = typename decltype(tag)::type;
    constexpr int kWidth = decltype(width)::value;
    launch(name, softmaxPullbackKernel<T, kWidth, kLog>,
           {dim3(gridFor(walk.cols)), threadsForColumn(walk.rows / kWidth)}, context, Columns<const T>(y),
           Columns<const T>(dy), Columns<T>(dx), walk.rows, walk.cols, accumulate);
  });
}

}  // namespace

void softmaxForward(const ConstDenseView& x, const DenseView& y, Context& context) {
  forward<false>("softmax", x, y, context);
}
void logSoftmaxForward(const ConstDenseView& x, const DenseView& y, Context& context) {
  forward<true>("logSoftmax", x, y, context);
}
void softmaxBackward(const ConstDenseView& y, const ConstDenseView& dy, const DenseView& dx, bool accumulate,
                     Context& context) {
  backward<false>("softmaxBackward", y, dy, dx, accumulate, context);
}
void logSoftmaxBackward(const ConstDenseView& y, const ConstDenseView& dy, const DenseView& dx, bool accumulate,
                        Context& context) {
  backward<true>("logSoftmaxBackward", y, dy, dx, accumulate, context);
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
