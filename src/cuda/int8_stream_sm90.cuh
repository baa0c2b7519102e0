// SPDX-License-Identifier: MPL-2.0
// What the blocks of int8_stream_sm90.cu work on and share.
#ifndef EIGENQ_CUDA_INT8_STREAM_SM90_CUH
#define EIGENQ_CUDA_INT8_STREAM_SM90_CUH

#include "int8_kernels.h"
#include "int8_stages_sm90.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace stream {

using namespace wgmma;

constexpr Index kMostTokens = 64;  // rows of X
constexpr int kMostShares = 4;     // of k: the blocks of a cluster, a power of two
constexpr int kConsumers = 2 * kGroup;
constexpr int kHelpers = 96;
constexpr int kThreads = kConsumers + 32 + kHelpers;
constexpr int kHelpersBarrier = 1, kConsumersBarrier = 2;

template <int kTokens>
struct Tiling {
  static constexpr int kStageBytes = kBytesP + kTokens * kTileK;
  static constexpr int kStages = kTokens == 64 ? 4 : 5;
};

constexpr int kMostGathered = 32;

/** The first outlier columns: of X for all tokens, zeros behind the last; of W for the block's share of rows, anything
 * behind the last. */
template <int kTokens>
struct Outliers {
  alignas(16) float x[kMostGathered][kTokens];
  alignas(16) std::int8_t xCodes[kMostGathered / 4][kTokens][4];
  alignas(16) std::int8_t wCodes[kMostGathered / 4][kTileP][4];
  int columns[kMostGathered];
  int count;  // of all
};

/** Where the stages were, when all of them have been used. */
template <int kTokens>
struct Exchange {
  static constexpr int kPitch = kTileP + 4;  // lanes 4g + c write row g of token 2c: all banks
  alignas(16) int sums[kTokens][kPitch];
  alignas(16) float w[kMostGathered][kTileP];  // of the outliers
};

template <int kTokens>
struct SharedMemory {
  using Tiles = Tiling<kTokens>;
  alignas(1024) std::int8_t stages[Tiles::kStages][Tiles::kStageBytes];
  Outliers<kTokens> outliers;
  alignas(16) float rowStats[kTokens];
  alignas(16) float absmax[kTileP];  // of the block's share of rows
  alignas(8) std::uint64_t full[Tiles::kStages];
  alignas(8) std::uint64_t empty[Tiles::kStages];

  __device__ __forceinline__ Exchange<kTokens>& exchange() {
    static_assert(sizeof(Exchange<kTokens>) <= sizeof(stages), "the exchange lies within the stages");
    return *reinterpret_cast<Exchange<kTokens>*>(stages[0]);
  }
};

struct StreamArgs {
  DeviceDecomposedProduct p;
  const std::uint32_t* marks;  // a bit a column: an outlier, whose codes have been left; null: listed and cleared ones
  int* columns;                // room for a list of what the marks say: every block writes the same
  int tokens;
  int shares;
  int steps;   // of k
  bool plain;  // there is no epilogue
  bool vectorStores;
};

__device__ __forceinline__ bool hasOutliers(const StreamArgs& a) { return a.marks || a.p.activations.outlierCount; }

/** What a block does: a tile, a share of k, and in the end a share of the tile's rows. */
struct Task {
  Index row;  // of W, the tile's first
  int share;
  int firstStep;
  int steps;
  int firstRow;  // within the tile: this block's share of rows
  int rows;

  __device__ __forceinline__ explicit Task(const StreamArgs& a) {
    share = static_cast<int>(blockIdx.x % static_cast<unsigned>(a.shares));
    row = static_cast<Index>(blockIdx.x / static_cast<unsigned>(a.shares)) * kTileP;
    firstStep = a.steps * share / a.shares;
    steps = a.steps * (share + 1) / a.shares - firstStep;
    rows = kTileP / a.shares;
    firstRow = share * rows;
  }
};

__device__ __forceinline__ const int* columnsOf(const StreamArgs& a) {
  return a.marks ? a.columns : a.p.activations.outliers;
}

}  // namespace stream
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_INT8_STREAM_SM90_CUH
