// SPDX-License-Identifier: MPL-2.0
// Causal attention in float, for any scalar type and head dimension; no matrix of scores in memory.
//
//   block = (tile of queries, head)        Q  kTile×kDim ─┐
//   for each tile of keys that they see:   K  kTile×kDim ─┴► S = QKᵀ ► P = exp(S - running maximum) ─┐
//                                          V  kTile×kDim, in K's place ──────────────────────────────┴► O += PV
//
// Traffic  Q, O once; K and V once for each tile of queries, mostly from L2. Work: 4·T²·headDim/2 FLOP a head and
//          sequence of T tokens. Shared memory feeds 16 fmaf from 12 wavefronts of reads, so FMA units are the limit.
// Needs    up to 86 KiB of shared memory, which every architecture from sm_80 on has.
// Source: Dao, FlashAttention-2, arXiv:2307.08691.
#include "op_attention.h"
#include "op_attention_float.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

struct Maximum {
  __device__ __forceinline__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

/** The softmax of a row so far: the values it has are relative to top. */
template <typename Tile>
struct RunningSoftmax {
  float top[Tile::kRows];
  float total[Tile::kRows];
  float rescale[Tile::kRows];  // of what was summed before the last update

  __device__ __forceinline__ RunningSoftmax() {
#pragma unroll
    for (int r = 0; r < Tile::kRows; ++r) top[r] = kNegativeInfinity, total[r] = 0;
  }

  /** Turns scores into weights, those of hidden keys into 0. The first tile begins with the first key that the first
   * row sees and is as long as there are rows, so that every row of the sequence sees a key of it and top is finite
   * from then on. \param own  the key of the first row \param end  of the sequence's keys */
  __device__ __forceinline__ void update(typename Tile::Scores& s, int own, int firstKey, int end, int window) {
#pragma unroll
    for (int r = 0; r < Tile::kRows; ++r) {
      const int last = own + Tile::ty() + 16 * r;
      float most = top[r];
#pragma unroll
      for (int c = 0; c < Tile::kRows; ++c) {
        const int key = firstKey + Tile::tx() + 16 * c;
        if (key >= end || !isVisible(last - key, window)) s[r][c] = kNegativeInfinity;
        most = fmaxf(most, s[r][c]);
      }
      most = rowReduce(most, Maximum());
      float sum = 0;
#pragma unroll
      for (int c = 0; c < Tile::kRows; ++c) sum += s[r][c] = expf(s[r][c] - most);
      rescale[r] = expf(top[r] - most);
      total[r] = fmaf(total[r], rescale[r], rowReduce(sum, Plus()));
      top[r] = most;
    }
  }
};

template <int kDim, int kTile>
__global__ void __launch_bounds__(256) attentionFloatKernel(const CausalAttention op, float scale) {
  using Tile = FloatTile<kDim, kTile>;
  const BlockRole role = blockRole(op.offsets, op.sequences, op.heads, kTile, true);
  if (!role.tile) return;
  const int first = role.tile.first, end = role.tile.end, headDim = static_cast<int>(op.headDim);
  const KeyColumns keys = keyColumns(op, role.tile);
  const int window = windowOf(op), keyEnd = end + keys.shift;
  const Index kvHead = role.head / (op.heads / op.kvHeads);
  const HeadView<const void> k(op.k, kvHead, headDim), v(op.v, kvHead, headDim);
  float* const q = dynamicShared<float>();
  float* const kv = q + Tile::kFloats;
  float* const weights = kv + Tile::kFloats;

  Tile::fill(q, HeadView<const void>(op.q, role.head, headDim), first, end, headDim, scale);
  RunningSoftmax<Tile> softmax;
  typename Tile::Sums sums = {};
  const int lastKey = keys.known ? min(first + kTile, end) - 1 + keys.shift : -1;  // nothing to see: 0/0
  for (int key = keys.firstSeen(first, window); key <= lastKey; key += kTile) {
    __syncthreads();  // V of the tile before has been read
    Tile::fill(kv, k, key, keyEnd, headDim, 1);
    __syncthreads();
    typename Tile::Scores s;
    Tile::multiply(q, kv, s);
    softmax.update(s, first + keys.shift, key, keyEnd, window);
    Tile::putWeights(s, weights);
    __syncthreads();  // K has been read
    Tile::fill(kv, v, key, keyEnd, headDim, 1);
    __syncthreads();
#pragma unroll
    for (int r = 0; r < Tile::kRows; ++r)
#pragma unroll
      for (int j = 0; j < Tile::kGroups; ++j)
#pragma unroll
        for (int n = 0; n < Tile::kVec; ++n) sums[r][j][n] *= softmax.rescale[r];
    Tile::addWeighted(weights, kv, sums);
  }

  float factors[Tile::kRows];
#pragma unroll
  for (int r = 0; r < Tile::kRows; ++r) {
    factors[r] = 1.0f / softmax.total[r];
    const int query = first + Tile::ty() + 16 * r;
    if (op.lse && query < end && Tile::tx() == 0)
      op.lse[query * op.heads + role.head] = softmax.top[r] + logf(softmax.total[r]);
  }
  Tile::write(sums, factors, HeadView<void>(op.o, role.head, headDim), first, end, headDim, false);
}

}  // namespace

void runAttentionFloat(const CausalAttention& op, Context& context) {
  const auto scale = static_cast<float>(1 / std::sqrt(static_cast<double>(op.headDim)));
  dispatchHeadDim(op.headDim, [&](auto dim) {
    constexpr int kDim = decltype(dim)::value, kTile = kDim <= 128 ? 64 : 32;
    using Tile = FloatTile<kDim, kTile>;
    constexpr std::size_t kShared = sizeof(float) * (2 * Tile::kFloats + Tile::kWeightFloats);
    static_assert(kShared <= 99 * 1024, "sm_86 and sm_89 have 99 KiB a block");
    launch("attention.float", attentionFloatKernel<kDim, kTile>,
           {attentionGrid(op.q.cols, op.sequences, kTile, op.heads), Tile::kThreads, kShared}, context, op, scale);
  });
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
