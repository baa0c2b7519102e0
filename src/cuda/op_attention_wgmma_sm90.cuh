// SPDX-License-Identifier: MPL-2.0
// Tiles of half or bfloat16 in shared memory and their products by wgmma, for attention on Hopper.
//
//   a tile        kRows tokens of one head, in strips of 64 entries (128 bytes), as one box of the copy engine:
//
//                   strip 0: token 0 │ token 1 │ … │ strip 1: token 0 │ …     swizzled, so that both ways to read it,
//                                                                             along tokens or entries, meet all banks
//   a warpgroup   64 rows of a tile. Thread 32w + 4g + c has of each 64×8 result rows 16w + g, 16w + g + 8 at columns
//                 2c, 2c + 1: s[4n + 2h + e] is row g + 8h, column 8n + 2c + e. Rounded, 16 columns are just the first
//                 factor of the next product.
#ifndef EIGENQ_CUDA_OP_ATTENTION_WGMMA_SM90_CUH
#define EIGENQ_CUDA_OP_ATTENTION_WGMMA_SM90_CUH

#include "op_attention_tiles.cuh"
#include "ptx.cuh"
#include "ptx_sm90.cuh"
#include "ptx_team_sm90.cuh"
#include "ptx_wgmma_sm90.cuh"
#include "quad_transpose.cuh"
#include "ring.cuh"
#include "tensor_map.h"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace wgmma_attention {

constexpr int kGroup = 128;       // threads of a warpgroup
constexpr int kGroupRows = 64;    // that it multiplies
constexpr int kStripBytes = 128;  // of a token

/** What all lanes have, in a way that the compiler sees it. */
__device__ __forceinline__ int uniform(int v) { return __shfl_sync(kAllLanes, v, 0); }

/** How much a block does. */
struct QueryShare {
  int heads = 1;       // of one kvHead, one after the other
  bool pairs = false;  // two tiles of queries for each, not one
};

/** A block's queries: of each of its heads one tile, or two of one sequence that see as many keys together as any other
 * two: the last with the first, the last but one with the second, … */
struct QueryUnits {
  int firstHead, query[2], tiles;
  int count;          // of units, each a tile of one head
  SequenceTile tile;  // one or two tiles long

  static __device__ __forceinline__ QueryUnits of(const CausalAttention& op, const QueryShare& share, int rows) {
    QueryUnits u;
    const BlockRole role =
        blockRole(op.offsets, op.sequences, op.heads / share.heads, share.pairs ? 2 * rows : rows, true);
    u.firstHead = uniform(static_cast<int>(role.head) * share.heads);
    u.tile = role.tile;
    u.query[0] = u.query[1] = u.tile.first;
    if (share.pairs) {
      const int all = (u.tile.end - u.tile.begin + rows - 1) / rows, pair = (u.tile.first - u.tile.begin) / (2 * rows);
      u.query[0] = u.tile.begin + (all - 1 - pair) * rows;
      u.query[1] = u.tile.begin + pair * rows;
    }
    u.tiles = uniform(u.query[0] != u.query[1] ? 2 : 1);
    u.count = u.tile ? u.tiles * share.heads : 0;
    return u;
  }
  /** One tile of keys of one kvHead. */
  static __device__ __forceinline__ QueryUnits ofKeys(const CausalAttention& op, int rows) {
    const BlockRole role = blockRole(op.offsets, op.sequences, op.kvHeads, rows, false);
    const int first = role.tile.first;
    return {uniform(static_cast<int>(role.head)), {first, first}, 1, role.tile ? 1 : 0, role.tile};
  }
  __device__ __forceinline__ int head(int unit) const { return firstHead + unit / tiles; }
  __device__ __forceinline__ int first(int unit) const { return unit % tiles == 0 ? query[0] : query[1]; }
};

/** Whether a tile of queries sees so many keys on average that a block is long enough with one. */
inline bool isLong(const CausalAttention& op) { return op.q.cols > 2048 * op.sequences; }

/** Blocks that take two tiles of several heads start seldom, and copy for the next tile beside the products of the one
 * before; but the fewer they are, the longer are multiprocessors idle at the end. Chosen by estimated microseconds, a
 * tenth off what an H200 took for 2048 to 8192 tokens in sequences of 512 to 2048.
 * \param step  the time of 128 keys against a tile of \a rows queries */
inline QueryShare shareOf(const CausalAttention& op, Index rows, double step, const Context& context) {
  constexpr double kStart = 2.5, kTile = 1.3;
  if (isLong(op)) return {};
  const Index tokens = (op.q.cols + op.sequences - 1) / op.sequences, tiles = (tokens + rows - 1) / rows;
  const Index multiprocessors = context.multiprocessors();
  const auto timeOf = [&](Index units, Index keyTiles) {
    return kStart + static_cast<double>(units) * kTile + static_cast<double>(keyTiles * rows) / 128 * step;
  };
  // Single tiles: the long ones begin, and short ones fill the gaps.
  const double all = timeOf(tiles, tiles * (tiles + 1) / 2) + static_cast<double>(tiles - 1) * kStart;
  double least = std::max(timeOf(1, tiles),
                          all * static_cast<double>(op.sequences * op.heads) / static_cast<double>(multiprocessors));
  QueryShare best;
  for (const int heads : {1, 2, 4}) {
    if (op.heads / op.kvHeads % heads != 0) break;
    const Index blocks = (tiles + 1) / 2 * op.sequences * (op.heads / heads);
    const Index rounds = (blocks + multiprocessors - 1) / multiprocessors;
    const double time = static_cast<double>(rounds) * timeOf(2 * heads, heads * (tiles + 1));
    if (time >= least) continue;
    least = time;
    best = {heads, true};
  }
  return best;
}

