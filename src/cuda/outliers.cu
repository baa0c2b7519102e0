// SPDX-License-Identifier: MPL-2.0
// outliers.cu: from a mask of columns to their ascending list, and to columns of zero codes.
//
//   mask │ 0 0 1 0 │ 1 0 0 … │    1024 columns at a time: a ballot counts within a warp, shared memory across warps
//        └→ columns 2, 4, …       count = 2, …
//
// Traffic  a byte a column for the list; for the clearing a byte a row and listed column, each in a sector of its own.
#include <cassert>

#include "op_launch.cuh"
#include "outliers.h"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

constexpr unsigned kListThreads = 1024, kListWarps = kListThreads / 32;

__global__ void __launch_bounds__(kListThreads)
    listMarked(const std::uint8_t* mask, Index cols, int* columns, int* count) {
  __shared__ int warpCount[kListWarps];
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int listed = 0;  // before this piece
  for (Index piece = 0; piece < cols; piece += kListThreads) {
    const Index col = piece + threadIdx.x;
    const bool marked = col < cols && mask[col] != 0;
    const unsigned neighbours = __ballot_sync(0xffffffffu, marked);
    if (lane == 0) warpCount[warp] = __popc(neighbours);
    __syncthreads();
    int before = 0, all = 0;
    for (unsigned w = 0; w < kListWarps; ++w) {
      if (w == warp) before = all;
      all += warpCount[w];
    }
    if (marked) columns[listed + before + __popc(neighbours & ((1u << lane) - 1))] = static_cast<int>(col);
    listed += all;
    __syncthreads();  // the next piece writes warpCount again
  }
  if (threadIdx.x == 0) *count = listed;
}

constexpr unsigned kClearThreads = 256, kClearWarps = kClearThreads / 32;

/** A warp a row. */
__global__ void __launch_bounds__(kClearThreads)
    clearListed(const Int8Codes codes, Index rows, const int* columns, const int* count) {
  const int listed = *count;
  const Index step = static_cast<Index>(gridDim.x) * kClearWarps;
  for (Index row = static_cast<Index>(blockIdx.x) * kClearWarps + threadIdx.x / 32; row < rows; row += step)
    for (int c = static_cast<int>(threadIdx.x % 32); c < listed; c += 32)
      codes.data[row * codes.stride + columns[c]] = 0;
}

__global__ void markColumns(const int* added, Index count, Index cols, std::uint8_t* mask) {
  for (Index i = threadIdx.x; i < count; i += blockDim.x) {
    assert(added[i] >= 0 && added[i] < cols);
    mask[added[i]] = 1;
  }
}

}  // namespace

void clearOutliers(const DeviceOutliers& outliers, Index cols, Context& context) {
  const DeviceGuard guard(context.device());
  if (cols > 0) EIGENQ_CUDA_CHECK(cudaMemsetAsync(outliers.mask, 0, static_cast<std::size_t>(cols), context.stream()));
  EIGENQ_CUDA_CHECK(cudaMemsetAsync(outliers.count, 0, sizeof(int), context.stream()));
}

void listOutliers(Index cols, const DeviceOutliers& outliers, Context& context) {
  launch("listMarked", listMarked, {1, kListThreads}, context, outliers.mask, cols, outliers.columns, outliers.count);
}

void clearColumns(const Int8Codes& codes, Index rows, const DeviceOutliers& outliers, Context& context) {
  if (rows == 0) return;
  const Index blocks = std::min<Index>((rows + kClearWarps - 1) / kClearWarps, Index{8} * context.multiprocessors());
  launch("clearListed", clearListed, {static_cast<unsigned>(blocks), kClearThreads}, context, codes, rows,
         outliers.columns, outliers.count);
}

void addOutliers(const int* added, Index addedCount, Index rows, Index cols, const Int8Codes& codes,
                 const DeviceOutliers& outliers, Context& context) {
  if (addedCount == 0) return;
  launch("markColumns", markColumns, {1, 256}, context, added, addedCount, cols, outliers.mask);
  listOutliers(cols, outliers, context);
  clearColumns(codes, rows, outliers, context);
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
