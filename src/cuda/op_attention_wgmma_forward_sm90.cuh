// SPDX-License-Identifier: MPL-2.0
// op_attention_wgmma_forward_sm90.cuh: causal attention of half or bfloat16 on Hopper; scores, softmax and sums in
// float.
//
//   block = 128 queries of a head    one thread copies    Q │ K K │ V V    (stages of 128 keys)
//     warpgroup 0: 64 of them        S(j) = QK(j)ᵀ ► exp ► P(j)    ·    S(j) = QK(j)ᵀ, O += P(j-1)V(j-1) ► exp ► …
//     warpgroup 1: the other 64           exp of its own           ·         products of its own
//                                    time ──────────►
//   P(j) goes from the registers of S(j) into its product; V is read along its columns as it lies.
//
// Order    Keys from the last tile to the first: the tiles that are masked come at the beginning, and nothing in the
//          loop asks where a sequence ends. Its last tile of V is cleared behind the end before anything reads it.
// Traffic  Q, O once; K and V once for each 128 queries, 64 KiB in the time of 2048 cycles of products: mostly from L2.
// Work     4·T²·headDim/2 FLOP a head and sequence, and an exponential for 4·headDim of them, which take an SM's
// special
//          units half as long as its tensor cores with heads of 128, and as long as those with heads of 64.
// Measured H200, bfloat16, 32/8 heads of 128, 4×1024, 2×4096 and 1×16384 tokens: 419, 533 and 624 TFLOP/s, where
//          attention.mma has 205, 249 and 265. Without turns it takes up to 10 % longer, with tiles of 96 keys 11 to
//          13, with three warpgroups and tiles of 64 keys 25 to 33, with a block for each tile of 4×1024 tokens 21.
// Rounding As op_attention_mma.cu.
// Source: Shah et al., FlashAttention-3, arXiv:2407.08608.
#ifndef EIGENQ_CUDA_OP_ATTENTION_WGMMA_FORWARD_SM90_CUH
#define EIGENQ_CUDA_OP_ATTENTION_WGMMA_FORWARD_SM90_CUH

#include "op_attention_wgmma_sm90.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace wgmma_attention {

/** \tparam kGroups_  warpgroups that multiply, 64 queries each */
template <int kDim_, int kGroups_>
struct ForwardShape {
  static constexpr int kDim = kDim_, kGroups = kGroups_, kKeys = 128, kStages = 2;
  static constexpr int kRows = kGroups * kGroupRows, kConsumers = kGroups * kGroup, kThreads = kConsumers + kGroup;
  static constexpr int kConsumerRegisters = kGroups == 2 ? 232 : 160, kProducerRegisters = kGroups == 2 ? 40 : 32;
  using Queries = Tile<kRows, kDim>;
  using Keys = Tile<kKeys, kDim>;
  static constexpr int kBarriers = 2 + 4 * kStages;
  static constexpr int kSharedBytes = Queries::kBytes + 2 * kStages * Keys::kBytes + 8 * kBarriers;
};

/** The block's shared memory. */
template <typename S>
struct ForwardMemory {
  std::uint32_t base;

  __device__ __forceinline__ typename S::Queries q() const { return {base}; }
  __device__ __forceinline__ typename S::Keys k(int stage) const {
    return {base + S::Queries::kBytes + stage * S::Keys::kBytes};
  }
  __device__ __forceinline__ typename S::Keys v(int stage) const { return k(S::kStages + stage); }
  __device__ __forceinline__ std::uint32_t barrier(int i) const { return k(2 * S::kStages).address + 8 * i; }
  __device__ __forceinline__ std::uint32_t qFull() const { return barrier(0); }
  __device__ __forceinline__ std::uint32_t qEmpty() const { return barrier(1); }
  __device__ __forceinline__ std::uint32_t kFull(int stage) const { return barrier(2 + stage); }
  __device__ __forceinline__ std::uint32_t kEmpty(int stage) const { return barrier(2 + S::kStages + stage); }
  __device__ __forceinline__ std::uint32_t vFull(int stage) const { return barrier(2 + 2 * S::kStages + stage); }
  __device__ __forceinline__ std::uint32_t vEmpty(int stage) const { return barrier(2 + 3 * S::kStages + stage); }

