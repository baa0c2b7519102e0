// SPDX-License-Identifier: MPL-2.0
// Causal attention of half or bfloat16 on the tensor cores; scores, softmax and sums in float.
//
//   block = (64 queries, head), a warp 16 of them:   Q ─┐
//   for each 64 keys that they see:                  K ─┴► S = QKᵀ ► P = exp(S - running maximum) ─┐   all in registers
//                                                    V ────────────────────────────────────────────┴► O += PV
//   K and V of the next tile are on their way while this one is multiplied.
//
// Traffic  Q, O once; K and V once for each 64 queries, mostly from L2.
// Work     4·T²·headDim/2 FLOP a head and sequence of T tokens, and one exp for 2·headDim·2 of them.
// Rounding P is rounded to the scalar before it meets V, relative to the sum of the unrounded ones.
// Needs    headDim 32, 64 or 128; 16-byte aligned columns; up to 80 KiB of shared memory.
// Source: Dao, FlashAttention-2, arXiv:2307.08691.
#include "op_attention.h"
#include "op_attention_mma.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

constexpr int kKeys = 64;

/** The softmax of rows g and g + 8 so far: the weights are relative to exp(scale·top). */
struct RunningSoftmax {
  float top[2] = {kNegativeInfinity, kNegativeInfinity};
  float total[2] = {0, 0};  // of this lane's columns
  float rescale[2];         // of what was summed before the last update

  /** Turns scores into weights, those of hidden keys into 0. The first tile begins with the first key that the block's
   * first row sees and is as long as there are rows, so that every row of the sequence sees a key of it and top is
   * finite from then on. \param own  the key of row g \param end  of the sequence's keys \param exponentScale
   * scale·log₂e */
  __device__ __forceinline__ void update(float (&s)[kKeys / 8][4], int own, int firstKey, int end, int window,
                                         float exponentScale) {
    const int column = static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float most = top[h];
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int key = firstKey + 8 * n + column + e;
          float& score = s[n][2 * h + e];
          if (key >= end || !isVisible(own + 8 * h - key, window)) score = kNegativeInfinity;
          most = fmaxf(most, score);
        }
      most = quadReduce(most, Maximum());
      const float shift = exponentScale * most;
      rescale[h] = exp2f(fmaf(exponentScale, top[h], -shift));
      top[h] = most;
      total[h] *= rescale[h];
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& weight = s[n][2 * h + e];
          weight = exp2f(fmaf(exponentScale, weight, -shift));
          total[h] += weight;
        }
    }
  }
};

template <typename T, int kDim>
__global__ void __launch_bounds__(kMmaThreads) attentionMmaKernel(const CausalAttention op, float scale) {
  using Tile = MmaTile<T, kDim>;
  const BlockRole role = blockRole(op.offsets, op.sequences, op.heads, kMmaRows, true);
  if (!role.tile) return;
  const int first = role.tile.first, end = role.tile.end;
  const KeyColumns keys = keyColumns(op, role.tile);
  const int window = windowOf(op), keyEnd = end + keys.shift;
  const Index kvHead = role.head / (op.heads / op.kvHeads);
  const HeadColumns<const T> k(op.k, kvHead, kDim), v(op.v, kvHead, kDim);
  T* const q = dynamicShared<T>();
  T* const stages = q + kMmaRows * kDim;  // (stage, K or V, kKeys, kDim)
  const auto fetchKeys = [&](int stage, int key) {
    T* const tile = stages + stage * 2 * kKeys * kDim;
    Tile::template fetch<kKeys>(tile, k, key, keyEnd);
    Tile::template fetch<kKeys>(tile + kKeys * kDim, v, key, keyEnd);
  };

  const int firstKey = keys.firstSeen(first, window);
  const int lastKey = keys.known ? min(first + kMmaRows, end) - 1 + keys.shift : -1;  // nothing to see: 0/0
  if (keys.known) {
    Tile::template fetch<kMmaRows>(q, HeadColumns<const T>(op.q, role.head, kDim), first, end);
    fetchKeys(0, firstKey);
  }
  ptx::commitCopies();
  RunningSoftmax softmax;
  typename Tile::Sums sums = {};
  const int row = first + Tile::warpRow() + Tile::lane() / 4;
  int stage = 0;
  for (int key = firstKey; key <= lastKey; key += kKeys, stage ^= 1) {
    if (key + kKeys <= lastKey) fetchKeys(stage ^ 1, key + kKeys);
    ptx::commitCopies();  // an empty group, behind the last tile
    ptx::waitForCopies<1>();
    __syncthreads();
    T* const tile = stages + stage * 2 * kKeys * kDim;
    float s[kKeys / 8][4];
    Tile::template multiply<kKeys>(q, tile, s);
    softmax.update(s, row + keys.shift, key, keyEnd, window, scale * kLog2E);
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[n][i] *= softmax.rescale[i / 2];
    Tile::template addWeighted<kKeys>(s, tile + kKeys * kDim, sums);
    __syncthreads();  // the stage has been read
  }

  float factors[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const float total = quadReduce(softmax.total[h], Plus());
    factors[h] = 1.0f / total;
    if (op.lse && row + 8 * h < end && Tile::lane() % 4 == 0)
      op.lse[(row + 8 * h) * op.heads + role.head] = fmaf(scale, softmax.top[h], logf(total));
  }
  Tile::write(sums, factors, HeadColumns<T>(op.o, role.head, kDim), first, end, false);
}

}  // namespace

const char* refuseMma(const CausalAttention& op, std::initializer_list<ConstDenseView> more) {
  if (op.q.scalar == ScalarType::kFloat) return "float operands: tensor cores would round them";
  if (op.headDim != 32 && op.headDim != 64 && op.headDim != 128) return "headDim is not 32, 64 or 128";
  const auto aligned = [](const ConstDenseView& m) {
    return !m.data || (reinterpret_cast<std::uintptr_t>(m.data) % 16 == 0 && (m.cols <= 1 || m.colStride % 8 == 0));
  };
  const char* const reason = "columns are not 16-byte aligned";
  for (const ConstDenseView& m : {op.q, op.k, op.v, asConst(op.o)})
    if (!aligned(m)) return reason;
  for (const ConstDenseView& m : more)
    if (!aligned(m)) return reason;
  return nullptr;
}

const char* refuseAttentionMma(const CausalAttention& op, const Context&) { return refuseMma(op, {}); }

void runAttentionMma(const CausalAttention& op, Context& context) {
  const auto scale = static_cast<float>(1 / std::sqrt(static_cast<double>(op.headDim)));
  dispatchMma(op, [&](auto tag, auto dim) {
    using T = typename decltype(tag)::type;
    constexpr int kDim = decltype(dim)::value;
    constexpr std::size_t kShared = sizeof(T) * kDim * (kMmaRows + 4 * kKeys);
    launch("attention.mma", attentionMmaKernel<T, kDim>,
           {attentionGrid(op.q.cols, op.sequences, kMmaRows, op.heads), kMmaThreads, kShared}, context, op, scale);
  });
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
