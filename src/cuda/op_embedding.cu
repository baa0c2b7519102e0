// SPDX-License-Identifier: MPL-2.0
// Columns of a table by their numbers, and the gradient of the table.
//
//   ids       7 2 7 2 9      sorted, stably: 2 2 7 7 9
//   tokens    0 1 2 3 4                      1 3 0 2 4     a block that finds the first of a run of equal ids adds up
//                                            └─► column 2  the run's columns of dy in their order, as the host does
//
// Traffic  gather: each picked column once, y once. Gradient: dy once, each touched column once (twice accumulated),
//          and all others once where the gradient is assigned. Memory is the limit; a very frequent id is a long run
//          for one row of blocks.
#include <eigen_q/src/gpu/OpKernels.h>

#include <stdexcept>
#include <string>

#include "op_columns.cuh"
#include "op_sort.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

constexpr unsigned kThreads = 128;

template <typename T, int kWidth>
__device__ __forceinline__ Pack<T, kWidth> packOfNaN() {
  Pack<T, kWidth> pack;
#pragma unroll
  for (int k = 0; k < kWidth; ++k) pack.values[k] = fromFloat<T>(__int_as_float(0x7fffffff));
  return pack;
}

/** NaN where there is no such column. A thread has kInFlight loads on their way: a column of 4096 halves is all in
 * flight as soon as its id is known. */
