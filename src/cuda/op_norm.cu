// SPDX-License-Identifier: MPL-2.0
// RMSNorm and LayerNorm of every token, and their pullbacks.
//
//   column t │ pack │ pack │ …    one block a token: its sums, then its entries. Columns of up to two packs a thread
//                                 stay in registers, and each block fetches its next one before it sums
//                                 (op_column_packs.cuh); longer ones are in L1 or L2 by then
//
// Traffic  forward reads x once from memory and writes y; backward reads x and dy and writes dx, and reads x and dy
//          once more for the gradients of gain and bias (op_row_sums.cuh). Memory is the limit.
// The variance sums (x - mean)²: Σx² - n·mean² would cancel.
#include <eigen_q/src/gpu/OpKernels.h>

#include "op_blockwise.cuh"
#include "op_column_packs.cuh"
#include "op_row_sums.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

constexpr unsigned kMaxThreads = 512;

/** Threads a multiprocessor has room for: 40 registers each for a pack, the next one and the gain, 64 where there are
 * two of everything or dy beside x. */
template <int kPacks>
constexpr unsigned kForwardThreads = kResidentThreads<kPacks, 1536, 1024>;
template <int kPacks>
constexpr unsigned kPullbackThreads = kResidentThreads<kPacks, 1024, 1024>;

/** Sums f(x) over a column; every thread gets the result. */
template <int kPacks, int kWidth, typename Packs, typename F>
__device__ __forceinline__ float sumColumn(const Packs& x, Index rows, F f) {
  float sum = 0;
  forEachPack<kPacks, kWidth>(rows, [&](int n, Index i) {
    float v[kWidth];
    x.get(n, i, v);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) sum = f(v[k], sum);
  });
  return blockReduce(sum, Plus());
}

template <typename T, int kWidth, int kPacks, bool kCentered>
__global__ void __launch_bounds__(kMaxThreads, kForwardThreads<kPacks> / kMaxThreads)
    normKernel(Columns<const T> x, const T* gain, const T* bias, float eps, Columns<T> y, Index rows, Index cols,
               float* inverse, float* center) {
  joinStream();
  const float dim = static_cast<float>(rows);
  ColumnPacks<T, kWidth, kPacks> next, gains, biases;
  next.fetch(x(blockIdx.x), rows);
  gains.fetch(gain, rows);
  if (kCentered) biases.fetch(bias, rows);
  for (Index t = blockIdx.x; t < cols; t += gridDim.x) {
    const auto in = next;
    if (t + gridDim.x < cols) next.fetch(x(t + gridDim.x), rows);
    const float c =
        kCentered ? sumColumn<kPacks, kWidth>(in, rows, [](float v, float sum) { return sum + v; }) / dim : 0.0f;
    const float squares =
        sumColumn<kPacks, kWidth>(in, rows, [c](float v, float sum) { return fmaf(v - c, v - c, sum); });
    const float r = 1.0f / sqrtf(squares / dim + eps);
    forEachPack<kPacks, kWidth>(rows, [&](int n, Index i) {
      float v[kWidth], g[kWidth], b[kWidth] = {};
      in.get(n, i, v);
      gains.get(n, i, g);
      if (kCentered) biases.get(n, i, b);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) v[k] = kCentered ? fmaf((v[k] - c) * r, g[k], b[k]) : r * (v[k] * g[k]);
      store(y(t) + i, v);
    });
    if (threadIdx.x == 0) {
      inverse[t] = r;
      if (kCentered) center[t] = c;
    }
  }
}

/** With x̂ = (x - center)·inverse and h = gain ∘ dy: dx = inverse·(h - mean(h) - x̂·mean(h ∘ x̂)); RMSNorm has neither
 * center nor mean(h). */
template <typename T, int kWidth, int kPacks, bool kCentered>
__global__ void __launch_bounds__(kMaxThreads, kPullbackThreads<kPacks> / kMaxThreads)
    normPullbackKernel(Columns<const T> x, const T* gain, Columns<const T> dy, const float* inverse,
                       const float* center, Columns<T> dx, Index rows, Index cols, bool accumulate) {
  const float dim = static_cast<float>(rows);
  ColumnPacks<T, kWidth, kPacks> nextX, nextDy, gains;
  nextX.fetch(x(blockIdx.x), rows);
  nextDy.fetch(dy(blockIdx.x), rows);
  gains.fetch(gain, rows);
  for (Index t = blockIdx.x; t < cols; t += gridDim.x) {
    const auto in = nextX, pulled = nextDy;
    ColumnPacks<T, kWidth, kPacks == 1 ? 1 : 0> old;  // two would not fit in the registers
    if (accumulate) old.fetch(dx(t), rows);
    const float r = inverse[t], c = kCentered ? center[t] : 0.0f;
    if (t + gridDim.x < cols) {
      nextX.fetch(x(t + gridDim.x), rows);
      nextDy.fetch(dy(t + gridDim.x), rows);
    }
    float sumH = 0, projection = 0;
    forEachPack<kPacks, kWidth>(rows, [&](int n, Index i) {
      float v[kWidth], g[kWidth], d[kWidth];
      in.get(n, i, v);
      gains.get(n, i, g);
      pulled.get(n, i, d);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) {
        const float h = g[k] * d[k];
        sumH += h;
        projection = fmaf(h, v[k] - c, projection);
      }
    });
    const float meanH = kCentered ? blockReduce(sumH, Plus()) / dim : 0.0f;
    projection = r * r * blockReduce(projection, Plus()) / dim;
    forEachPack<kPacks, kWidth>(rows, [&](int n, Index i) {
      float v[kWidth], g[kWidth], d[kWidth], o[kWidth];
      in.get(n, i, v);
      gains.get(n, i, g);
      pulled.get(n, i, d);
      if (accumulate) old.get(n, i, o);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) {
        d[k] = r * (fmaf(g[k], d[k], -meanH) - projection * (v[k] - c));
        if (accumulate) d[k] = o[k] + d[k];
      }
      store(dx(t) + i, d);
    });
  }
}

