// SPDX-License-Identifier: MPL-2.0
// Code tables of 256 levels and their thresholds (DynamicMap.h) inside kernels of 256 threads.
#ifndef EIGENQ_CUDA_BYTE_LEVELS_CUH
#define EIGENQ_CUDA_BYTE_LEVELS_CUH

#include <eigen_q/src/DynamicMap.h>

#include <math_constants.h>

#include <algorithm>

namespace EigenQ {
namespace gpu {
namespace internal {

using EigenQ::internal::kByteLevels;

constexpr unsigned kLevelThreads = kByteLevels;

/** A table as kernel parameter: the dynamic maps live on the host, and a kilobyte travels with the launch. */
struct ByteLevels {
  float value[kByteLevels];
};

inline ByteLevels byteLevels(const EigenQ::internal::ByteCodeTable& table) {
  ByteLevels levels;
  std::copy(table.begin(), table.end(), levels.value);
  return levels;
}

/** In shared memory. The thresholds are a search tree, level after level, node i before its children 2i and 2i + 1:
 * lanes that search side by side meet in few banks, where in sorted order those of a level lie in one. */
struct ByteTables {
  float level[kByteLevels];
  float node[kByteLevels];
  float warpTop[kLevelThreads / 32];
};

/** byteThresholds(), a thread for each: \a levels may lie anywhere. The running maximum, which keeps repeated levels
 * sorted, is a scan. By all 256 threads of a block; ends with a barrier. */
__device__ __forceinline__ void makeByteTables(const float* levels, ByteTables& tables) {
  const int j = static_cast<int>(threadIdx.x), lane = j % 32, warp = j / 32;
  tables.level[j] = levels[j];
  __syncthreads();
  float top = CUDART_INF_F;
  if (j + 1 < kByteLevels) {
    const float midpoint = (tables.level[j] + tables.level[j + 1]) * 0.5f;
    top = j % 2 == 1 ? nextafterf(midpoint, -CUDART_INF_F) : midpoint;
  }
  for (int distance = 1; distance < 32; distance *= 2) {
    const float before = __shfl_up_sync(0xffffffffu, top, distance);
    if (lane >= distance) top = fmaxf(before, top);
  }
  if (lane == 31) tables.warpTop[warp] = top;
  __syncthreads();
  for (int w = 0; w < warp; ++w) top = fmaxf(tables.warpTop[w], top);
  if (j + 1 < kByteLevels) {
    const int height = __ffs(j + 1) - 1;  // above the leaves; the root is threshold 127
    tables.node[(kByteLevels / 2 >> height) + (j >> (height + 1))] = top;
  }
  __syncthreads();
}

/** encodeByte() by the tree. */
__device__ __forceinline__ unsigned encodeByte(float v, const ByteTables& tables) {
  unsigned node = 1;
#pragma unroll
  for (int bit = kByteLevels / 2; bit > 0; bit /= 2) node = 2 * node + (v > tables.node[node] ? 1 : 0);
  return node - kByteLevels;
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_BYTE_LEVELS_CUH
