// SPDX-License-Identifier: MPL-2.0
// How packed sequences are cut into tiles, one for each block, when only the device knows their lengths.
//
//   tokens   │ sequence 0      │ s 1 │ sequence 2 │        a tile never spans two sequences; the host launches the most
//   tiles    │ 0   │ 1   │ 2 │ 3   │ 4    │ 5    │        there can be, and those beyond the last find nothing to do
#ifndef EIGENQ_CUDA_OP_ATTENTION_TILES_CUH
#define EIGENQ_CUDA_OP_ATTENTION_TILES_CUH

#include <eigen_q/src/gpu/OpKernels.h>

#include "op_blockwise.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {

constexpr float kLog2E = 1.44269504088896340736f;

struct Maximum {
  __device__ __forceinline__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

/** Combines the four lanes that share a row of what tensor cores compute. */
template <typename Op>
__device__ __forceinline__ float quadReduce(float v, Op op) {
  v = op(v, shuffleXor(v, 1));
  return op(v, shuffleXor(v, 2));
}

/** Tokens first … of the sequence begin … end - 1. No tile: first == end. */
struct SequenceTile {
  int begin;
  int end;
  int first;
  Index sequence;

  __device__ __forceinline__ explicit operator bool() const { return first < end; }
  /** Behind the last query that sees any of the tile's \a size tokens as keys. */
  __device__ __forceinline__ int queryEnd(int size, int window) const {
    return end - first - size < window ? end : first + size - 1 + window;
  }
};

/** Most tiles that \a tokens in \a sequences can make. */
inline Index mostTiles(Index tokens, Index sequences, Index tileSize) {
  return std::min(tokens, (tokens + sequences * (tileSize - 1)) / tileSize);
}

__device__ __forceinline__ int warpSum(int v) {
#if __CUDA_ARCH__ >= 800
  return __reduce_add_sync(kAllLanes, v);
#else
#pragma unroll
  for (unsigned mask = kWarp / 2; mask > 0; mask /= 2) v += __shfl_xor_sync(kAllLanes, v, mask);
  return v;
#endif
}

/** The \a tile-th tile. Whole warps; each finds it for itself, 32 sequences at a time. */
__device__ __forceinline__ SequenceTile findTile(const std::int32_t* offsets, Index sequences, Index tile,
                                                 int tileSize) {
  const unsigned lane = threadIdx.x % kWarp;
  for (Index s = lane; s - lane < sequences; s += kWarp) {
    const int begin = s < sequences ? offsets[s] : 0, end = s < sequences ? offsets[s + 1] : 0;
    const int tiles = (end - begin + tileSize - 1) / tileSize;
    int upTo = tiles;  // those of this sequence and of the lanes before
#pragma unroll
    for (unsigned distance = 1; distance < kWarp; distance *= 2) {
      const int before = __shfl_up_sync(kAllLanes, upTo, distance);
      if (lane >= distance) upTo += before;
    }
    const unsigned owners = __ballot_sync(kAllLanes, tile < upTo);
    if (owners != 0) {
      const int owner = __ffs(static_cast<int>(owners)) - 1;
      const int ownBegin = __shfl_sync(kAllLanes, begin, owner), ownEnd = __shfl_sync(kAllLanes, end, owner);
      const int before = __shfl_sync(kAllLanes, upTo - tiles, owner);
      return {ownBegin, ownEnd, ownBegin + (static_cast<int>(tile) - before) * tileSize, s - lane + owner};
    }
    tile -= __shfl_sync(kAllLanes, upTo, kWarp - 1);
  }
  return {0, 0, 0, 0};
}

/** The same with the tiles of up to 32 sequences in the order of their work, the most first: a sequence of n tiles has
 * one of each work from 1 to n, its last of n if \a lateFirst, else its first. H200, dK and dV of 4×1024 tokens and 8
 * kvHeads by attentionBackward.wgmma: 132 us; sequence by sequence 200. */
__device__ __forceinline__ SequenceTile findTileByWork(const std::int32_t* offsets, Index sequences, int tile,
                                                       int tileSize, bool lateFirst) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const int begin = lane < sequences ? offsets[lane] : 0, end = lane < sequences ? offsets[lane + 1] : 0;
  const int tiles = (end - begin + tileSize - 1) / tileSize;
  const auto countFrom = [&](int work) { return warpSum(max(0, tiles - work + 1)); };
  int least = 0, most = countFrom(1);  // of the tile's work: the largest that is reached by more than `tile` tiles
  if (tile >= most) return {0, 0, 0, 0};
  while (least < most) {
    const int middle = least + (most - least + 1) / 2;
    if (countFrom(middle) > tile) {
      least = middle;
    } else {
      most = middle - 1;
    }
  }
  const int work = least, number = tile - countFrom(work + 1);  // among those of that work
  const unsigned reaching = __ballot_sync(kAllLanes, tiles >= work);
  const bool mine = tiles >= work && __popc(reaching & ((1u << lane) - 1)) == number;
  const int owner = __ffs(static_cast<int>(__ballot_sync(kAllLanes, mine))) - 1;
  const int ownBegin = __shfl_sync(kAllLanes, begin, owner), ownEnd = __shfl_sync(kAllLanes, end, owner);
  const int index = lateFirst ? work - 1 : __shfl_sync(kAllLanes, tiles, owner) - work;
  return {ownBegin, ownEnd, ownBegin + index * tileSize, owner};
}

