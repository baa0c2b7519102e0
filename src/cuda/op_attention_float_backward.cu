// SPDX-License-Identifier: MPL-2.0
// Pullback of causal attention in float. P is recomputed from the log-sum-exp; every gradient has one owner, so nothing
// is added atomically and the order is fixed.
//
//   dQ: block = (tile of queries, head)         rows    Q, dO     for each tile of keys K, V that they see
//   dK, dV: block = (tile of keys, kvHead)      rows    K, V      for each head of its group, each tile of queries
//                                                                 Q, dO that see them
//   both:  S = rows·innerᵀ,  P = exp(S - lse),  dP = dO·Vᵀ,  dS = P ∘ (dP - delta)·scale
//          dQ += dS·K    or    dV += Pᵀ·dO, dK += dSᵀ·Q
//
// Work     5 products of tiles instead of the forward's 2, and S and dP twice: 3.5 times the forward's.
// Needs    up to 86 KiB of shared memory: four tiles and one square of weights.
#include "op_attention.h"
#include "op_attention_float.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

constexpr unsigned kDeltaThreads = 128;

/** One warp for a head of a token. */
__global__ void __launch_bounds__(kDeltaThreads)
    attentionDeltaKernel(ConstDenseView o, ConstDenseView d_o, Index heads, Index headDim, Index count, float* delta) {
  const Index step = Index{gridDim.x} * (kDeltaThreads / kWarp);
  for (Index n = Index{blockIdx.x} * (kDeltaThreads / kWarp) + threadIdx.x / kWarp; n < count; n += step) {
    const Index token = n / heads, head = n - token * heads;
    const HeadView<const void> a(o, head, headDim), b(d_o, head, headDim);
    float sum = 0;
    for (Index i = threadIdx.x % kWarp; i < headDim; i += kWarp) sum = fmaf(a.load(token, i), b.load(token, i), sum);
    sum = warpReduce(sum, Plus());
    if (threadIdx.x % kWarp == 0) delta[n] = sum;
  }
}

/** The tiles in shared memory: the block's own rows, and those it walks through. */
struct SharedTiles {
  float* rows1;   // Q or K
  float* rows2;   // dO or V
  float* inner1;  // K or Q
  float* inner2;  // V or dO
  float* weights;
};

template <typename Tile>
__device__ __forceinline__ SharedTiles shareOut() {
  float* const m = dynamicShared<float>();
  return {m, m + Tile::kFloats, m + 2 * Tile::kFloats, m + 3 * Tile::kFloats, m + 4 * Tile::kFloats};
}

/** From P and dP of one tile of rows and one of inner tokens. \tparam kKeys  the rows are keys, the inner ones queries
 */
template <typename Tile, bool kKeys>
__device__ __forceinline__ void softmaxPullback(typename Tile::Scores& p, typename Tile::Scores& ds, int firstRow,
                                                int firstInner, int end, int window, const float* lse,
                                                const float* delta, Index heads, float scale) {
#pragma unroll
  for (int r = 0; r < Tile::kRows; ++r)
#pragma unroll
    for (int c = 0; c < Tile::kRows; ++c) {
      const int row = firstRow + Tile::ty() + 16 * r, inner = firstInner + Tile::tx() + 16 * c;
      const int query = kKeys ? inner : row, key = kKeys ? row : inner;
      const bool visible = query < end && isVisible(query - key, window);
      p[r][c] = visible ? expf(fmaf(p[r][c], scale, -lse[query * heads])) : 0.0f;
      ds[r][c] = visible ? p[r][c] * (ds[r][c] - delta[query * heads]) * scale : 0.0f;
    }
}

/** One step of a block: its rows against one tile of inner tokens of one head. */
template <typename Tile, bool kKeys>
__device__ __forceinline__ void step(const SharedTiles& shared, const HeadView<const void>& inner1,
                                     const HeadView<const void>& inner2, int firstRow, int firstInner, int end,
                                     int window, int headDim, const float* lse, const float* delta, Index heads,
                                     float scale, typename Tile::Sums& sums1, typename Tile::Sums& sums2) {
  __syncthreads();  // the tiles before have been read
  Tile::fill(shared.inner1, inner1, firstInner, end, headDim, 1);
  Tile::fill(shared.inner2, inner2, firstInner, end, headDim, 1);
  __syncthreads();
  typename Tile::Scores p, ds;
  Tile::multiply(shared.rows1, shared.inner1, p);
  Tile::multiply(shared.rows2, shared.inner2, ds);
  softmaxPullback<Tile, kKeys>(p, ds, firstRow, firstInner, end, window, lse, delta, heads, scale);
  if (kKeys) {
    Tile::putWeights(p, shared.weights);
    __syncthreads();
    Tile::addWeighted(shared.weights, shared.inner2, sums2);
    __syncthreads();  // the weights have been read
  }
  Tile::putWeights(ds, shared.weights);
  __syncthreads();
  Tile::addWeighted(shared.weights, shared.inner1, sums1);
}

