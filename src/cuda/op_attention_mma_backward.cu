// SPDX-License-Identifier: MPL-2.0
// Pullback of causal attention of half or bfloat16 on the tensor cores. As in op_attention_float_backward.cu, P is
// recomputed from the log-sum-exp and every gradient has one owner; both kernels are one text with the roles exchanged:
//
//   kKeys = false: block = (64 queries, head)       rows Q, dO    inner K, V     of the keys that they see
//   kKeys = true:  block = (64 keys, kvHead)        rows K, V     inner Q, dO    of the queries that see them, each
//   head S = rows1·inner1ᵀ,  dP = rows2·inner2ᵀ,  P = exp(scale·S - lse),  dS = P ∘ (dP - delta)         in registers
//   sums1 += dS·inner1 (dQ or dK, times scale at the end),   kKeys: sums2 += P·inner2 (dV)
//
// Work     5 products of tiles instead of the forward's 2, and S and dP twice: 3.5 times the forward's.
// Rounding P and dS are rounded to the scalar before their products.
// Needs    as op_attention_mma.cu, of d_o, dq, dk, dv too; up to 64 KiB of shared memory.
#include "op_attention.h"
#include "op_attention_mma.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

/** Two sums of 128 entries leave registers for tiles of 32 inner tokens. */
template <int kDim>
constexpr int kInner = kDim == 128 ? 32 : 64;

/** What a query contributes beside its vectors: lse·log₂e, and delta. Behind the end of a sequence the weight 2^-∞
 * is 0. */
struct QueryTerms {
  float lse;
  float delta;
};

__device__ __forceinline__ QueryTerms queryTerms(const float* lse, const float* delta, Index heads, int query,
                                                 int end) {
  if (query >= end) return {-kNegativeInfinity, 0};
  return {lse[query * heads] * kLog2E, delta[query * heads]};
}

/** P and dS from scores and dP, for a 16×kCols piece whose first row and column are the tokens given. */
template <bool kKeys, int kCols>
__device__ __forceinline__ void softmaxPullback(float (&p)[kCols / 8][4], float (&ds)[kCols / 8][4], int row,
                                                int firstInner, int window, const QueryTerms (&ofRows)[2],
                                                const QueryTerms* ofInner, float exponentScale) {
  const int column = static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
  for (int n = 0; n < kCols / 8; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int own = row + i / 2 * 8, place = 8 * n + column + i % 2, inner = firstInner + place;
      const QueryTerms q = kKeys ? ofInner[place] : ofRows[i / 2];
      const float weight =
          isVisible(kKeys ? inner - own : own - inner, window) ? exp2f(fmaf(exponentScale, p[n][i], -q.lse)) : 0.0f;
      p[n][i] = weight;
      ds[n][i] = weight * (ds[n][i] - q.delta);
    }
}

