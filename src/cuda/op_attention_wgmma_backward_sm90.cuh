// SPDX-License-Identifier: MPL-2.0
// op_attention_wgmma_backward_sm90.cuh: the pullback of causal attention of half or bfloat16 on Hopper. P is recomputed
// from the log-sum-exp and every gradient has one owner, as in op_attention_mma_backward.cu; one text with the roles
// exchanged:
//
//   kKeys = false: block = 128 queries of a head      rows Q, dO    inner K, V     64 keys a step
//   kKeys = true:  block = 128 keys of a kvHead       rows K, V     inner Q, dO    64 queries a step, head after head
//
//   warpgroup = 64 of the rows    S = rows1·inner1ᵀ ──► P ─────────────► dS = P ∘ (dP - delta) ──► sums1 += dS·inner1
//                                 dP = rows2·inner2ᵀ ──┼─ sums2 += P·inner2 ─┘                     in registers
//   S has the rows of its kernel's sums, so that P and dS go from registers into their products; the inner tiles are
//   read along tokens and along entries as they lie. No atomics: the same bits in every run.
//
// Traffic  Rows once; inner tiles once for each 128 rows, 32 KiB in the time of 1536 (queries) or 2048 (keys) cycles of
//          products. lse and delta of 64 queries are copied with their tile.
// Work     7 products of tiles, S and dP twice. (5 would do if blocks of keys added to dQ one after the other.)
// Measured H200, bfloat16, 32/8 heads of 128, 2×4096 tokens: queries 616 us, keys 1018, which is 670 and 540 TFLOP/s
//          of all products. Queries in steps of 96 or 128 keys take 4 to 15 % longer.
// Rounding As op_attention_mma_backward.cu.
#ifndef EIGENQ_CUDA_OP_ATTENTION_WGMMA_BACKWARD_SM90_CUH
#define EIGENQ_CUDA_OP_ATTENTION_WGMMA_BACKWARD_SM90_CUH

#include "op_attention_wgmma_sm90.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace wgmma_attention {

/** What a query contributes beside its vectors: lse·log₂e, and delta = Σ d_o ∘ o. For each head one token after the
 * other, the first of a head at an even place. */
struct QueryTerms {
  float lse, delta;
};
struct TermsView {
  QueryTerms* data;
  Index stride;  // from head to head
};

/** \tparam kKeys_  the rows are keys, the inner tokens queries */
template <int kDim_, int kGroups_, bool kKeys_>
struct BackwardShape {
  static constexpr int kDim = kDim_, kGroups = kGroups_, kInner = 64;
  static constexpr bool kKeys = kKeys_;
  static constexpr int kRows = kGroups * kGroupRows, kConsumers = kGroups * kGroup, kThreads = kConsumers + kGroup;
  static constexpr int kConsumerRegisters = kGroups == 2 ? 232 : 160, kProducerRegisters = kGroups == 2 ? 40 : 32;
  using Rows = Tile<kRows, kDim>;
  using Inner = Tile<kInner, kDim>;
  // Copies of terms begin at an even token: one more, and one to make them even.
  static constexpr int kTermsBytes = kKeys ? (kInner + 2) * static_cast<int>(sizeof(QueryTerms)) : 0;
  static constexpr int kTermsRoom = (kTermsBytes + 127) / 128 * 128;
  static constexpr int kRoom = (227 << 10) - 2 * Rows::kBytes - 128, kStageBytes = 2 * Inner::kBytes + kTermsRoom;
  static constexpr int kStages = kRoom / kStageBytes < 4 ? kRoom / kStageBytes : 4;
  static constexpr int kBarriers = 2 + 2 * kStages;
  static constexpr int kSharedBytes = 2 * Rows::kBytes + kStages * kStageBytes + 8 * kBarriers;
};

template <typename S>
struct BackwardMemory {
  std::uint32_t base;

  __device__ __forceinline__ typename S::Rows rows1() const { return {base}; }
  __device__ __forceinline__ typename S::Rows rows2() const { return {base + S::Rows::kBytes}; }
  __device__ __forceinline__ typename S::Inner inner1(int stage) const {
    return {base + 2 * S::Rows::kBytes + stage * 2 * S::Inner::kBytes};
  }
  __device__ __forceinline__ typename S::Inner inner2(int stage) const {
    return {inner1(stage).address + S::Inner::kBytes};
  }
  __device__ __forceinline__ std::uint32_t terms(int stage) const {
    return inner1(S::kStages).address + stage * S::kTermsRoom;
  }
  __device__ __forceinline__ std::uint32_t barrier(int i) const { return terms(S::kStages) + 8 * i; }
  __device__ __forceinline__ std::uint32_t rowsFull() const { return barrier(0); }
  __device__ __forceinline__ std::uint32_t rowsEmpty() const { return barrier(1); }
  __device__ __forceinline__ std::uint32_t full(int stage) const { return barrier(2 + stage); }
  __device__ __forceinline__ std::uint32_t empty(int stage) const { return barrier(2 + S::kStages + stage); }

