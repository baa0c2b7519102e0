// SPDX-License-Identifier: MPL-2.0
// The residual sum and the RMSNorm behind it.
//
//   column t │ pack │ pack │ …    one block a token: sums, which are stored and squared, then the entries once more;
//   each
//                                 thread reads what it has written itself
//
// Traffic  a and b once, sum and y once; a step of generation saves a launch.
// The squares are those of the rounded sum, in the order of op_norm.cu.
#include <eigen_q/src/gpu/OpKernels.h>

#include "op_blockwise.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

constexpr unsigned kMaxThreads = 512;

template <typename T, int kWidth>
__global__ void __launch_bounds__(kMaxThreads)
    addNormKernel(Columns<const T> a, Columns<const T> b, const T* gain, float eps, Columns<T> sum, Columns<T> y,
                  Index rows, Index cols) {
  joinStream();
  const float dim = static_cast<float>(rows);
  for (Index t = blockIdx.x; t < cols; t += gridDim.x) {
    float squares = 0;
    for (Index i = Index{threadIdx.x} * kWidth; i < rows; i += Index{blockDim.x} * kWidth) {
      float v[kWidth], w[kWidth];
      load(a(t) + i, v);
      load(b(t) + i, w);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) v[k] = toFloat(fromFloat<T>(v[k] + w[k]));
      store(sum(t) + i, v);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) squares = fmaf(v[k], v[k], squares);
    }
    const float r = 1.0f / sqrtf(blockReduce(squares, Plus()) / dim + eps);
    for (Index i = Index{threadIdx.x} * kWidth; i < rows; i += Index{blockDim.x} * kWidth) {
      float v[kWidth], g[kWidth];
      load(sum(t) + i, v);
      load(gain + i, g);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) v[k] = r * (v[k] * g[k]);
      store(y(t) + i, v);
    }
  }
}

}  // namespace

void addNorm(const AddNorm& op, Context& context) {
  assert((op.gain.rowStride == 1 || op.gain.rows <= 1) && op.gain.rows == op.a.rows && op.gain.cols == 1 &&
         "addNorm: expected a dim×1 gain");
  Walk walk({op.a, op.b, asConst(op.sum), asConst(op.y)});
  if (walk.empty()) return;
  walk.packed = walk.packed && reinterpret_cast<std::uintptr_t>(op.gain.data) % 16 == 0;
  dispatchWalk(walk, [&](auto tag, auto width) {
    using T = typename decltype(tag)::type;
    constexpr int kWidth = decltype(width)::value;
    launchEarly("addNorm", addNormKernel<T, kWidth>, {dim3(gridFor(walk.cols)), threadsForColumn(walk.rows / kWidth)},
                context, Columns<const T>(op.a), Columns<const T>(op.b), static_cast<const T*>(op.gain.data),
                static_cast<float>(op.eps), Columns<T>(op.sum), Columns<T>(op.y), walk.rows, walk.cols);
  });
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