/** One head of a matrix at a time, in boxes of \a tokens. */
inline CUtensorMap attentionMap(const ConstDenseView& m, Index headDim, Index tokens) {
  const Index stride = m.cols > 1 ? m.colStride : m.rows;  // of one token it may be anything
  return tensorMap<3>(m.data, {kStripBytes, m.cols, m.rows / 64}, {2 * stride, kStripBytes},
                      {kStripBytes, tokens, headDim / 64}, CU_TENSOR_MAP_SWIZZLE_128B);
}

/** Tokens of one head in shared memory. */
template <int kRows_, int kDim_>
struct Tile {
  static constexpr int kRows = kRows_, kDim = kDim_;
  static constexpr int kStrip = kRows * kStripBytes, kBytes = kRows * kDim * 2;
  static_assert(kDim % 64 == 0 && kRows % 8 == 0, "whole strips, whole patterns of the swizzle");

  std::uint32_t address;

  /** Tokens token … of a head, whatever sequence they are of. \a map as attentionMap() makes it */
  __device__ __forceinline__ void copy(const CUtensorMap* map, int token, int head, std::uint32_t barrier) const {
    ptx::copyBox(address, map, 0, token, head * (kDim / 64), barrier);
  }
  /** Zeros for the rows from \a row on, by the threads that have numbers below \a threads. */
  __device__ __forceinline__ void clearFrom(int row, int thread, int threads) const {
    constexpr int kPieces = kDim / 8;  // of 16 bytes, in a row; a row of a strip has the same ones, swizzled
    for (int i = row * kPieces + thread; i < kRows * kPieces; i += threads) {
      const int r = i / kPieces, piece = i % kPieces;
      asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};" ::"r"(address + piece / 8 * kStrip + r * kStripBytes +
                                                                    piece % 8 * 16),
                   "r"(0)
                   : "memory");
    }
  }
  /** From \a row on, which is a multiple of 8. */
  __device__ __forceinline__ std::uint32_t at(int row) const { return address + row * kStripBytes; }
};

/** s = A·Bᵀ: 64 rows of A, from \a row on, against all of B. Not committed. */
template <typename T, typename A, typename B>
__device__ __forceinline__ void multiply(float (&s)[B::kRows / 2], const A& a, int row, const B& b) {
  static_assert(A::kDim == B::kDim, "rows of one length");
  const std::uint64_t first = ptx::swizzledOperand(a.at(row)), second = ptx::swizzledOperand(b.address);
#pragma unroll
  for (int k = 0; k < A::kDim / 16; ++k)
    ptx::wgmmaShared(s, first + (k / 4 * A::kStrip + k % 4 * 32) / 16, second + (k / 4 * B::kStrip + k % 4 * 32) / 16,
                     k > 0, TypeTag<T>());
}

/** Weights of 64 rows as wgmma takes them, 16 columns each. */
template <int kCols>
struct Weights {
  std::uint32_t at[kCols / 16][4];

  template <typename T>
  __device__ __forceinline__ void round(const float (&w)[kCols / 2], TypeTag<T>) {
#pragma unroll
    for (int i = 0; i < kCols / 4; ++i) at[i / 4][i % 4] = packPair<T>(w[2 * i], w[2 * i + 1]);
  }
  __device__ __forceinline__ void settle() {
#pragma unroll
    for (int k = 0; k < kCols / 16; ++k) ptx::settle(at[k]);
  }
  /** Until the product that reads them is done. */
  __device__ __forceinline__ void keep() const {
#pragma unroll
    for (int k = 0; k < kCols / 16; ++k) ptx::keep(at[k]);
  }
};

/** sums += W·B. Not committed. */
template <typename T, typename B>
__device__ __forceinline__ void addWeighted(float (&sums)[B::kDim / 2], const Weights<B::kRows>& w, const B& b) {
  const std::uint64_t second = ptx::swizzledColumns(b.address, B::kStrip);
#pragma unroll
  for (int k = 0; k < B::kRows / 16; ++k) ptx::wgmma<true>(sums, w.at[k], second + k * kStripBytes, true, TypeTag<T>());
}

/** Row g + 8h times factors[h], or that added to what is there, to the token of the head; those before \a end. */
template <typename T, int kDim>
__device__ __forceinline__ void storeRows(const float (&sums)[kDim / 2], const float (&factors)[2], const DenseView& m,
                                          int head, int first, int end, bool accumulate) {
  const int lane = static_cast<int>(threadIdx.x % kWarp), c = lane % 4;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int token = first + static_cast<int>(threadIdx.x % kGroup / kWarp) * 16 + lane / 4 + 8 * h;
    T* const column = static_cast<T*>(m.data) + token * m.colStride + Index{head} * kDim;
    const bool inside = token < end;
#pragma unroll
    for (int n = 0; n < kDim / 8; n += 4) {
      std::uint32_t words[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float v[2] = {factors[h] * sums[4 * (n + i) + 2 * h], factors[h] * sums[4 * (n + i) + 2 * h + 1]};
        if (accumulate && inside) {
          float old[2];
          load(column + 8 * (n + i) + 2 * c, old);
          v[0] += old[0], v[1] += old[1];
        }
        words[i] = packPair<T>(v[0], v[1]);
      }
      transposeQuad(words);
      if (inside) *reinterpret_cast<uint4*>(column + 8 * (n + c)) = make_uint4(words[0], words[1], words[2], words[3]);
    }
  }
}

}  // namespace wgmma_attention
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_OP_ATTENTION_WGMMA_SM90_CUH
