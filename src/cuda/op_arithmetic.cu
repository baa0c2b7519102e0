// SPDX-License-Identifier: MPL-2.0
// Entrywise products, factors that only the device knows, and dropout. See op_elementwise.cuh.
#include <eigen_q/src/Philox.h>
#include <eigen_q/src/gpu/OpKernels.h>

#include <stdexcept>

#include "op_elementwise.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

template <typename T, int kWidth_>
struct Product {
  static constexpr int kWidth = kWidth_;
  Columns<const T> a, b;
  Columns<T> y;
  bool accumulate;

  __device__ void operator()(Index i, Index j) const {
    float u[kWidth], v[kWidth];
    load(a(j) + i, u);
    load(b(j) + i, v);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) u[k] *= v[k];
    store(y(j) + i, u, accumulate);
  }
};

/** alpha·factor·x, or alpha·factor in every entry without an x. */
template <typename T, int kWidth_>
struct Scaled {
  static constexpr int kWidth = kWidth_;
  Columns<const T> x;
  Columns<T> y;
  ConstDenseView factor;
  float alpha;
  bool accumulate;

  __device__ void operator()(Index i, Index j) const {
    const float f = alpha * loadScalar(factor);
    float v[kWidth];
    if (x) load(x(j) + i, v);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) v[k] = x ? f * v[k] : f;
    store(y(j) + i, v, accumulate);
  }
};

void runScaled(const ConstDenseView& x, const ConstDenseView& factor, float alpha, const DenseView& y, bool accumulate,
               Context& context) {
  const Walk walk({x, asConst(y)});
  if (walk.empty()) return;
  dispatchWalk(walk, [&](auto tag, auto width) {
    using T = typename decltype(tag)::type;
    const Scaled<T, decltype(width)::value> op = {Columns<const T>(x), Columns<T>(y), factor, alpha, accumulate};
    launchElementwise(x.data ? "scaleBy" : "broadcast", op, walk, context);
  });
}

/** Which entries stay, and what they are multiplied by. */
struct DropoutMask {
  std::uint64_t seed;
  std::uint64_t stream;
  const std::uint64_t* streamBase;
  std::uint32_t threshold;  // of the upper 24 bits of an entry's word
  float factor;

  /** The words of entries 4·\a block to 4·block + 3, counted through the columns. */
  __device__ __forceinline__ EigenQ::internal::PhiloxWords words(Index block) const {
    return EigenQ::internal::philox(seed, streamBase ? stream + *streamBase : stream,
                                    static_cast<std::uint64_t>(block));
  }
  __device__ __forceinline__ float operator()(std::uint32_t word, float v) const {
    return (word >> 8) >= threshold ? factor * v : 0.0f;
  }
};

/** A pack is whole blocks of four words: rows are a multiple of it. */
template <typename T, int kWidth_>
struct Dropped {
  static constexpr int kWidth = kWidth_;
  Columns<const T> x;
  Columns<T> y;
  Index rows;
  DropoutMask mask;
  bool accumulate;

  __device__ void operator()(Index i, Index j) const {
    const Index block = (j * rows + i) / 4;
    float v[kWidth];
    load(x(j) + i, v);
#pragma unroll
    for (int b = 0; b < kWidth / 4; ++b) {
      const auto words = mask.words(block + b);
#pragma unroll
      for (int k = 0; k < 4; ++k) v[4 * b + k] = mask(words[k], v[4 * b + k]);
    }
    store(y(j) + i, v, accumulate);
  }
};

constexpr unsigned kDropoutThreads = 256;

/** A thread computes four words and masks the four entries they belong to, of any columns. */
template <typename T>
__global__ void __launch_bounds__(kDropoutThreads)
    dropoutKernel(Columns<const T> x, Columns<T> y, Index rows, Index size, DropoutMask mask, bool accumulate) {
  const Index step = Index{gridDim.x} * blockDim.x * 4;
  for (Index first = (Index{blockIdx.x} * blockDim.x + threadIdx.x) * 4; first < size; first += step) {
    const auto words = mask.words(first / 4);
    Index j = first / rows, i = first - j * rows;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      if (first + k >= size) break;
      const float v[1] = {mask(words[k], toFloat(x(j)[i]))};
      store(y(j) + i, v, accumulate);
      if (++i == rows) {
        i = 0;
        ++j;
      }
    }
  }
}

}  // namespace

void cwiseProduct(const ConstDenseView& a, const ConstDenseView& b, const DenseView& y, bool accumulate,
                  Context& context) {
  const Walk walk({a, b, asConst(y)});
  if (walk.empty()) return;
  dispatchWalk(walk, [&](auto tag, auto width) {
    using T = typename decltype(tag)::type;
    const Product<T, decltype(width)::value> op = {Columns<const T>(a), Columns<const T>(b), Columns<T>(y), accumulate};
    launchElementwise("cwiseProduct", op, walk, context);
  });
}

void scaleBy(const ConstDenseView& x, const ConstDenseView& factor, float alpha, const DenseView& y, bool accumulate,
             Context& context) {
  runScaled(x, factor, alpha, y, accumulate, context);
}

void broadcast(const ConstDenseView& value, float alpha, const DenseView& y, bool accumulate, Context& context) {
  runScaled({}, value, alpha, y, accumulate, context);
}

void dropout(const Dropout& op, Context& context) {
  assert(op.p >= 0 && op.p < 1 && "dropout: expected a probability in [0, 1)");
  if (context.isCapturing() && !op.streamBase)
    throw std::logic_error("dropout inside a graph capture: every replay would drop the same entries");
  const Walk walk({op.x, asConst(op.y)});
  if (walk.empty()) return;
  const auto threshold = static_cast<std::uint32_t>(op.p * 16777216.0);  // 2²⁴, as on the host
  const DropoutMask mask = {op.seed, op.stream, op.streamBase, threshold, static_cast<float>(1.0 / (1.0 - op.p))};
  dispatchWalk(walk, [&](auto tag, auto width) {
    using T = typename decltype(tag)::type;
    constexpr int kWidth = decltype(width)::value;
    if constexpr (kWidth > 1) {
      const Dropped<T, kWidth> dropped = {Columns<const T>(op.x), Columns<T>(op.y), walk.rows, mask, op.accumulate};
      launchElementwise("dropout", dropped, walk, context);
    } else {
      const Index size = walk.rows * walk.cols, blocks = (size + 4 * kDropoutThreads - 1) / (4 * kDropoutThreads);
      launch("dropout", dropoutKernel<T>, {dim3(gridFor(blocks)), kDropoutThreads}, context, Columns<const T>(op.x),
             Columns<T>(op.y), walk.rows, size, mask, op.accumulate);
    }
  });
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
