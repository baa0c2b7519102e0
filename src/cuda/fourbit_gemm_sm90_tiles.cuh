// SPDX-License-Identifier: MPL-2.0
// fourbit_gemm_sm90_tiles.cuh: how fourbit_gemm_sm90.cuh cuts a product into tiles of teams, and shared memory into
// stages.
//
//   shared memory   │ 4 × [ X: 256 tokens │ weights: 128 lines ] │ 2 × 2 × 32 tokens of Y │ barriers │
//   a line          128 bytes: 64 k of a token or of a row of W, or 64 columns of a row of W; swizzled
#ifndef EIGENQ_CUDA_FOURBIT_GEMM_SM90_TILES_CUH
#define EIGENQ_CUDA_FOURBIT_GEMM_SM90_TILES_CUH

#include "wgmma_decode_sm90_finish.cuh"
#include "ptx_sm90.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace fourbit_gemm {

using wgmma_decode::kGroup;
using wgmma_decode::kGroupRows;

constexpr int kDeep = 64;      // k of a step: lines of 128 bytes
constexpr int kCluster = 2;    // blocks that share X's tokens, each with rows (or columns) of W of its own
constexpr int kConsumers = 2;  // warpgroups of a block that multiply
constexpr int kBlockRows = kConsumers * kGroupRows, kTileRows = kCluster * kBlockRows;
constexpr int kTileTokens = 256, kSums = kTileTokens / 2;
constexpr int kThreads = (kConsumers + 1) * kGroup;
constexpr int kDecodingWarps = 2;
constexpr int kStages = 4;
constexpr int kXBytes = kTileTokens * 128, kWBytes = kBlockRows * 128, kStageBytes = kXBytes + kWBytes;
constexpr int kMostMembers = 8;  // clusters of a team: where each decodes every eighth step, it keeps up
constexpr int kRing = 32;        // steps of decoded weights that a team has in memory
constexpr int kStoreTokens = 32, kStoreBytes = kStoreTokens * 128, kStores = 2;  // of a warpgroup
constexpr int kStoreStart = kStages * kStageBytes;
constexpr int kBarrierStart = kStoreStart + kConsumers * kStores * kStoreBytes;
constexpr int kSharedBytes = kBarrierStart + 8 * 2 * kStages;

/** Of a block's place in its team, the same one of each cluster: per slot of the ring, how often warps have written and
 * blocks have read it. */
struct Counters {
  unsigned written[kRing], read[kRing];
};

struct Problem {
  wgmma_decode::Output out;
  bool boxes;  // the copy engine stores Y: it has alpha, bias of columns, bounds and residual at most
  bool plain;  // the epilogue is none
  const float* codeTable;
  const std::uint8_t* codes;
  Index codeStride;     // bytes from one row of W to the next
  const float* absmax;  // of blocks of 64
  Index absmaxStride;   // from one row of W to the next
  int rows, cols;       // of W
  int steps;
  int rowTiles, tiles;  // tiles of a team: kTileRows by members * kTileTokens
  int teams, members;   // clusters of a team
  uint4* weights;       // (team, slot, block of a cluster, line)
  Counters* counters;   // (team, block of a cluster), zeros
};

/** Where things lie in the shared window. */
struct Memory {
  std::uint32_t start;
  __device__ __forceinline__ explicit Memory(const void* memory) : start(ptx::sharedAddress(memory)) {
    if (start % 1024 != 0) __trap();
  }
  __device__ __forceinline__ std::uint32_t x(int slot) const { return start + slot * kStageBytes; }
  __device__ __forceinline__ std::uint32_t w(int slot) const { return x(slot) + kXBytes; }
  __device__ __forceinline__ std::uint32_t store(int group, int i) const {
    return start + kStoreStart + (group * kStores + i) * kStoreBytes;
  }
  __device__ __forceinline__ std::uint32_t full(int slot) const { return start + kBarrierStart + 16 * slot; }
  __device__ __forceinline__ std::uint32_t empty(int slot) const { return full(slot) + 8; }
};

/** Goes round the stages. */
struct Slot {
  int index = 0;
  std::uint32_t parity = 0;
  __device__ __forceinline__ void advance() {
    if (++index == kStages) {
      index = 0;
      parity ^= 1;
    }
  }
};

/** A block's place. */
struct Place {
  int team, member, rank;
  __device__ __forceinline__ explicit Place(const Problem& p) {
    const int cluster = static_cast<int>(blockIdx.x) / kCluster;
    team = cluster / p.members;
    member = cluster % p.members;
    rank = static_cast<int>(blockIdx.x) % kCluster;
  }
  __device__ __forceinline__ Counters& counters(const Problem& p) const { return p.counters[team * kCluster + rank]; }
  /** The block's weights of a step, counted through the team's tiles. */
  __device__ __forceinline__ uint4* weights(const Problem& p, int n) const {
    return p.weights + ((Index{team} * kRing + n % kRing) * kCluster + rank) * (kWBytes / 16);
  }
  /** The first row (or column) of W that the block has in a tile, and the first token. */
  __device__ __forceinline__ int row(const Problem& p, int tile) const {
    return tile % p.rowTiles * kTileRows + rank * kBlockRows;
  }
  __device__ __forceinline__ int token(const Problem& p, int tile) const {
    return (tile / p.rowTiles * p.members + member) * kTileTokens;
  }
};

/** Steps of a team's tiles. */
__device__ __forceinline__ int stepsOf(const Problem& p, int team) {
  return (p.tiles - team + p.teams - 1) / p.teams * p.steps;
}

}  // namespace fourbit_gemm
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_FOURBIT_GEMM_SM90_TILES_CUH
