// SPDX-License-Identifier: MPL-2.0
// Outlier columns as the quantiser of tokens marks them: a bit a column, 32 a word, the lowest first.
#ifndef EIGENQ_CUDA_OUTLIER_MARKS_CUH
#define EIGENQ_CUDA_OUTLIER_MARKS_CUH

#include <eigen_q/src/Views.h>

#include <cstdint>

namespace EigenQ {
namespace gpu {
namespace internal {

/** Calls put(number, column) for every marked column, numbers in ascending order of columns, by the lanes of a warp.
 * \returns how many there are */
template <typename Put>
__device__ __forceinline__ int listMarked(const std::uint32_t* marks, Index cols, Put&& put) {
  constexpr int kAtOnce = 8;  // words whose loads are under way together
  const int lane = static_cast<int>(threadIdx.x % 32), words = static_cast<int>((cols + 31) / 32);
  int listed = 0;
  for (int begin = 0; begin < words; begin += 32 * kAtOnce) {
    std::uint32_t held[kAtOnce];
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      const int word = begin + u * 32 + lane;
      held[u] = word < words ? marks[word] : 0;
    }
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      if (!__any_sync(0xffffffffu, held[u] != 0)) continue;
      const int mine = __popc(held[u]);
      int end = mine;  // of this lane's columns, by a scan over the lanes
      for (int distance = 1; distance < 32; distance *= 2) {
        const int before = __shfl_up_sync(0xffffffffu, end, distance);
        if (lane >= distance) end += before;
      }
      int number = listed + end - mine;
      for (std::uint32_t mask = held[u]; mask; mask &= mask - 1)
        put(number++, (begin + u * 32 + lane) * 32 + __ffs(static_cast<int>(mask)) - 1);
      listed += __shfl_sync(0xffffffffu, end, 31);
    }
  }
  return listed;
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_OUTLIER_MARKS_CUH