/** The head and the tile of a block. Late tiles see the most keys, or as keys the fewest queries: those with the most
 * work come first, so that the last blocks to run are short. */
struct BlockRole {
  Index head;
  SequenceTile tile;
};
__device__ __forceinline__ BlockRole blockRole(const std::int32_t* offsets, Index sequences, Index heads, int tileSize,
                                               bool lateFirst) {
  const Index tiles = Index{gridDim.x} / heads, t = Index{blockIdx.x} / heads, head = Index{blockIdx.x} % heads;
  if (sequences <= Index{kWarp})
    return {head, findTileByWork(offsets, sequences, static_cast<int>(t), tileSize, lateFirst)};
  return {head, findTile(offsets, sequences, lateFirst ? tiles - 1 - t : t, tileSize)};
}

/** How many keys a query sees at most, its own included. */
__device__ __forceinline__ int windowOf(const CausalAttention& op) {
  constexpr int kAll = std::numeric_limits<int>::max();
  return op.window > 0 && op.window < kAll ? static_cast<int>(op.window) : kAll;
}

/** Whether a query sees a key at \a distance before it; negative distances lie ahead. */
__device__ __forceinline__ bool isVisible(int distance, int window) {
  return static_cast<unsigned>(distance) < static_cast<unsigned>(window);
}

/** Where the keys of a tile's queries are: the own key of token t is column t + shift of k and v. */
struct KeyColumns {
  int begin;  // of the sequence
  int shift;
  bool known;  // whether they all lie in the cache

  /** The first key that a query sees, given its token. */
  __device__ __forceinline__ int firstSeen(int token, int window) const {
    return max(begin, token + shift - window + 1);
  }
};
__device__ __forceinline__ KeyColumns keyColumns(const CausalAttention& op, const SequenceTile& tile) {
  if (!op.positions) return {tile.begin, 0, true};
  const Index position = op.positions[tile.begin], begin = tile.sequence * op.capacity;
  const bool known = position >= 0 && position + (tile.end - tile.begin) <= op.capacity;
  return {static_cast<int>(begin), known ? static_cast<int>(begin + position - tile.begin) : 0, known};
}

inline dim3 attentionGrid(Index tokens, Index sequences, Index tileSize, Index heads) {
  const Index blocks = mostTiles(tokens, sequences, tileSize) * heads;
  if (blocks > std::numeric_limits<std::int32_t>::max())
    throw std::invalid_argument("causalAttention: expected fewer than 2^31 blocks of tokens and heads");
  return dim3(static_cast<unsigned>(blocks));
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_OP_ATTENTION_TILES_CUH
