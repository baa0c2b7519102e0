// SPDX-License-Identifier: MPL-2.0
// wgmma_decode_sm90_tiles.cuh: how a product is cut into tiles, tiles into units of work, and shared memory into
// stages.
//
//   shared memory   │ X: stages of 1, 2 or 4 steps │ codes, absmax │ 64 KiB: 256 × [ pair table │ barriers ] │ codes │
//   of int8         │ X: stages of 1 or 2 steps │ codes │ barriers │
//
//   work    tile 0 │ tile 1 │ …        whole tiles in rounds, one a block …
//           t │ t │ t │ t+1 │ t+1      … and what is left by equal shares of K, whose sums a second kernel adds;
//           t t t │ t+1 t+1 t+1 │ …    or tiles in rounds, one a cluster, whose blocks share K and add up the sums
#ifndef EIGENQ_CUDA_WGMMA_DECODE_SM90_TILES_CUH
#define EIGENQ_CUDA_WGMMA_DECODE_SM90_TILES_CUH

#include "fourbit_operands.h"
#include "fourbit_pair_table.cuh"
#include "wgmma_decode_sm90_weights.cuh"
#include "wgmma_decode_sm90_finish.cuh"
#include "ptx_sm90.cuh"
#include "ring.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace wgmma_decode {

// Some is left for small blocks of other kernels, and up to 128 tokens registers too: those that pack X or add parts
// wait beside a block of this one for their turn.
constexpr int kSharedBytes = kHopperSharedBytes - (4 << 10);

/** What Memory divides. The table begins at a multiple of its size; beside it are 32 KiB behind and 127 KiB before, as
 * a block's shared memory begins at 1 KiB. Barriers lie in the halves of the table's entries that are free. */
template <bool kHasTable>
struct Layout {
  static constexpr int kBehindBytes = 32 << 10, kTableBytes = fourbit::kTableBytes;
  static constexpr int kBarrierOffset = fourbit::kFreeOffset, kBarrierStride = fourbit::kEntryBytes;
};
template <>
struct Layout<false> {
  static constexpr int kBehindBytes = 0, kTableBytes = 1 << 10;
  static constexpr int kBarrierOffset = 0, kBarrierStride = 8;
};

EIGENQ_HOST_DEVICE constexpr int leastOf(int a, int b) { return a < b ? a : b; }

/** \tparam Weights_  FourBit or Int8; \tparam kTokens_  rows of X of a tile; \tparam kGroups_  warpgroups that
 * multiply, 64 rows of W each */
template <typename Weights_, int kTokens_, int kGroups_>
struct Tiling : Layout<Weights_::kHasTable> {
  using Weights = Weights_;
  using Layout = wgmma_decode::Layout<Weights::kHasTable>;
  static constexpr int kTokens = kTokens_, kGroups = kGroups_;
  static_assert(kGroups == 2 || kGroups == 4, "registers are shared out for these");
  static constexpr int kRows = kGroups * kGroupRows, kThreads = (kGroups + 1) * kGroup;
  static constexpr int kSums = kTokens / 2;  // of a thread
  static constexpr int kCodeBytes = kRows * kLine, kScaleBytes = kRows * Weights::kScaleBytes;
  static constexpr int kCodeStageBytes = kCodeBytes + kScaleBytes;
  static constexpr int kXStepBytes = kTokens * 128;
  static constexpr int kXSteps = Weights::stepsOfX(kTokens);  // of a stage of X
  static constexpr int kXStageBytes = kXSteps * kXStepBytes;
  static constexpr int kFrontBytes = kSharedBytes - Layout::kBehindBytes - Layout::kTableBytes;
  static constexpr int kBehind = Layout::kBehindBytes / kCodeBytes;
  static constexpr int kBefore = Weights::stagesBefore(kTokens, kGroups);
  static constexpr int kCodeStages = kBehind + kBefore;
  static constexpr int kBeforeBytes = kBefore * kCodeBytes + kCodeStages * kScaleBytes;
  static constexpr int kXStages = leastOf(8, (kFrontBytes - kBeforeBytes) / kXStageBytes);
  // Registers of a thread: at the start those of an equal share, then the copying warps give theirs away.
  static constexpr bool kManySums = kTokens * (Weights::kScalesSums ? 2 : 1) > 128;
  static constexpr int kRegisters = kGroups == 4 ? 96 : kManySums ? 168 : 144;
  static constexpr int kGivenRegisters = kManySums ? 40 : 32;
  static constexpr int kTakenRegisters = kGroups == 4 ? 112 : kManySums ? 232 : 200;
  static_assert(kGivenRegisters + kGroups * kTakenRegisters == (kGroups + 1) * kRegisters, "more than there are");
  static_assert(kXStages >= 2 && kCodeStages >= 2 && kCodeStages <= 8,
                "too few stages, or more than there are barriers for");
};