template <int kDim, int kTile>
__global__ void __launch_bounds__(256)
    queryGradientKernel(const CausalAttentionBackward op, const float* delta, float scale) {
  using Tile = FloatTile<kDim, kTile>;
  const CausalAttention& f = op.forward;
  const BlockRole role = blockRole(f.offsets, f.sequences, f.heads, kTile, true);
  if (!role.tile) return;
  const int first = role.tile.first, end = role.tile.end, headDim = static_cast<int>(f.headDim);
  const Index kvHead = role.head / (f.heads / f.kvHeads);
  const SharedTiles shared = shareOut<Tile>();
  Tile::fill(shared.rows1, HeadView<const void>(f.q, role.head, headDim), first, end, headDim, 1);
  Tile::fill(shared.rows2, HeadView<const void>(op.d_o, role.head, headDim), first, end, headDim, 1);
  const HeadView<const void> k(f.k, kvHead, headDim), v(f.v, kvHead, headDim);
  typename Tile::Sums dq = {};
  const int window = windowOf(f), lastQuery = min(first + kTile, end) - 1;
  for (int key = keyColumns(f, role.tile).firstSeen(first, window); key <= lastQuery; key += kTile)
    step<Tile, false>(shared, k, v, first, key, end, window, headDim, f.lse + role.head, delta + role.head, f.heads,
                      scale, dq, dq);
  float ones[Tile::kRows];
#pragma unroll
  for (int r = 0; r < Tile::kRows; ++r) ones[r] = 1;
  Tile::write(dq, ones, HeadView<void>(op.dq, role.head, headDim), first, end, headDim, op.accumulateQ);
}

template <int kDim, int kTile>
__global__ void __launch_bounds__(256)
    keyGradientKernel(const CausalAttentionBackward op, const float* delta, float scale) {
  using Tile = FloatTile<kDim, kTile>;
  const CausalAttention& f = op.forward;
  const BlockRole role = blockRole(f.offsets, f.sequences, f.kvHeads, kTile, false);
  if (!role.tile) return;
  const int first = role.tile.first, end = role.tile.end, headDim = static_cast<int>(f.headDim);
  const Index group = f.heads / f.kvHeads;
  const SharedTiles shared = shareOut<Tile>();
  Tile::fill(shared.rows1, HeadView<const void>(f.k, role.head, headDim), first, end, headDim, 1);
  Tile::fill(shared.rows2, HeadView<const void>(f.v, role.head, headDim), first, end, headDim, 1);
  const int window = windowOf(f), queryEnd = role.tile.queryEnd(kTile, window);
  typename Tile::Sums dk = {}, dv = {};
  for (Index head = role.head * group; head < (role.head + 1) * group; ++head) {
    const HeadView<const void> q(f.q, head, headDim), d_o(op.d_o, head, headDim);
    for (int query = first; query < queryEnd; query += kTile)
      step<Tile, true>(shared, q, d_o, first, query, end, window, headDim, f.lse + head, delta + head, f.heads, scale,
                       dk, dv);
  }
  float ones[Tile::kRows];
#pragma unroll
  for (int r = 0; r < Tile::kRows; ++r) ones[r] = 1;
  if (op.dk.data) Tile::write(dk, ones, HeadView<void>(op.dk, role.head, headDim), first, end, headDim, op.accumulateK);
  if (op.dv.data) Tile::write(dv, ones, HeadView<void>(op.dv, role.head, headDim), first, end, headDim, op.accumulateV);
}

}  // namespace

void attentionDelta(const CausalAttentionBackward& op, float* delta, Context& context) {
  const CausalAttention& f = op.forward;
  const Index count = f.heads * f.q.cols, perBlock = kDeltaThreads / kWarp;
  launch("attentionDelta", attentionDeltaKernel, {dim3(gridFor((count + perBlock - 1) / perBlock)), kDeltaThreads},
         context, asConst(f.o), op.d_o, f.heads, f.headDim, count, delta);
}

void runAttentionBackwardFloat(const CausalAttentionBackward& op, Context& context) {
  const CausalAttention& f = op.forward;
  const auto scale = static_cast<float>(1 / std::sqrt(static_cast<double>(f.headDim)));
  Scratch scratch(context);
  float* const delta = scratch.array<float>(f.heads * f.q.cols);
  attentionDelta(op, delta, context);
  dispatchHeadDim(f.headDim, [&](auto dim) {
    constexpr int kDim = decltype(dim)::value, kTile = kDim <= 64 ? 64 : kDim <= 128 ? 32 : 16;
    using Tile = FloatTile<kDim, kTile>;
    constexpr std::size_t kShared = sizeof(float) * (4 * Tile::kFloats + Tile::kWeightFloats);
    static_assert(kShared <= 99 * 1024, "sm_86 and sm_89 have 99 KiB a block");
    const auto shape = [&](Index heads) {
      return LaunchShape{attentionGrid(f.q.cols, f.sequences, kTile, heads), Tile::kThreads, kShared};
    };
    if (op.dq.data)
      launch("attentionBackward.float", queryGradientKernel<kDim, kTile>, shape(f.heads), context, op, delta, scale);
    if (op.dk.data || op.dv.data)
      launch("attentionBackward.float", keyGradientKernel<kDim, kTile>, shape(f.kvHeads), context, op, delta, scale);
  });
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