template <typename T, int kDim, bool kKeys>
__global__ void __launch_bounds__(kMmaThreads)
    attentionBackwardMmaKernel(const CausalAttentionBackward op, const float* delta, float scale) {
  using Tile = MmaTile<T, kDim>;
  constexpr int kCols = kInner<kDim>;
  const CausalAttention& f = op.forward;
  const BlockRole role = blockRole(f.offsets, f.sequences, kKeys ? f.kvHeads : f.heads, kMmaRows, !kKeys);
  if (!role.tile) return;
  const int first = role.tile.first, end = role.tile.end;
  const Index group = f.heads / f.kvHeads;

  T* const rows1 = dynamicShared<T>();
  T* const rows2 = rows1 + kMmaRows * kDim;
  T* const stages = rows2 + kMmaRows * kDim;  // (stage, 1 or 2, kCols, kDim)
  __shared__ QueryTerms innerTerms[2][kCols];

  // The inner tiles in one sequence of steps: for keys, those of all heads of the group, one head after the other.
  const int window = windowOf(f);
  const int innerBegin = kKeys ? first : keyColumns(f, role.tile).firstSeen(first, window);
  const int innerEnd = kKeys ? role.tile.queryEnd(kMmaRows, window) : min(first + kMmaRows, end);
  const int tiles = (innerEnd - innerBegin + kCols - 1) / kCols,
            steps = kKeys ? tiles * static_cast<int>(group) : tiles;
  const auto fetchInner = [&](int stage, int step) {
    const int token = innerBegin + step % tiles * kCols;
    const Index head = kKeys ? role.head * group + step / tiles : role.head / group;
    T* const tile = stages + stage * 2 * kCols * kDim;
    Tile::template fetch<kCols>(tile, HeadColumns<const T>(kKeys ? f.q : f.k, head, kDim), token, end);
    Tile::template fetch<kCols>(tile + kCols * kDim, HeadColumns<const T>(kKeys ? op.d_o : f.v, head, kDim), token,
                                end);
    if (kKeys && threadIdx.x < kCols)
      innerTerms[stage][threadIdx.x] =
          queryTerms(f.lse + head, delta + head, f.heads, token + static_cast<int>(threadIdx.x), end);
  };

  Tile::template fetch<kMmaRows>(rows1, HeadColumns<const T>(kKeys ? f.k : f.q, role.head, kDim), first, end);
  Tile::template fetch<kMmaRows>(rows2, HeadColumns<const T>(kKeys ? f.v : op.d_o, role.head, kDim), first, end);
  fetchInner(0, 0);
  ptx::commitCopies();
  const int row = first + Tile::warpRow() + Tile::lane() / 4;
  QueryTerms rowTerms[2] = {};
  if (!kKeys)
    for (int h = 0; h < 2; ++h)
      rowTerms[h] = queryTerms(f.lse + role.head, delta + role.head, f.heads, row + 8 * h, end);

  typename Tile::Sums sums1 = {}, sums2 = {};
  for (int step = 0; step < steps; ++step) {
    const int stage = step % 2;
    if (step + 1 < steps) fetchInner(stage ^ 1, step + 1);
    ptx::commitCopies();  // an empty group, behind the last tile
    ptx::waitForCopies<1>();
    __syncthreads();
    T* const tile = stages + stage * 2 * kCols * kDim;
    float p[kCols / 8][4], ds[kCols / 8][4];
    Tile::template multiply<kCols>(rows1, tile, p);
    Tile::template multiply<kCols>(rows2, tile + kCols * kDim, ds);
    softmaxPullback<kKeys, kCols>(p, ds, row, innerBegin + step % tiles * kCols, window, rowTerms, innerTerms[stage],
                                  scale * kLog2E);
    if (kKeys) Tile::template addWeighted<kCols>(p, tile + kCols * kDim, sums2);
    Tile::template addWeighted<kCols>(ds, tile, sums1);
    __syncthreads();  // the stage has been read
  }

  const float scales[2] = {scale, scale}, ones[2] = {1, 1};
  const DenseView& d1 = kKeys ? op.dk : op.dq;
  if (d1.data)
    Tile::write(sums1, scales, HeadColumns<T>(d1, role.head, kDim), first, end,
                kKeys ? op.accumulateK : op.accumulateQ);
  if (kKeys && op.dv.data) Tile::write(sums2, ones, HeadColumns<T>(op.dv, role.head, kDim), first, end, op.accumulateV);
}

}  // namespace

const char* refuseAttentionBackwardMma(const CausalAttentionBackward& op, const Context&) {
  return refuseMma(op.forward, {op.d_o, asConst(op.dq), asConst(op.dk), asConst(op.dv)});
}

void runAttentionBackwardMma(const CausalAttentionBackward& op, Context& context) {
  const CausalAttention& f = op.forward;
  const auto scale = static_cast<float>(1 / std::sqrt(static_cast<double>(f.headDim)));
  Scratch scratch(context);
  float* const delta = scratch.array<float>(f.heads * f.q.cols);
  attentionDelta(op, delta, context);
  dispatchMma(f, [&](auto tag, auto dim) {
    using T = typename decltype(tag)::type;
    constexpr int kDim = decltype(dim)::value;
    constexpr std::size_t kShared = sizeof(T) * kDim * (2 * kMmaRows + 4 * kInner<kDim>);
    const auto shape = [&](Index heads) {
      return LaunchShape{attentionGrid(f.q.cols, f.sequences, kMmaRows, heads), kMmaThreads, kShared};
    };
    if (op.dq.data)
      launch("attentionBackward.mma", attentionBackwardMmaKernel<T, kDim, false>, shape(f.heads), context, op, delta,
             scale);
    if (op.dk.data || op.dv.data)
      launch("attentionBackward.mma", attentionBackwardMmaKernel<T, kDim, true>, shape(f.kvHeads), context, op, delta,
             scale);
  });
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