  __device__ __forceinline__ void initialise() const {
    constexpr int kWarps = S::kConsumers / static_cast<int>(kWarp);
    ptx::initBarrier(rowsFull(), 1);
    ptx::initBarrier(rowsEmpty(), kWarps);
    for (int s = 0; s < S::kStages; ++s) {
      ptx::initBarrier(full(s), 1);
      ptx::initBarrier(empty(s), kWarps);
    }
    ptx::fenceBarrierInit();
  }
};

/** In boxes of rows: K, V or Q, dO; in boxes of inner tokens the other two. */
struct BackwardMaps {
  CUtensorMap rows1, rows2, inner1, inner2;
};

/** A tile of rows, and the inner tiles that it meets: for keys, those of all heads of the group, one head after the
 * other. */
struct BackwardWork {
  int head, group, window;  // the head of the rows; query heads of a kvHead
  int first, end;           // first row; behind the sequence
  int begin, tiles, steps;  // first inner token; inner tiles of one head; of all

  template <typename S>
  static __device__ __forceinline__ BackwardWork of(const CausalAttention& f, const QueryUnits& units, int unit) {
    BackwardWork w;
    w.head = units.head(unit);
    w.group = static_cast<int>(f.heads / f.kvHeads);
    w.window = windowOf(f);
    SequenceTile tile = units.tile;
    tile.first = w.first = units.first(unit);
    w.end = tile.end;
    w.begin = S::kKeys ? w.first : max(tile.begin, w.first - w.window + 1);
    const int innerEnd = S::kKeys ? tile.queryEnd(S::kRows, w.window) : min(w.first + S::kRows, w.end);
    w.tiles = (innerEnd - w.begin + S::kInner - 1) / S::kInner;
    w.steps = S::kKeys ? w.tiles * w.group : w.tiles;
    return w;
  }
};

/** Goes through the steps of a tile of rows, and the stages of a block. */
template <typename S>
struct Step {
  Ring<S::kStages> slot;
  int tile = 0, head;  // of the inner tokens

  __device__ __forceinline__ Step(const BackwardWork& w, const Ring<S::kStages>& next)
      : slot(next), head(S::kKeys ? w.head * w.group : w.head / w.group) {}
  __device__ __forceinline__ int token(const BackwardWork& w) const { return w.begin + tile * S::kInner; }
  __device__ __forceinline__ void advance(const BackwardWork& w) {
    slot.advance();
    if (++tile < w.tiles) return;
    tile = 0;
    ++head;
  }
};

/** Copies a tile of rows and all that meets it. */
template <typename S>
__device__ __forceinline__ void copyBackward(const BackwardMemory<S>& memory, const BackwardMaps& maps,
                                             const BackwardWork& w, const TermsView& terms, std::uint32_t rowsParity,
                                             Ring<S::kStages>& slot) {
  ptx::wait(memory.rowsEmpty(), rowsParity ^ 1);
  ptx::arriveExpecting(memory.rowsFull(), 2 * S::Rows::kBytes);
  memory.rows1().copy(&maps.rows1, w.first, w.head, memory.rowsFull());
  memory.rows2().copy(&maps.rows2, w.first, w.head, memory.rowsFull());
  Step<S> at(w, slot);
  for (int step = 0; step < w.steps; ++step, at.advance(w)) {
    const int stage = at.slot.index, token = at.token(w);
    ptx::wait(memory.empty(stage), at.slot.parity ^ 1);
    ptx::arriveExpecting(memory.full(stage), 2 * S::Inner::kBytes + S::kTermsBytes);
    memory.inner1(stage).copy(&maps.inner1, token, at.head, memory.full(stage));
    memory.inner2(stage).copy(&maps.inner2, token, at.head, memory.full(stage));
    if (S::kKeys)
      ptx::copyBulk(memory.terms(stage), terms.data + at.head * terms.stride + token / 2 * 2, S::kTermsBytes,
                    memory.full(stage));
  }
  slot = at.slot;
}

