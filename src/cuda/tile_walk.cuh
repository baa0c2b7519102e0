// SPDX-License-Identifier: MPL-2.0
// A matrix moved tile by tile through shared memory, so that both sides are accessed along the dimension that lies
// contiguous for them.
#ifndef EIGENQ_CUDA_TILE_WALK_CUH
#define EIGENQ_CUDA_TILE_WALK_CUH

#include <eigen_q/src/Views.h>

#include <algorithm>
#include <cstdlib>

namespace EigenQ {
namespace gpu {
namespace internal {

constexpr int kTileSide = 32, kTileWarps = 8;
constexpr unsigned kTileThreads = kTileSide * kTileWarps;

/** Neighbours in a column lie closer together than neighbours in a row. */
inline bool liesAlongColumns(Index rowStride, Index colStride) { return std::abs(rowStride) < std::abs(colStride); }

inline unsigned tileGrid(Index rows, Index cols) {
  const Index tiles = ((rows + kTileSide - 1) / kTileSide) * ((cols + kTileSide - 1) / kTileSide);
  return static_cast<unsigned>(std::min<Index>(tiles, Index{1} << 20));
}

/** Calls put(i, j, get(i, j)) for every element, get by lanes along a column where \a getDown, put where \a putDown. By
 * blocks of kTileThreads threads. */
template <typename Word, typename Get, typename Put>
__device__ __forceinline__ void walkTiles(Index rows, Index cols, bool getDown, Get get, bool putDown, Put put) {
  __shared__ Word tile[kTileSide][kTileSide + 1];  // the odd pitch keeps columns off one bank
  const int lane = static_cast<int>(threadIdx.x) % kTileSide, warp = static_cast<int>(threadIdx.x) / kTileSide;
  const Index tilesAcross = (cols + kTileSide - 1) / kTileSide;
  const Index tiles = (rows + kTileSide - 1) / kTileSide * tilesAcross;
  for (Index t = blockIdx.x; t < tiles; t += gridDim.x) {
    const Index row = t / tilesAcross * kTileSide, col = t % tilesAcross * kTileSide;
    for (int k = warp; k < kTileSide; k += kTileWarps) {
      const int i = getDown ? lane : k, j = getDown ? k : lane;
      if (row + i < rows && col + j < cols) tile[i][j] = get(row + i, col + j);
    }
    __syncthreads();
    for (int k = warp; k < kTileSide; k += kTileWarps) {
      const int i = putDown ? lane : k, j = putDown ? k : lane;
      if (row + i < rows && col + j < cols) put(row + i, col + j, tile[i][j]);
    }
    __syncthreads();
  }
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_TILE_WALK_CUH
