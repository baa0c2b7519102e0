// SPDX-License-Identifier: MPL-2.0
// What int8_gemm_sm90.cu works on: tiles, the parts of them that warpgroups multiply, and what a part's threads share.
#ifndef EIGENQ_CUDA_INT8_WGMMA_PART_CUH
#define EIGENQ_CUDA_INT8_WGMMA_PART_CUH

#include "int8_kernels.h"
#include "int8_scale.cuh"
#include "int8_stages_sm90.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace wgmma {

constexpr int kOutliersAtOnce = 8;  // gathered as floats
constexpr int kPackedAtOnce = 16;   // packed for tensor cores: a chunk
constexpr int kPackedSlots = 2, kHeldColumns = 64;
constexpr int kMostShared = 256;                          // columns: more are packed for each tile anew
constexpr int kConsumers = kTileP / kGroupRows * kGroup;  // threads that multiply
constexpr int kPackers = kGroup - 32;                     // of the third warpgroup, all but the copying warp
constexpr float kUnit = 1.0f / 127;

template <int kTileQ>
struct Tiling {
  static constexpr int kBytesB = kTileQ * kTileK;
  static constexpr int kStageBytes = kBytesP + kBytesB;
  static constexpr int kStages = kTileQ == 256 ? 4 : 6;  // 192 KB
};

/** What the threads of a warpgroup that multiplies show each other. Warpgroups wait for nothing of one another, so that
 * one may still multiply while the other finishes its half of a tile. */
template <int kTileQ>
struct Own {
  alignas(16) float statsP[kGroupRows];
  alignas(16) float statsQ[kTileQ];
};

/** Outlier columns as a warpgroup gathers them for itself. */
template <int kTileQ>
struct GatheredChunk {
  alignas(16) float p[kOutliersAtOnce][kGroupRows];
  alignas(16) float q[kOutliersAtOnce][kTileQ];
};

/** Half of a row's values in the columns of a chunk. */
struct alignas(16) PackedHalf {
  char values[kPackedAtOnce];
};
constexpr int kHalves = 2;

/** Outlier columns of a tile as the packers hand them to both warpgroups that multiply, a chunk a slot: the first
 * halves of all rows of a side, then the second ones, as wgmma takes them. */
template <int kTileQ>
struct PackedChunks {
  PackedHalf p[kPackedSlots][kHalves][kTileP];
  PackedHalf q[kPackedSlots][kHalves][kTileQ];
  alignas(8) std::uint64_t full[kPackedSlots];
  alignas(8) std::uint64_t empty[kPackedSlots];
  alignas(8) std::uint64_t listed;  // count and columns are there
  int count;
  unsigned claims[2];                     // as the packers found them, of the tile's P and Q
  alignas(16) int columns[kHeldColumns];  // the first ones
};

/** Shared memory; stages at multiples of 1024, as the swizzle pattern asks. */
template <int kTileQ>
struct SharedMemory {
  alignas(1024) std::int8_t stages[Tiling<kTileQ>::kStages][Tiling<kTileQ>::kStageBytes];
  Own<kTileQ> own[kTileP / kGroupRows];
  union {
    GatheredChunk<kTileQ> gathered[kTileP / kGroupRows];
    PackedChunks<kTileQ> packed;
  };
  alignas(8) std::uint64_t full[Tiling<kTileQ>::kStages];
  alignas(8) std::uint64_t empty[Tiling<kTileQ>::kStages];
};

/** One of the two factors: X with its row stats, or W with its absmax. */
struct Side {
  bool isX;
  const float* stats;
  const float* gathered;  // outlier columns, as in GatheredOutliers
  Index gatheredStride;
};

struct WgmmaArgs {
  DeviceDecomposedProduct p;  // y and epilogue in terms of p and q
  Side sideP;
  Side sideQ;
  const std::uint32_t* marks;  // of outlier columns, whose codes are in the sums; null: p.activations lists them
  int* columns;                // with marks, p.activations.outliers: every block writes the same
  unsigned* claims;            // of the tiles' rows of P, then of Q; null: every tile packs its own
  PackedHalf* sharedRows;      // kMostShared columns of those rows
  Index sizeP;
  Index sizeQ;
  Index heights;  // of P in clusters
  Index tilesQ;
  int steps;   // of kTileK
  int blocks;  // of a cluster, 1 or 2: their tiles lie one below the other and share the rows of Q
  bool plain;  // there is no epilogue
};