/** A warpgroup's 64 rows against all inner tokens. Of each step,
 *    S = rows1·inner1ᵀ,  dP = rows2·inner2ᵀ,  P = exp(scale·S - lse),  dS = P ∘ (dP - delta)
 *    sums1 += dS·inner1,   kKeys: sums2 += P·inner2
 * The exponentials run beside dP, dS beside P's product, and all of it beside the other warpgroup's. */
template <typename T, typename S>
struct BackwardConsumer {
  const BackwardMemory<S>& memory;
  const BackwardWork& w;
  float exponentScale;
  int first;  // row of the warpgroup
  Step<S> at;
  int left;  // steps, this one included
  QueryTerms ofRows[2] = {};

  static constexpr int kCleared = 1;  // named barrier
  using Scores = float[S::kInner / 2];
  using Sums = float[S::kDim / 2];

  static __device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x % kWarp); }
  /** Row g's token. */
  __device__ __forceinline__ int row() const {
    return first + static_cast<int>(threadIdx.x % kGroup / kWarp) * 16 + lane() / 4;
  }
  __device__ __forceinline__ void release(int stage) const {
    __syncwarp();  // all have waited for it
    if (lane() == 0) ptx::arrive(memory.empty(stage));
  }
  /** Distances from query to key lie between these two. */
  __device__ __forceinline__ int nearest(int token) const {
    return S::kKeys ? token - (first + kGroupRows - 1) : first - (token + S::kInner - 1);
  }
  __device__ __forceinline__ int farthest(int token) const {
    return S::kKeys ? token + S::kInner - 1 - first : first + kGroupRows - 1 - token;
  }

  __device__ __forceinline__ void clearTerms(int stage, int place) const {
    if (place < S::kInner + 2)
      asm volatile(
          "st.shared.v2.b32 [%0], {%1, %1};" ::"r"(memory.terms(stage) + place * static_cast<int>(sizeof(QueryTerms))),
          "r"(0)
          : "memory");
  }
  /** Waits for this step's tiles, or those of the first behind it that some row of the warpgroup has a part in. What
   * lies behind the sequence is another's, and may be NaN where its weight is 0. \returns whether there is one */
  __device__ __forceinline__ bool findTiles() {
    for (; left > 0; --left, at.advance(w)) {
      const int stage = at.slot.index, token = at.token(w);
      ptx::wait(memory.full(stage), at.slot.parity);
      if (token + S::kInner > w.end) {
        const int thread = static_cast<int>(threadIdx.x);
        memory.inner1(stage).clearFrom(w.end - token, thread, S::kConsumers);
        memory.inner2(stage).clearFrom(w.end - token, thread, S::kConsumers);
        if (S::kKeys) clearTerms(stage, w.end - token + token % 2 + thread);
        ptx::fenceAsyncProxy();
        ptx::syncThreads(kCleared, S::kConsumers);
      }
      if (farthest(token) >= 0 && nearest(token) < w.window) return true;
      release(stage);
    }
    return false;
  }
  /** Terms of the query of the thread's entry i, of the tile's tokens token … */
  __device__ __forceinline__ QueryTerms termsOf(int i, int token) const {
    if (!S::kKeys) return ofRows[i / 2 % 2];
    const int place = i / 4 * 8 + lane() % 4 * 2 + i % 2 + token % 2;
    QueryTerms q;
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];"
                 : "=f"(q.lse), "=f"(q.delta)
                 : "r"(memory.terms(at.slot.index) + place * static_cast<int>(sizeof(QueryTerms))));
    return q;
  }
  /** P from scores. */
  __device__ __forceinline__ void weigh(Scores& s) const {
    const int token = at.token(w);
#pragma unroll
    for (int i = 0; i < S::kInner / 2; ++i) s[i] = ptx::powerOfTwo(fmaf(exponentScale, s[i], -termsOf(i, token).lse));
    if (nearest(token) >= 0 && farthest(token) < w.window && token + S::kInner <= w.end) return;
#pragma unroll
    for (int i = 0; i < S::kInner / 2; ++i) {
      const int own = row() + i / 2 % 2 * 8, inner = token + i / 4 * 8 + lane() % 4 * 2 + i % 2;
      const bool visible = isVisible(S::kKeys ? inner - own : own - inner, w.window) && inner < w.end;
      s[i] = visible ? s[i] : 0.0f;
    }
  }
  /** dS from P and dP. */
  __device__ __forceinline__ void pullBack(Scores& p, const Scores& dp) const {
    const int token = at.token(w);
#pragma unroll
    for (int i = 0; i < S::kInner / 2; ++i) p[i] *= dp[i] - termsOf(i, token).delta;
  }

  __device__ __forceinline__ void sum(Sums& sums1, Sums& sums2) {
    for (; findTiles(); --left, at.advance(w)) {
      const auto inner1 = memory.inner1(at.slot.index), inner2 = memory.inner2(at.slot.index);
      Scores s, dp;
      Weights<S::kInner> p, ds;
      ptx::wgmmaFence();
      multiply<T>(s, memory.rows1(), first - w.first, inner1);
      ptx::wgmmaCommit();
      multiply<T>(dp, memory.rows2(), first - w.first, inner2);
      ptx::wgmmaCommit();
      ptx::wgmmaWait<1>();
      ptx::settle(s);
      weigh(s);
      if (S::kKeys) {
        p.round(s, TypeTag<T>());
        p.settle();
        ptx::wgmmaFence();
        addWeighted<T>(sums2, p, inner2);
        ptx::wgmmaCommit();
      }
      ptx::wgmmaWait<S::kKeys ? 1 : 0>();
      ptx::settle(dp);
      pullBack(s, dp);
      ds.round(s, TypeTag<T>());
      ds.settle();
      ptx::wgmmaFence();
      addWeighted<T>(sums1, ds, inner1);
      ptx::wgmmaCommit();
      ptx::wgmmaWait<0>();
      if (S::kKeys) {
        ptx::settle(sums2);
        p.keep();
      }
      ptx::settle(sums1);
      ds.keep();
      release(at.slot.index);
    }
  }
};

