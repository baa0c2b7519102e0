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

/** The head and the tile of a block. Late tiles see the most keys, or as keys the fewest queries: those with the most
 * work come first, so that the last blocks to run are short. */
struct BlockRole {
  Index head;
  SequenceTile tile;
};
__device__ __forceinline__ BlockRole blockRole(const std::int32_t* offsets, Index sequences, Index heads, int tileSize,
                                               bool lateFirst) {
  const Index tiles = Index{gridDim.x} / heads, t = Index{blockIdx.x} / heads;
  return {Index{blockIdx.x} % heads, findTile(offsets, sequences, lateFirst ? tiles - 1 - t : t, tileSize)};
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
