// SPDX-License-Identifier: MPL-2.0
// Outlier columns as the quantiser of tokens marks them: a bit a column, 32 a word, the lowest first; once for each
// chunk of rows, as chunks are marked side by side and nothing is cleared before.
#ifndef EIGENQ_CUDA_OUTLIER_MARKS_CUH
#define EIGENQ_CUDA_OUTLIER_MARKS_CUH

#include "int8_scale.cuh"
#include "quantizers.h"

namespace EigenQ {
namespace gpu {
namespace internal {

/** Calls put(number, column) for every column that is marked in any of the chunks, numbers in ascending order of
 * columns, by the lanes of a warp: a lane takes kWords neighbouring words, of kAtOnce chunks at once.
 * \returns how many there are */
template <int kWords, int kAtOnce, typename Put>
__device__ __forceinline__ int listMarked(const std::uint32_t* marks, Index chunks, Index cols, Put&& put) {
  static_assert(kWords == 4 || kWords == 8, "which divide markWords()");
  const int lane = static_cast<int>(threadIdx.x % 32), words = static_cast<int>(markWords(cols));
  int listed = 0;
  for (int begin = 0; begin < words; begin += 32 * kWords) {
    const int first = begin + lane * kWords;
    std::uint32_t held[kWords] = {};
#pragma unroll kAtOnce
    for (Index chunk = 0; chunk < chunks; ++chunk) {
      const uint4* const from = reinterpret_cast<const uint4*>(marks + chunk * words + min(first, words - kWords));
#pragma unroll
      for (int quad = 0; quad < kWords / 4; ++quad) {
        const uint4 part = from[quad];
        std::uint32_t* const to = held + 4 * quad;
        if (first < words) to[0] |= part.x, to[1] |= part.y, to[2] |= part.z, to[3] |= part.w;
      }
    }
    int mine = 0;
#pragma unroll
    for (int u = 0; u < kWords; ++u) mine += __popc(held[u]);
    int end = mine;  // of this lane's columns, by a scan over the lanes
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
      const int before = __shfl_up_sync(0xffffffffu, end, distance);
      if (lane >= distance) end += before;
    }
    int number = listed + end - mine;
    listed += __shfl_sync(0xffffffffu, end, 31);
    if (mine == 0) continue;
#pragma unroll
    for (int u = 0; u < kWords; ++u) {
      for (std::uint32_t mask = held[u]; mask; mask &= mask - 1)
        put(number++, (first + u) * 32 + __ffs(static_cast<int>(mask)) - 1);
    }
  }
  return listed;
}

/** The outlier columns of a product, by a warp: the first ones in \a held, and where marks tell them, all in \a
 * columns. \param marks  null: the product lists them \returns how many there are */
template <int kWords, int kAtOnce, int kHeld>
__device__ __forceinline__ int listOutliers(const DeviceDecomposedProduct& p, const std::uint32_t* marks, Index chunks,
                                            int* columns, int (&held)[kHeld]) {
  if (marks) {
    return listMarked<kWords, kAtOnce>(marks, chunks, p.w.cols, [&](int o, int k) {
      columns[o] = k;
      if (o < kHeld) held[o] = k;
    });
  }
  const int count = outlierCount(p.activations);
  for (int o = static_cast<int>(threadIdx.x % 32); o < min(count, kHeld); o += 32) held[o] = p.activations.outliers[o];
  return count;
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_OUTLIER_MARKS_CUH