template <typename T, typename S>
__device__ __forceinline__ void storeGradients(const CausalAttentionBackward& op, const BackwardWork& w, int first,
                                               float scale, const float (&sums1)[S::kDim / 2],
                                               const float (&sums2)[S::kDim / 2]) {
  const float scales[2] = {scale, scale}, ones[2] = {1, 1};
  const DenseView& d1 = S::kKeys ? op.dk : op.dq;
  if (d1.data)
    storeRows<T, S::kDim>(sums1, scales, d1, w.head, first, w.end, S::kKeys ? op.accumulateK : op.accumulateQ);
  if (S::kKeys && op.dv.data) storeRows<T, S::kDim>(sums2, ones, op.dv, w.head, first, w.end, op.accumulateV);
}

template <typename T, typename S>
__global__ void __launch_bounds__(S::kThreads, 1)
    attentionBackwardWgmmaKernel(const __grid_constant__ CausalAttentionBackward op,
                                 const __grid_constant__ BackwardMaps maps, const TermsView terms, float scale,
                                 const QueryShare share) {
  extern __shared__ __align__(1024) unsigned char bytes[];
  const BackwardMemory<S> memory{ptx::sharedAddress(bytes)};
  if (memory.base % 1024 != 0) __trap();
  const CausalAttention& f = op.forward;
  const QueryUnits units = S::kKeys ? QueryUnits::ofKeys(f, S::kRows) : QueryUnits::of(f, share, S::kRows);
  if (units.count == 0) return;
  if (threadIdx.x == S::kConsumers) memory.initialise();
  __syncthreads();
  const int group = uniform(static_cast<int>(threadIdx.x) / kGroup), count = S::kKeys ? 1 : units.count;
  Ring<S::kStages> slot;
  if (group == S::kGroups) {
    ptx::giveRegisters<S::kProducerRegisters>();
    if (threadIdx.x > S::kConsumers) return;
#pragma unroll 1
    for (int unit = 0; unit < count; ++unit)
      copyBackward(memory, maps, BackwardWork::of<S>(f, units, unit), terms, unit % 2, slot);
    return;
  }
  ptx::takeRegisters<S::kConsumerRegisters>();
#pragma unroll 1
  for (int unit = 0; unit < count; ++unit) {
    const BackwardWork w = BackwardWork::of<S>(f, units, unit);
    const int first = w.first + group * kGroupRows;
    BackwardConsumer<T, S> consumer{memory, w, scale * kLog2E, first, Step<S>(w, slot), w.steps};
    if (!S::kKeys)
#pragma unroll
      for (int h = 0; h < 2; ++h)
        if (consumer.row() + 8 * h < w.end)
          consumer.ofRows[h] = terms.data[w.head * terms.stride + consumer.row() + 8 * h];
    float sums1[S::kDim / 2] = {}, sums2[S::kDim / 2] = {};
    ptx::wait(memory.rowsFull(), unit % 2);
    consumer.sum(sums1, sums2);
    if (consumer.lane() == 0) ptx::arrive(memory.rowsEmpty());
    slot = consumer.at.slot;
    storeGradients<T, S>(op, w, first, scale, sums1, sums2);
  }
}

}  // namespace wgmma_attention
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_OP_ATTENTION_WGMMA_BACKWARD_SM90_CUH
