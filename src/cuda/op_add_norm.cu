// SPDX-License-Identifier: MPL-2.0
// The residual sum and the RMSNorm behind it.
//
//   column t │ pack │ pack │ …    one block a token: sums, which are stored and squared, then the entries once more,
//                                 from registers (op_column_packs.cuh) or as the thread itself has stored them
//
// Traffic  a and b once, sum and y once; a step of generation saves a launch.
// The squares are those of the rounded sum, in the order of op_norm.cu.
#include <eigen_q/src/gpu/OpKernels.h>

#include "op_blockwise.cuh"
#include "op_column_packs.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

constexpr unsigned kMaxThreads = 512;

template <int kPacks>
constexpr unsigned kThreads = kResidentThreads<kPacks, 1024, 1024>;

template <typename T, int kWidth, int kPacks>
__global__ void __launch_bounds__(kMaxThreads, kThreads<kPacks> / kMaxThreads)
    addNormKernel(Columns<const T> a, Columns<const T> b, const T* gain, float eps, Columns<T> sum, Columns<T> y,
                  Index rows, Index cols) {
  joinStream();
  const float dim = static_cast<float>(rows);
  ColumnPacks<T, kWidth, kPacks> nextA, nextB, gains;
  nextA.fetch(a(blockIdx.x), rows);
  nextB.fetch(b(blockIdx.x), rows);
  gains.fetch(gain, rows);
  for (Index t = blockIdx.x; t < cols; t += gridDim.x) {
    auto sums = nextA;  // whose packs the sums replace
    const auto addends = nextB;
    if (t + gridDim.x < cols) {
      nextA.fetch(a(t + gridDim.x), rows);
      nextB.fetch(b(t + gridDim.x), rows);
    }
    float squares = 0;
    forEachPack<kPacks, kWidth>(rows, [&](int n, Index i) {
      float v[kWidth], w[kWidth];
      sums.get(n, i, v);
      addends.get(n, i, w);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) v[k] = toFloat(fromFloat<T>(v[k] + w[k]));
      store(sum(t) + i, v);
      sums.put(n, v);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) squares = fmaf(v[k], v[k], squares);
    });
    const float r = 1.0f / sqrtf(blockReduce(squares, Plus()) / dim + eps);
    if (kPacks == 0) sums.fetch(sum(t), rows);
    forEachPack<kPacks, kWidth>(rows, [&](int n, Index i) {
      float v[kWidth], g[kWidth];
      sums.get(n, i, v);
      gains.get(n, i, g);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) v[k] = r * (v[k] * g[k]);
      store(y(t) + i, v);
    });
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
    dispatchPacks<kWidth>(walk.rows, [&](unsigned threads, auto packs) {
      constexpr int kPacks = decltype(packs)::value;
      const unsigned blocks = blocksForColumns<kPacks>(walk.cols, threads, kThreads<kPacks>, context);
      launchEarly("addNorm", addNormKernel<T, kWidth, kPacks>, {dim3(blocks), threads}, context, Columns<const T>(op.a),
                  Columns<const T>(op.b), static_cast<const T*>(op.gain.data), static_cast<float>(op.eps),
                  Columns<T>(op.sum), Columns<T>(op.y), walk.rows, walk.cols);
    });
  });
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