/** Where whole tiles end and shares of K begin. */
struct Schedule {
  int blocks = 0;
  int tiles = 0;
  int chunks = 0;   // of K
  int cluster = 1;  // blocks that share K of each tile of the rounds
  int clusters = 0;
  int chunksOfBlock = 0, longer = 0;  // of a tile of the rounds; so many blocks have a chunk more
  int rounds = 0;                     // of whole tiles, one a cluster in each
  int sharing = 0;  // blocks that share the tiles behind those, at least as many as there are; 0: nothing is left

  /** The first chunk of a block's share of a cluster's tile. */
  EIGENQ_HOST_DEVICE int firstOf(int share) const { return share * chunksOfBlock + leastOf(share, longer); }
  /** Behind rounds of clusters of one. */
  EIGENQ_HOST_DEVICE int shared() const { return tiles - rounds * blocks; }
  /** The first chunk of a block's share, counted through the tiles that are shared. */
  EIGENQ_HOST_DEVICE int shareOf(int block) const { return shared() * chunks * block / sharing; }
  /** The last block whose share begins at or before \a chunk. */
  EIGENQ_HOST_DEVICE int ownerOf(int chunk) const {
    const int all = shared() * chunks;
    return ((chunk + 1) * sharing + all - 1) / all - 1;
  }
};

struct Problem {
  Output out;
  const float* codeTable = nullptr;  // of 4-bit weights
  const float* rowAbsmax = nullptr;  // of int8 weights
  const void* x = nullptr;           // as wgmma_decode_pack.cu leaves it
  Schedule schedule;
  int rowTiles = 0;    // of W's rows
  int tokenTiles = 0;  // of X's
};

/** Where things lie in the shared window. */
template <typename Tiles>
struct Memory {
  std::uint32_t front, table;

  __device__ __forceinline__ explicit Memory(const void* memory)
      : front(ptx::sharedAddress(memory)), table(front + Tiles::kFrontBytes) {
    if (front % 1024 != 0 || table % Tiles::kTableBytes != 0) __trap();
  }
  __device__ __forceinline__ std::uint32_t x(int slot) const { return front + slot * Tiles::kXStageBytes; }
  __device__ __forceinline__ std::uint32_t codes(int slot) const {
    return slot < Tiles::kBehind ? table + Tiles::kTableBytes + slot * Tiles::kCodeBytes
                                 : behindX() + (slot - Tiles::kBehind) * Tiles::kCodeBytes;
  }
  __device__ __forceinline__ std::uint32_t scales(int slot) const {
    return behindX() + Tiles::kBefore * Tiles::kCodeBytes + slot * Tiles::kScaleBytes;
  }
  __device__ __forceinline__ std::uint32_t codesFull(int slot) const { return barrier(2 * slot); }
  __device__ __forceinline__ std::uint32_t codesEmpty(int slot) const { return barrier(2 * slot + 1); }
  __device__ __forceinline__ std::uint32_t xFull(int slot) const { return barrier(16 + 2 * slot); }
  __device__ __forceinline__ std::uint32_t xEmpty(int slot) const { return barrier(17 + 2 * slot); }
  // Of the exchange in a cluster: all blocks may be written to; this one has been written to, and has read that.
  __device__ __forceinline__ std::uint32_t ready() const { return barrier(32); }
  __device__ __forceinline__ std::uint32_t received() const { return barrier(33); }
  __device__ __forceinline__ std::uint32_t drained() const { return barrier(34); }

 private:
  __device__ __forceinline__ std::uint32_t behindX() const { return front + Tiles::kXStages * Tiles::kXStageBytes; }
  __device__ __forceinline__ std::uint32_t barrier(int i) const {
    return table + Tiles::kBarrierOffset + i * Tiles::kBarrierStride;
  }
};

/** What a block computes at a time. */
struct Unit {
  int rowTile, tokenTile, firstChunk, lastChunk;
  int share;  // of the cluster's, in ascending order of k
  int part;   // where its sums go; kWhole: the cluster's are a whole tile
  static constexpr int kWhole = -1;
};