  __device__ __forceinline__ void initialise() const {
    constexpr int kWarps = S::kConsumers / static_cast<int>(kWarp);
    ptx::initBarrier(qFull(), 1);
    ptx::initBarrier(qEmpty(), kWarps);
    for (int s = 0; s < S::kStages; ++s) {
      ptx::initBarrier(kFull(s), 1);
      ptx::initBarrier(vFull(s), 1);
      ptx::initBarrier(kEmpty(s), kWarps);
      ptx::initBarrier(vEmpty(s), kWarps);
    }
    ptx::fenceBarrierInit();
  }
};

struct ForwardMaps {
  CUtensorMap q, k, v;
};

/** What a block's queries have in common. */
struct ForwardWork {
  QueryUnits units;
  KeyColumns keys;
  int kvHead, window, end;  // of the sequence

  __device__ __forceinline__ ForwardWork(const CausalAttention& op, const QueryUnits& u)
      : units(u),
        keys(keyColumns(op, u.tile)),
        kvHead(u.firstHead / static_cast<int>(op.heads / op.kvHeads)),
        window(windowOf(op)),
        end(u.tile.end) {}
};

/** The tiles of keys that a tile of queries sees, from the last, which rows see in part, to the first. */
template <typename S>
struct SeenKeys {
  int first, tiles;

  __device__ __forceinline__ SeenKeys(const ForwardWork& w, int query) : first(w.keys.firstSeen(query, w.window)) {
    const int last = min(query + S::kRows, w.end) - 1 + w.keys.shift;
    tiles = uniform(w.keys.known ? (last - first) / S::kKeys + 1 : 0);
  }
  __device__ __forceinline__ int key(int step) const { return first + (tiles - 1 - step) * S::kKeys; }
};

/** Copies all that the block needs, by one thread. */
template <typename S>
struct ForwardProducer {
  const ForwardMemory<S>& memory;
  const ForwardMaps& maps;
  Ring<S::kStages> k, v;
  std::uint32_t qParity = 1;

  __device__ __forceinline__ void copy(const ForwardWork& w, int unit) {
    const int query = w.units.first(unit);
    const SeenKeys<S> seen(w, query);
    if (seen.tiles == 0) return;
    ptx::wait(memory.qEmpty(), qParity);
    qParity ^= 1;
    ptx::arriveExpecting(memory.qFull(), S::Queries::kBytes);
    memory.q().copy(&maps.q, query, w.units.head(unit), memory.qFull());
    copyKeys(w, seen.key(0));
    for (int step = 0; step < seen.tiles; ++step) {
      if (step + 1 < seen.tiles) copyKeys(w, seen.key(step + 1));
      ptx::wait(memory.vEmpty(v.index), v.parity ^ 1);
      ptx::arriveExpecting(memory.vFull(v.index), S::Keys::kBytes);
      memory.v(v.index).copy(&maps.v, seen.key(step), w.kvHead, memory.vFull(v.index));
      v.advance();
    }
  }
  __device__ __forceinline__ void copyKeys(const ForwardWork& w, int key) {
    ptx::wait(memory.kEmpty(k.index), k.parity ^ 1);
    ptx::arriveExpecting(memory.kFull(k.index), S::Keys::kBytes);
    memory.k(k.index).copy(&maps.k, key, w.kvHead, memory.kFull(k.index));
    k.advance();
  }
};

/** The softmax of rows g and g + 8 so far: the weights are relative to 2^(exponentScale·top). */
template <int kKeys>
struct RunningSoftmax {
  float top[2] = {kNegativeInfinity, kNegativeInfinity};
  float total[2] = {0, 0};  // of this lane's columns
  float rescale[2];         // of what was summed before the last update

  /** Hides keys that lie ahead of their rows or before their windows. \param distance  of row g to the thread's first
   * key */
  static __device__ __forceinline__ void hide(float (&s)[kKeys / 2], int distance, int window) {
#pragma unroll
    for (int i = 0; i < kKeys / 2; ++i)
      if (!isVisible(distance + i / 2 % 2 * 8 - (i / 4 * 8 + i % 2), window)) s[i] = kNegativeInfinity;
  }
  /** Turns scores into weights. A row may see none of them, and none of those before. */
  __device__ __forceinline__ void update(float (&s)[kKeys / 2], float exponentScale) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float most[2] = {top[h], top[h]};
#pragma unroll
      for (int i = 2 * h; i < kKeys / 2; i += 4)
#pragma unroll
        for (int e = 0; e < 2; ++e) most[e] = fmaxf(most[e], s[i + e]);
      const float now = quadReduce(fmaxf(most[0], most[1]), Maximum()), shift = exponentScale * finiteTop(now);
      rescale[h] = ptx::powerOfTwo(fmaf(exponentScale, top[h], -shift));
      top[h] = now;
      float sums[2] = {total[h] * rescale[h], 0};
#pragma unroll
      for (int i = 2 * h; i < kKeys / 2; i += 4)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          s[i + e] = ptx::powerOfTwo(fmaf(exponentScale, s[i + e], -shift));
          sums[e] += s[i + e];
        }
      total[h] = sums[0] + sums[1];
    }
  }
};

