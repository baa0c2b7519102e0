// SPDX-License-Identifier: MPL-2.0
// New keys and values to their columns of the cache, and what else a step of generation does to integers on the device.
//
//   token t of sequence s, at positions[t]:  column t of k, v  ─►  column s·capacity + positions[t] of keys, values
//
// Traffic  k, v once each way. A step brings few tokens, so that the time is that of a launch.
#include <eigen_q/src/gpu/OpKernels.h>

#include "op_columns.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

constexpr unsigned kThreads = 128;

/** The sequence that token \a t belongs to: the last that begins at or before it. */
__device__ __forceinline__ Index sequenceOf(Index t, const std::int32_t* offsets, Index sequences) {
  if (!offsets) return t;
  Index low = 0, high = sequences;
  while (low + 1 < high) {
    const Index middle = (low + high) / 2;
    (offsets[middle] <= t ? low : high) = middle;
  }
  return low;
}

/** The column that each token has in the cache; -1: none. */
struct CacheColumns {
  const std::int32_t* positions;
  const std::int32_t* offsets;
  Index sequences;
  Index capacity;

  __device__ __forceinline__ Index operator()(Index t) const {
    const Index position = positions[t];
    const bool inside = position >= 0 && position < capacity;
    return inside ? sequenceOf(t, offsets, sequences) * capacity + position : -1;
  }
};

template <typename T>
struct KeysAndValues {
  Columns<T> keys;
  Columns<T> values;
};

template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads)
    appendKernel(KeysAndValues<const T> from, KeysAndValues<T> cache, CacheColumns columns, Index rows, Index tokens) {
  using Entries = Pack<T, kWidth>;
  for (Index t = blockIdx.x; t < tokens; t += gridDim.x) {
    const Index column = columns(t);
    if (column < 0) continue;
    for (Index i = Index{threadIdx.x} * kWidth; i < rows; i += Index{kThreads} * kWidth) {
      *reinterpret_cast<Entries*>(cache.keys(column) + i) = *reinterpret_cast<const Entries*>(from.keys(t) + i);
      *reinterpret_cast<Entries*>(cache.values(column) + i) = *reinterpret_cast<const Entries*>(from.values(t) + i);
    }
  }
}

__global__ void __launch_bounds__(kThreads)
    addToIntegersKernel(std::int32_t* integers, Index count, std::int32_t step) {
  const Index stride = Index{gridDim.x} * kThreads;
  for (Index i = Index{blockIdx.x} * kThreads + threadIdx.x; i < count; i += stride) integers[i] += step;
}

}  // namespace

void appendToCache(const CacheAppend& op, Context& context) {
  assert(op.keys.cols == op.sequences * op.capacity && op.keys.rows == op.k.rows && op.keys.scalar == op.k.scalar &&
         "appendToCache: the cache differs from k in rows or scalar type, or has another capacity");
  assert((op.offsets || op.k.cols == op.sequences) && "appendToCache: expected one token a sequence or offsets");
  Walk walk({op.k, op.v});
  if (walk.empty()) return;
  walk.packed = walk.packed && Walk({asConst(op.keys), asConst(op.values)}).packed;
  const CacheColumns columns = {op.positions, op.offsets, op.sequences, op.capacity};
  dispatchWalk(walk, [&](auto tag, auto width) {
    using T = typename decltype(tag)::type;
    const KeysAndValues<const T> from = {Columns<const T>(op.k), Columns<const T>(op.v)};
    const KeysAndValues<T> cache = {Columns<T>(op.keys), Columns<T>(op.values)};
    launch("appendToCache", appendKernel<T, decltype(width)::value>, {dim3(gridFor(walk.cols)), kThreads}, context,
           from, cache, columns, walk.rows, walk.cols);
  });
}

void addToIntegers(std::int32_t* integers, Index count, std::int32_t step, Context& context) {
  if (count > 0)
    launch("addToIntegers", addToIntegersKernel, {dim3(gridFor((count + kThreads - 1) / kThreads)), kThreads}, context,
           integers, count, step);
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
