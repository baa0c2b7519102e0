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

using EigenQ::internal::encodeByte;
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

/** In shared memory. */
struct ByteTables {
  float level[kByteLevels];
  float threshold[kByteLevels];
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
  tables.threshold[j] = top;
  __syncthreads();
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_BYTE_LEVELS_CUH