/** A warpgroup's 64 queries against all keys that they see. The scores of a tile are multiplied before the weights of
 * the one before meet their values, so that a softmax runs beside a product; and warpgroups take turns, so that one's
 * softmax runs beside another's products. */
template <typename T, typename S>
struct ForwardConsumer {
  const CausalAttention& op;
  const ForwardMemory<S>& memory;
  const ForwardWork& w;
  float scale;
  int group;
  Ring<S::kStages> k, v;
  std::uint32_t qParity = 0;

  static constexpr int kFirstTurn = 1, kCleared = kFirstTurn + S::kGroups;  // named barriers
  using Scores = float[S::kKeys / 2];

  /** What the 64 queries have come to. */
  struct State {
    RunningSoftmax<S::kKeys> softmax;
    Weights<S::kKeys> weights;  // of the last tile
    float sums[S::kDim / 2] = {};
  };

  __device__ __forceinline__ void awaitTurn() const { ptx::syncThreads(kFirstTurn + group, 2 * kGroup); }
  /** \a more  whether the first warpgroup will wait for another turn */
  __device__ __forceinline__ void passTurn(bool more) const {
    const int next = group + 1 < S::kGroups ? group + 1 : 0;
    if (more || next != 0) ptx::arriveThreads(kFirstTurn + next, 2 * kGroup);
  }
  /** After products, which are waited for by all lanes together. */
  static __device__ __forceinline__ void release(std::uint32_t barrier) {
    if (threadIdx.x % kWarp == 0) ptx::arrive(barrier);
  }

  /** Row g's token. */
  __device__ __forceinline__ int row(int query) const {
    return query + group * kGroupRows + static_cast<int>(threadIdx.x % kGroup / kWarp * 16 + threadIdx.x % kWarp / 4);
  }
  __device__ __forceinline__ void hide(Scores& s, int query, int key) const {
    const int own = query + group * kGroupRows + w.keys.shift;  // key of the warpgroup's first row
    if (own >= key + S::kKeys - 1 && own + kGroupRows - 1 - key < w.window) return;
    const int first = key + static_cast<int>(threadIdx.x % 4) * 2;
    RunningSoftmax<S::kKeys>::hide(s, row(query) + w.keys.shift - first, w.window);
  }
  /** What lies behind the sequence is another's, or nobody's: a value may be NaN, and its weight is 0. */
  __device__ __forceinline__ void clearValues(int keysLeft) const {
    ptx::wait(memory.vFull(v.index), v.parity);
    memory.v(v.index).clearFrom(keysLeft, static_cast<int>(threadIdx.x), S::kConsumers);
    ptx::fenceAsyncProxy();
    ptx::syncThreads(kCleared, S::kConsumers);
  }
  __device__ __forceinline__ void multiplyKeys(Scores& s) const {
    ptx::wgmmaFence();
    multiply<T>(s, memory.q(), group * kGroupRows, memory.k(k.index));
    ptx::wgmmaCommit();
  }
  __device__ __forceinline__ void addValues(State& state) const {
    ptx::wait(memory.vFull(v.index), v.parity);
    ptx::wgmmaFence();
    addWeighted<T>(state.sums, state.weights, memory.v(v.index));
    ptx::wgmmaCommit();
  }
  __device__ __forceinline__ void takeScores(Scores& s) {
    ptx::settle(s);
    release(memory.kEmpty(k.index));
    k.advance();
  }
  __device__ __forceinline__ void takeSums(State& state) {
    ptx::wgmmaWait<0>();
    ptx::settle(state.sums);
    state.weights.keep();
    release(memory.vEmpty(v.index));
    v.advance();
  }