/** Tiles that share rows of W follow one another, four of them, so that X stays in the second-level cache. */
__device__ __forceinline__ void placeTile(const Problem& p, int tile, int& rowTile, int& tokenTile) {
  if (p.tokenTiles == 1) {  // without divisions, for which the first copies would wait
    rowTile = tile;
    tokenTile = 0;
    return;
  }
  constexpr int kBand = 4;
  const int band = tile / (kBand * p.rowTiles), within = tile - band * kBand * p.rowTiles;
  const int left = p.tokenTiles - band * kBand, width = left < kBand ? left : kBand;
  tokenTile = band * kBand + within % width;
  rowTile = within / width;
}

/** A block's units, one after another. */
class Units {
 public:
  __device__ __forceinline__ explicit Units(const Problem& p) : m_p(p), m_share(ptx::clusterRank()) {
    const Schedule& s = p.schedule;
    const int block = static_cast<int>(blockIdx.x);
    if (block >= s.sharing) return;
    m_at = s.shareOf(block);
    m_end = s.shareOf(block + 1);
  }

  __device__ __forceinline__ bool next(Unit& unit) {
    const Schedule& s = m_p.schedule;
    const int tile = m_round * s.clusters + ptx::clusterNumber();
    unit.share = m_share;
    if (++m_share == s.cluster) m_share = 0;  // as some are longer
    if (m_round++ < s.rounds && tile < s.tiles) {
      placeTile(m_p, tile, unit.rowTile, unit.tokenTile);
      unit.firstChunk = s.firstOf(unit.share);
      unit.lastChunk = s.firstOf(unit.share + 1);
      unit.part = Unit::kWhole;
      return true;
    }
    return nextShare(unit);
  }

 private:
  /** A share is no longer than a tile: it touches two at most. */
  __device__ __forceinline__ bool nextShare(Unit& unit) {
    if (m_at == m_end) return false;
    const Schedule& s = m_p.schedule;
    const int tile = m_at / s.chunks, begin = tile * s.chunks;
    placeTile(m_p, s.rounds * s.blocks + tile, unit.rowTile, unit.tokenTile);
    unit.firstChunk = m_at - begin;
    unit.lastChunk = m_end - begin < s.chunks ? m_end - begin : s.chunks;
    unit.part = 2 * static_cast<int>(blockIdx.x) + m_parts++;
    m_at = begin + unit.lastChunk;
    return true;
  }

  const Problem& m_p;
  int m_share;  // of the cluster's next tile
  int m_round = 0, m_parts = 0, m_at = 0, m_end = 0;
};

/** Adds the parts of the tiles that were shared, in ascending order: a block for each tile (x), 64 rows (y) and 16
 * tokens (z). */
template <typename T, typename Tiles>
__global__ void __launch_bounds__(kGroup) addParts(const __grid_constant__ Problem p) {
  constexpr int kAtOnce = 4;  // parts whose loads are under way together
  const Schedule& s = p.schedule;
  const int begin = static_cast<int>(blockIdx.x) * s.chunks;
  const int first = s.ownerOf(begin), parts = s.ownerOf(begin + s.chunks - 1) - first + 1;
  const bool second = s.shareOf(first) < begin;  // the first one's first part is of the tile before
  float sums[kPartSums] = {};
  ptx::allowNextKernel();
  ptx::waitForLastKernel();
  for (int i = 0; i < parts; i += kAtOnce) {
    float more[kAtOnce][kPartSums] = {};
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      const int part = 2 * (first + i + j) + (i + j == 0 && second);
      if (i + j < parts)
        loadPart<Tiles>(p.out, part, static_cast<int>(blockIdx.y), static_cast<int>(blockIdx.z), more[j]);
    }
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
#pragma unroll
      for (int v = 0; v < kPartSums; ++v) sums[v] += more[j][v];
    }
  }
  int rowTile, tokenTile;
  placeTile(p, s.rounds * s.blocks + static_cast<int>(blockIdx.x), rowTile, tokenTile);
  finish<T>(p.out,
            placeOf(Index{rowTile} * Tiles::kRows + Index{blockIdx.y} * kGroupRows,
                    Index{tokenTile} * Tiles::kTokens + Index{blockIdx.z} * kPartTokens,
                    Tiles::Weights::pairOf(groupOfLane())),
            sums);
}

}  // namespace wgmma_decode
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_WGMMA_DECODE_SM90_TILES_CUH
