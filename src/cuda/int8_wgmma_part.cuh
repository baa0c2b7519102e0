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

constexpr int kOutliersAtOnce = 8;

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
  union {
    struct {
      alignas(16) float outliersP[kOutliersAtOnce][kGroupRows];
      alignas(16) float outliersQ[kOutliersAtOnce][kTileQ];
    };
    alignas(16) char packed[kGroupRows + kTileQ][32];  // a chunk of packed outliers: rows of P, then of Q
  };
  alignas(16) float statsP[kGroupRows];
  alignas(16) float statsQ[kTileQ];
  // With packed outliers X's statistics are above and W's here, by 1/127, and 1 for the other side.
  alignas(16) float weightP[kGroupRows];
  alignas(16) float weightQ[kTileQ];
};

/** Shared memory; stages at multiples of 1024, as the swizzle pattern asks. */
template <int kTileQ>
struct SharedMemory {
  alignas(1024) std::int8_t stages[Tiling<kTileQ>::kStages][Tiling<kTileQ>::kStageBytes];
  Own<kTileQ> own[kTileP / kGroupRows];
  alignas(8) std::uint64_t full[Tiling<kTileQ>::kStages];
  alignas(8) std::uint64_t empty[Tiling<kTileQ>::kStages];
};

/** One of the two factors: X with its row stats, or W with its absmax. */
struct Side {
  bool isX;
  const float* stats;
  const float* gathered;  // outlier columns, as in GatheredOutliers...
  Index gatheredStride;
  const void* packed;  // ...or as in PackedOutliers
  Index packedStride;
};

struct WgmmaArgs {
  DeviceDecomposedProduct p;  // y and epilogue in terms of p and q
  Side sideP;
  Side sideQ;
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

  /** Puts them where the warpgroup sees them; for packed outliers, those of X and of W apart and by 1/127.
   * \returns whether those of the part are all ordinary. */
  template <bool kPacked>
  __device__ __forceinline__ bool share(const WgmmaArgs& a, const Part& part, Own<kTileQ>& own) const {
    constexpr float kUnit = 1.0f / 127;
    ptx::syncThreads(part.barrier, kGroup);  // the last tile's have been used
    bool ordinary = true;
#pragma unroll
    for (int e = 0; e < kEach; ++e) {
      const int i = static_cast<int>(threadIdx.x) % kGroup + e * kGroup;
      ordinary = ordinary && isOrdinary(values[e]);
      if (i >= kGroupRows + kTileQ) continue;
      const bool ofP = i < kGroupRows, ofX = (ofP ? a.sideP : a.sideQ).isX;
      (ofP ? own.statsP[i] : own.statsQ[i - kGroupRows]) = !kPacked ? values[e] : ofX ? values[e] * kUnit : 1.0f;
      if (kPacked) (ofP ? own.weightP[i] : own.weightQ[i - kGroupRows]) = ofX ? 1.0f : values[e] * kUnit;
    }
    return !ptx::anyAtBarrier(part.barrier, kGroup, !ordinary);
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
