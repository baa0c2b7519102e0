// SPDX-License-Identifier: MPL-2.0
// New keys and values to their columns of the cache, and what else a step of generation does to integers on the device.
//
//   token t of sequence s, at positions[t]:  column t of k, v  ─►  column s·capacity + positions[t] of keys, values
//
// Traffic  k, v once each way. A step brings few tokens, so that the time is that of a launch.
#include "op_rope.cuh"

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

/** A thread has a pack of pairs of q, k or v of a token, in this order. */
template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads)
    ropeAppendKernel(Columns<const T> q, Columns<T> rotated, KeysAndValues<const T> from, KeysAndValues<T> cache,
                     RopeTableView table, CacheColumns columns, Index queryPacks, Index keyPacks, Index tokens) {
  using Pairs = Pack<T, kWidth>;
  joinStream();
  const Index perToken = queryPacks + 2 * keyPacks, step = Index{gridDim.x} * kThreads;
  for (Index n = Index{blockIdx.x} * kThreads + threadIdx.x; n < perToken * tokens; n += step) {
    const Index t = n / perToken, pack = n - t * perToken, position = columns.positions[t];
    if (pack < queryPacks) {
      table.rotate<kWidth>(q(t), rotated(t), pack * kWidth, position, false);
      continue;
    }
    const Index column = columns(t);
    if (column < 0) continue;
    if (pack < queryPacks + keyPacks) {
      table.rotate<kWidth>(from.keys(t), cache.keys(column), (pack - queryPacks) * kWidth, position, false);
    } else {
      const Index i = 2 * kWidth * (pack - queryPacks - keyPacks);
      const Pairs first = *reinterpret_cast<const Pairs*>(from.values(t) + i);
      const Pairs second = *reinterpret_cast<const Pairs*>(from.values(t) + i + kWidth);
      *reinterpret_cast<Pairs*>(cache.values(column) + i) = first;
      *reinterpret_cast<Pairs*>(cache.values(column) + i + kWidth) = second;
    }
  }
}

__global__ void __launch_bounds__(kThreads)
    addToIntegersKernel(std::int32_t* integers, Index count, std::int32_t step) {
  joinStream();
  const Index stride = Index{gridDim.x} * kThreads;
  for (Index i = Index{blockIdx.x} * kThreads + threadIdx.x; i < count; i += stride) integers[i] += step;
}

CacheColumns columnsOf(const CacheAppend& op) { return {op.positions, op.offsets, op.sequences, op.capacity}; }

void checkAppend(const CacheAppend& op) {
  (void)op;  // without assertions
  assert(op.keys.cols == op.sequences * op.capacity && op.keys.rows == op.k.rows && op.keys.scalar == op.k.scalar &&
         "appendToCache: the cache differs from k in rows or scalar type, or has another capacity");
  assert((op.offsets || op.k.cols == op.sequences) && "appendToCache: expected one token a sequence or offsets");
}

}  // namespace

void ropeAppend(const Rope& rope, const CacheAppend& op, Context& context) {
  checkAppend(op);
  assert(rope.headDim > 0 && rope.headDim % 2 == 0 && rope.x.rows % rope.headDim == 0 &&
         op.k.rows % rope.headDim == 0 && "rope: rows are not a multiple of an even head dimension");
  assert(rope.x.cols == op.k.cols && rope.x.scalar == op.k.scalar && "ropeAppend: q differs from k");
  Walk walk({op.k, op.v});
  if (walk.empty()) return;
  walk.packed = walk.packed && Walk({rope.x, asConst(rope.y)}).packed;
  walk.packed = walk.packed && Walk({asConst(op.keys), asConst(op.values)}).packed;
  const RopeTableView table(rope);
  dispatchTurns(walk, table, [&](auto tag, auto width) {
    using T = typename decltype(tag)::type;
    constexpr int kWidth = decltype(width)::value;
    const Index queryPacks = rope.x.rows / 2 / kWidth, keyPacks = op.k.rows / 2 / kWidth;
    const Index packs = (queryPacks + 2 * keyPacks) * walk.cols;
    const KeysAndValues<const T> from = {Columns<const T>(op.k), Columns<const T>(op.v)};
    const KeysAndValues<T> cache = {Columns<T>(op.keys), Columns<T>(op.values)};
    launchEarly("ropeAppend", ropeAppendKernel<T, kWidth>, {dim3(gridFor((packs + kThreads - 1) / kThreads)), kThreads},
                context, Columns<const T>(rope.x), Columns<T>(rope.y), from, cache, table, columnsOf(op), queryPacks,
                keyPacks, walk.cols);
  });
}

void appendToCache(const CacheAppend& op, Context& context) {
  checkAppend(op);
  Walk walk({op.k, op.v});
  if (walk.empty()) return;
  walk.packed = walk.packed && Walk({asConst(op.keys), asConst(op.values)}).packed;
  dispatchWalk(walk, [&](auto tag, auto width) {
    using T = typename decltype(tag)::type;
    const KeysAndValues<const T> from = {Columns<const T>(op.k), Columns<const T>(op.v)};
    const KeysAndValues<T> cache = {Columns<T>(op.keys), Columns<T>(op.values)};
    launch("appendToCache", appendKernel<T, decltype(width)::value>, {dim3(gridFor(walk.cols)), kThreads}, context,
           from, cache, columnsOf(op), walk.rows, walk.cols);
  });
}

void addToIntegers(std::int32_t* integers, Index count, std::int32_t step, Context& context) {
  if (count > 0)
    launchEarly("addToIntegers", addToIntegersKernel, {dim3(gridFor((count + kThreads - 1) / kThreads)), kThreads},
                context, integers, count, step);
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