template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads)
    gatherKernel(Columns<const T> table, Index vocabulary, const std::int32_t* ids, Columns<T> y, Index rows,
                 Index cols) {
  using Entries = Pack<T, kWidth>;
  constexpr int kInFlight = 4;
  constexpr Index kStep = Index{kThreads} * kWidth;
  joinStream();
  for (Index t = blockIdx.x; t < cols; t += gridDim.x) {
    const Index id = ids[t];
    const bool known = id >= 0 && id < vocabulary;
    for (Index first = Index{threadIdx.x} * kWidth; first < rows; first += kInFlight * kStep) {
      Entries entries[kInFlight];
#pragma unroll
      for (int n = 0; n < kInFlight; ++n) {
        entries[n] = packOfNaN<T, kWidth>();
        if (known && first + n * kStep < rows)
          entries[n] = *reinterpret_cast<const Entries*>(table(id) + first + n * kStep);
      }
#pragma unroll
      for (int n = 0; n < kInFlight; ++n)
        if (first + n * kStep < rows) *reinterpret_cast<Entries*>(y(t) + first + n * kStep) = entries[n];
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    gatherQuantizedKernel(const WeightView table, const std::int32_t* ids, Columns<T> y, Index rows, Index cols) {
  for (Index t = blockIdx.x; t < cols; t += gridDim.x) {
    const Index id = ids[t];
    const bool known = id >= 0 && id < table.rows;
    for (Index i = threadIdx.x; i < rows; i += kThreads)
      y(t)[i] = fromFloat<T>(known ? table.coeff(id, i) : __int_as_float(0x7fffffff));
  }
}

/** Ids out of range become \a vocabulary, which no column has. */
__global__ void __launch_bounds__(kThreads)
    makeKeysKernel(const std::int32_t* ids, Index count, std::uint32_t vocabulary, std::uint32_t* keys,
                   std::int32_t* tokens) {
  const Index step = Index{gridDim.x} * kThreads;
  for (Index t = Index{blockIdx.x} * kThreads + threadIdx.x; t < count; t += step) {
    const auto id = static_cast<std::uint32_t>(ids[t]);  // a negative one is larger than any vocabulary
    keys[t] = id < vocabulary ? id : vocabulary;
    tokens[t] = static_cast<std::int32_t>(t);
  }
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads)
    scatterAddKernel(Columns<const T> dy, const std::uint32_t* keys, const std::int32_t* tokens, Index count,
                     std::uint32_t vocabulary, Columns<T> dtable, Index rows, bool accumulate) {
  for (Index first = blockIdx.x; first < count; first += gridDim.x) {
    const std::uint32_t id = keys[first];
    if (id == vocabulary || (first > 0 && keys[first - 1] == id)) continue;
    for (Index i = (Index{blockIdx.y} * kThreads + threadIdx.x) * kWidth; i < rows;
         i += Index{gridDim.y} * kThreads * kWidth) {
      float sum[kWidth] = {};
#pragma unroll 4
      for (Index p = first; p < count && keys[p] == id; ++p) {
        float v[kWidth];
        load(dy(tokens[p]) + i, v);
#pragma unroll
        for (int k = 0; k < kWidth; ++k) sum[k] += v[k];
      }
      store(dtable(id) + i, sum, accumulate);
    }
  }
}

void setZero(const DenseView& m, Context& context) {
  if (m.rows <= 0 || m.cols <= 0) return;
  const std::size_t size = sizeOf(m.scalar);  // zero is zero bits in all of them
  const DeviceGuard guard(context.device());
  EIGENQ_CUDA_CHECK(cudaMemset2DAsync(m.data, static_cast<std::size_t>(m.cols > 1 ? m.colStride : m.rows) * size, 0,
                                      static_cast<std::size_t>(m.rows) * size, static_cast<std::size_t>(m.cols),
                                      context.stream()));
}

/** Positions and ids are 32-bit numbers. */
void checkCounts(const char* op, Index tokens, Index vocabulary) {
  constexpr Index kMost = std::numeric_limits<std::int32_t>::max();
  if (tokens > kMost || vocabulary > kMost)
    throw std::invalid_argument(std::string(op) + ": expected fewer than 2^31 tokens and table columns, found " +
                                std::to_string(tokens) + " and " + std::to_string(vocabulary));
}

int bitsOf(Index largest) {
  int bits = 1;
  while (bits < 32 && (largest >> bits) > 0) ++bits;
  return bits;
}

}  // namespace

void embeddingForward(const ConstDenseView& table, const std::int32_t* ids, const DenseView& y, Context& context) {
  assert(table.rows == y.rows && table.scalar == y.scalar &&
         "embedding: the table and y differ in rows or scalar type");
  Walk walk({asConst(y)});
  if (walk.empty()) return;
  walk.packed = walk.packed && Walk({table}).packed;
  dispatchWalk(walk, [&](auto tag, auto width) {
    using T = typename decltype(tag)::type;
    launchEarly("embedding", gatherKernel<T, decltype(width)::value>, {dim3(gridFor(walk.cols)), kThreads}, context,
                Columns<const T>(table), table.cols, ids, Columns<T>(y), walk.rows, walk.cols);
  });
}

void embeddingForward(const WeightView& table, const std::int32_t* ids, const DenseView& y, Context& context) {
  assert(table.cols == y.rows && "embedding: y does not have a row for each column of the quantised table");
  const Walk walk({asConst(y)});
  if (walk.empty()) return;
  dispatchDeviceScalar(walk.scalar, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch("embeddingQuantized", gatherQuantizedKernel<T>, {dim3(gridFor(walk.cols)), kThreads}, context, table, ids,
           Columns<T>(y), walk.rows, walk.cols);
  });
}

void embeddingBackward(const ConstDenseView& dy, const std::int32_t* ids, const DenseView& dtable, bool accumulate,
                       Context& context) {
  assert(dy.rows == dtable.rows && dy.scalar == dtable.scalar &&
         "embeddingBackward: dy and the gradient differ in rows or scalar type");
  checkCounts("embeddingBackward", dy.cols, dtable.cols);
  if (!accumulate) setZero(dtable, context);
  Walk walk({dy});
  if (walk.empty()) return;
  walk.packed = walk.packed && Walk({asConst(dtable)}).packed;
  Scratch scratch(context);
  auto* const keys = scratch.array<std::uint32_t>(dy.cols);
  auto* const sortedKeys = scratch.array<std::uint32_t>(dy.cols);
  auto* const tokens = scratch.array<std::int32_t>(dy.cols);
  auto* const sortedTokens = scratch.array<std::int32_t>(dy.cols);
  const auto vocabulary = static_cast<std::uint32_t>(dtable.cols);
  launch("embeddingKeys", makeKeysKernel, {dim3(gridFor((dy.cols + kThreads - 1) / kThreads)), kThreads}, context, ids,
         dy.cols, vocabulary, keys, tokens);
  sortPairs(keys, sortedKeys, tokens, sortedTokens, static_cast<std::int32_t>(dy.cols), bitsOf(dtable.cols), scratch,
            context);
  dispatchWalk(walk, [&](auto tag, auto width) {
    using T = typename decltype(tag)::type;
    constexpr int kWidth = decltype(width)::value;
    const Index slices = std::min<Index>((walk.rows / kWidth + kThreads - 1) / kThreads, 65535);
    launch("embeddingBackward", scatterAddKernel<T, kWidth>,
           {dim3(gridFor(dy.cols), static_cast<unsigned>(slices)), kThreads}, context, Columns<const T>(dy), sortedKeys,
           sortedTokens, dy.cols, vocabulary, Columns<T>(dtable), walk.rows, accumulate);
  });
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