  __device__ __forceinline__ void attend(int unit) {
    const int query = w.units.first(unit);
    const bool more = unit + 1 < w.units.count;
    const SeenKeys<S> seen(w, query);
    State state;
    if (seen.tiles > 0) {
      ptx::wait(memory.qFull(), qParity);
      qParity ^= 1;
      sumSeen(state, seen, query, more);
    }
    write(query, w.units.head(unit), state);
  }
  __device__ __forceinline__ void sumSeen(State& state, const SeenKeys<S>& seen, int query, bool more) {
    const float exponentScale = scale * kLog2E;
    Scores s;
    ptx::wait(memory.kFull(k.index), k.parity);
    awaitTurn();
    multiplyKeys(s);
    passTurn(more || seen.tiles > 1);
    ptx::wgmmaWait<0>();
    takeScores(s);
    hide(s, query, seen.key(0));
    state.softmax.update(s, exponentScale);
    state.weights.round(s, TypeTag<T>());
    const int keysLeft = w.end + w.keys.shift - seen.key(0);
    if (keysLeft < S::kKeys) clearValues(keysLeft);
    if (seen.tiles > 1) ptx::wait(memory.kFull(k.index), k.parity);
    for (int step = 1; step < seen.tiles; ++step) {
      state.weights.settle();
      awaitTurn();
      multiplyKeys(s);
      addValues(state);
      passTurn(more || step + 1 < seen.tiles);
      ptx::wgmmaWait<1>();
      takeScores(s);
      hide(s, query, seen.key(step));
      state.softmax.update(s, exponentScale);
      ptx::settle(s);
      // The branch keeps the compiler from waiting for the sums before it computes the weights.
      if (step + 1 < seen.tiles) ptx::wait(memory.kFull(k.index), k.parity);
      takeSums(state);
      state.weights.round(s, TypeTag<T>());
#pragma unroll
      for (int i = 0; i < S::kDim / 2; ++i) state.sums[i] *= state.softmax.rescale[i / 2 % 2];
    }
    release(memory.qEmpty());
    state.weights.settle();
    addValues(state);
    takeSums(state);
  }

  /** Where positions leave the cache, 0/0. */
  __device__ __forceinline__ void write(int query, int head, const State& state) const {
    float factors[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float total = quadReduce(state.softmax.total[h], Plus());
      const int token = row(query) + 8 * h;
      factors[h] = 1.0f / total;
      if (op.lse && token < w.end && threadIdx.x % 4 == 0)
        op.lse[Index{token} * op.heads + head] = fmaf(scale, state.softmax.top[h], logf(total));
    }
    storeRows<T, S::kDim>(state.sums, factors, op.o, head, query + group * kGroupRows, w.end, false);
  }
};

template <typename T, typename S>
__global__ void __launch_bounds__(S::kThreads, 1)
    attentionWgmmaKernel(const __grid_constant__ CausalAttention op, const __grid_constant__ ForwardMaps maps,
                         float scale, const QueryShare share) {
  extern __shared__ __align__(1024) unsigned char bytes[];
  const ForwardMemory<S> memory{ptx::sharedAddress(bytes)};
  if (memory.base % 1024 != 0) __trap();
  if (threadIdx.x == S::kConsumers) {
    ptx::prefetchMap(&maps.q);
    ptx::prefetchMap(&maps.k);
    ptx::prefetchMap(&maps.v);
  }
  const QueryUnits units = QueryUnits::of(op, share, S::kRows);
  if (units.count == 0) return;
  const ForwardWork w(op, units);
  if (threadIdx.x == S::kConsumers) memory.initialise();
  __syncthreads();
  const int group = uniform(static_cast<int>(threadIdx.x) / kGroup);
  if (group == S::kGroups) {
    ptx::giveRegisters<S::kProducerRegisters>();
    if (threadIdx.x > S::kConsumers) return;
    ForwardProducer<S> producer{memory, maps};
#pragma unroll 1
    for (int unit = 0; unit < units.count; ++unit) producer.copy(w, unit);
    return;
  }
  ptx::takeRegisters<S::kConsumerRegisters>();
  ForwardConsumer<T, S> consumer{op, memory, w, scale, group};
  if (group == S::kGroups - 1 && w.keys.known) ptx::arriveThreads(consumer.kFirstTurn, 2 * kGroup);
#pragma unroll 1
  for (int unit = 0; unit < units.count; ++unit) consumer.attend(unit);
}

}  // namespace wgmma_attention
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_OP_ATTENTION_WGMMA_FORWARD_SM90_CUH