/** The gradients of gain and bias: Σ dy ∘ x̂ and Σ dy over the tokens. */
template <typename T, int kWidth_, bool kCentered>
struct NormTerms {
  static constexpr int kWidth = kWidth_, kCount = kCentered ? 2 : 1;
  Columns<const T> x, dy;
  const float* inverse;
  const float* center;

  __device__ __forceinline__ void operator()(Index i, Index t, double (&sums)[kCount][kWidth]) const {
    const float r = inverse[t], c = kCentered ? center[t] : 0.0f;
    float v[kWidth], d[kWidth];
    load(x(t) + i, v);
    load(dy(t) + i, d);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      sums[0][k] = fmaf(r * d[k], v[k] - c, sums[0][k]);
      if constexpr (kCentered) sums[1][k] += d[k];
    }
  }
};

/** Whether packs of a dim×1 vector are aligned as those of the matrices are. */
bool packsVector(const ConstDenseView& v) {
  assert((v.rowStride == 1 || v.rows <= 1) && v.cols == 1 && "norm: expected a dim×1 gain and bias");
  return reinterpret_cast<std::uintptr_t>(v.data) % 16 == 0;
}

template <bool kCentered>
void forward(const Norm& op, Walk walk, Context& context) {
  dispatchWalk(walk, [&](auto tag, auto width) {
    using T = typename decltype(tag)::type;
    constexpr int kWidth = decltype(width)::value;
    dispatchPacks<kWidth>(walk.rows, [&](unsigned threads, auto packs) {
      constexpr int kPacks = decltype(packs)::value;
      const unsigned blocks = blocksForColumns<kPacks>(walk.cols, threads, kForwardThreads<kPacks>, context);
      launchEarly("norm", normKernel<T, kWidth, kPacks, kCentered>, {dim3(blocks), threads}, context,
                  Columns<const T>(op.x), static_cast<const T*>(op.gain.data), static_cast<const T*>(op.bias.data),
                  static_cast<float>(op.eps), Columns<T>(op.y), walk.rows, walk.cols, op.inverse, op.center);
    });
  });
}

template <bool kCentered>
void backward(const NormBackward& op, const Walk& walk, Context& context) {
  dispatchWalk(walk, [&](auto tag, auto width) {
    using T = typename decltype(tag)::type;
    constexpr int kWidth = decltype(width)::value;
    if (op.dx.data && !walk.empty())
      dispatchPacks<kWidth>(walk.rows, [&](unsigned threads, auto packs) {
        constexpr int kPacks = decltype(packs)::value;
        const unsigned blocks = blocksForColumns<kPacks>(walk.cols, threads, kPullbackThreads<kPacks>, context);
        launch("normBackward", normPullbackKernel<T, kWidth, kPacks, kCentered>, {dim3(blocks), threads}, context,
               Columns<const T>(op.x), static_cast<const T*>(op.gain.data), Columns<const T>(op.dy), op.inverse,
               op.center, Columns<T>(op.dx), walk.rows, walk.cols, op.accumulateX);
      });
    if (!op.dgain.data && !op.dbias.data) return;
    const NormTerms<T, kWidth, kCentered> terms = {Columns<const T>(op.x), Columns<const T>(op.dy), op.inverse,
                                                   op.center};
    const RowSumTarget gain = {op.dgain, op.accumulateGain}, bias = {op.dbias, op.accumulateBias};
    if constexpr (kCentered) {
      launchRowSums<T>("normBackward", terms, op.x.rows, op.x.cols, {gain, bias}, context);
    } else {
      launchRowSums<T>("normBackward", terms, op.x.rows, op.x.cols, {gain}, context);
    }
  });
}

}  // namespace

void normForward(const Norm& op, Context& context) {
  Walk walk({op.x, asConst(op.y)});
  if (walk.empty()) return;
  walk.packed = walk.packed && packsVector(op.gain) && (!op.bias.data || packsVector(op.bias));
  op.bias.data ? forward<true>(op, walk, context) : forward<false>(op, walk, context);
}

void normBackward(const NormBackward& op, Context& context) {
  assert((op.center || !op.dbias.data || op.x.cols == 0) && "normBackward: RMSNorm has no bias");
  // Without a token neither x nor center has data, and the gradients of gain and bias are still assigned.
  Walk walk({op.x, op.dy, asConst(op.dx)});
  walk.scalar = op.gain.scalar;
  walk.packed = walk.packed && packsVector(op.gain);
  op.center || op.dbias.data ? backward<true>(op, walk, context) : backward<false>(op, walk, context);
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