/** A warpgroup's part of a tile. */
struct Part {
  Index row;  // its first, and the tile's first column
  Index col;
  int barrier;
};

/** The row of a factor that stands behind number i of the part's kGroupRows rows and kTileQ columns; -1: there is none.
 */
template <int kTileQ>
__device__ __forceinline__ Index factorRow(const WgmmaArgs& a, const Part& part, int i) {
  const bool ofP = i < kGroupRows;
  const Index row = ofP ? part.row + i : part.col + i - kGroupRows;
  return i < kGroupRows + kTileQ && row < (ofP ? a.sizeP : a.sizeQ) ? row : -1;
}

/** Whether a statistic may be scaled with in float, whatever the other is. */
__device__ __forceinline__ bool isOrdinary(float stat) {
  return stat == 0.0f || (stat >= 9.094947017729282e-13f && stat <= 1.099511627776e12f);  // 2⁻⁴⁰, 2⁴⁰
}

/** The statistics of a tile that a thread brings: asked for before the products, so that they are there behind them. */
template <int kTileQ>
struct Stats {
  static constexpr int kEach = (kGroupRows + kTileQ + kGroup - 1) / kGroup;
  float values[kEach];

  __device__ __forceinline__ Stats(const WgmmaArgs& a, const Part& part) {
#pragma unroll
    for (int e = 0; e < kEach; ++e) {
      const int i = static_cast<int>(threadIdx.x) % kGroup + e * kGroup;
      const Index row = factorRow<kTileQ>(a, part, i);
      values[e] = row >= 0 ? (i < kGroupRows ? a.sideP : a.sideQ).stats[row] : 0.0f;
    }
  }

  /** Puts them where the warpgroup sees them. \returns whether those of the part are all ordinary. */
  __device__ __forceinline__ bool share(const Part& part, Own<kTileQ>& own) const {
    ptx::syncThreads(part.barrier, kGroup);  // the last tile's have been used
    bool ordinary = true;
#pragma unroll
    for (int e = 0; e < kEach; ++e) {
      const int i = static_cast<int>(threadIdx.x) % kGroup + e * kGroup;
      ordinary = ordinary && isOrdinary(values[e]);
      if (i < kGroupRows + kTileQ) (i < kGroupRows ? own.statsP[i] : own.statsQ[i - kGroupRows]) = values[e];
    }
    return !ptx::anyAtBarrier(part.barrier, kGroup, !ordinary);
  }
};

// A thread's values go to memory by groups of 32 columns. Loops and branches around all of them at once would have the
// compiler keep them twice: 128 of them spill a kilobyte.
constexpr int kGroupCols = 32, kGroupValues = kGroupCols / 2;

/** All values of a thread, for what has to go over them more than once: in local memory, a group at a time in
 * registers.
 */
template <int kTileQ>
struct KeptValues {
  float values[kTileQ / 2];

  /** Calls \a work(number, values) for every group, values to be changed. */
  template <typename Work>
  __device__ __forceinline__ void forEachGroup(Work&& work) {
#pragma unroll 1
    for (int group = 0; group < kTileQ / kGroupCols; ++group) {
      float v[kGroupValues];
#pragma unroll
      for (int i = 0; i < kGroupValues; ++i) v[i] = values[group * kGroupValues + i];
      work(group, v);
#pragma unroll
      for (int i = 0; i < kGroupValues; ++i) values[group * kGroupValues + i] = v[i];
    }
  }
};

/** The rows of a part that a thread holds, and its first column. */
struct Place {
  int row;  // and row + 8
  int col;  // 8i + col, 8i + col + 1
};

__device__ __forceinline__ Place placeOf(int thread) { return {thread / 32 * 16 + thread % 32 / 4, thread % 4 * 2}; }

}  // namespace wgmma
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_INT8_WGMMA_PART_CUH
