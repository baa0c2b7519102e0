// SPDX-License-Identifier: MPL-2.0
// quantize_int8.cu: row-wise int8. The columns' half of it is quantize_int8_cols.cu, the list of outliers outliers.cu.
//
//   row │ v0 … v7 │ …      a thread holds 4 vectors of 8 values in registers, a thread block a row
//       └ load → |·| maximum over the block → 127/absmax → codes → 8 B a vector
//
// Traffic  16-bit values are read once, codes written once: 3 B a value; 2048×8192 take 12 us at 4.3 TB/s.
// Work     a value: unpack, multiply, convert, half a byte permutation, half a comparison. The conversion runs at an
//          eighth of the rate of the others, and still in half of the time that memory takes.
// Shape    as many threads as the row needs, up to 512, which hold 16384 values; of a longer row the rest is read
// again,
//          from L2. An outlier anywhere empties its column, and when a row is encoded nobody knows the columns yet:
//          with a threshold they are cleared afterwards, a few bytes a row, instead of reading X twice.
// Needs    contiguous rows; 16-byte-aligned ones and 8-byte-aligned rows of codes, or both go one by one.
#include <eigen_q/src/Int8Codec.h>

#include <cassert>

#include "int8_codes.cuh"
#include "op_launch.cuh"
#include "outliers.h"
#include "quantizers.h"
#include "row_panels.h"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

constexpr int kHeldVectors = 4;
constexpr int kThreadValues = kHeldVectors * kEight;
constexpr unsigned kMaxRowThreads = 512;

template <typename T>
struct RowsProblem {
  const T* values;
  Index rows, cols, rowStride;
  Int8Codes codes;
  float* absmax;
  float threshold;
  std::uint8_t* outlierMask;
  bool markNaN;
  bool alignedValues, alignedCodes;
};

/** What a thread learns of its part of a row. */
struct RowStatistics {
  float largest = 0;
  bool holdsNaN = false;
};

/** An element that reaches the threshold marks its column instead of counting. */
template <typename T>
__device__ __forceinline__ void inspectOutliers(const EightValues<T>& v, Index col, float threshold, std::uint8_t* mask,
                                                RowStatistics& statistics) {
  float f[kEight];
  toFloats(v, f);
#pragma unroll
  for (int k = 0; k < kEight; ++k) {
    const float magnitude = fabsf(f[k]);
    if (magnitude >= threshold) {
      mask[col + k] = 1;  // by any number of threads, the same value
    } else {
      statistics.largest = fmaxf(statistics.largest, magnitude);
    }
  }
}

template <bool kOutliers, typename T>
__device__ __forceinline__ void inspect(const RowsProblem<T>& p, const EightValues<T>& v, Index col,
                                        RowStatistics& statistics) {
  if constexpr (kOutliers) {
    inspectOutliers(v, col, p.threshold, p.outlierMask, statistics);
  } else {
    statistics.largest = fmaxf(statistics.largest, absmaxOf(v));
  }
  if (p.markNaN) statistics.holdsNaN = statistics.holdsNaN || holdsNaN(v);
}

/** Of all threads. */
__device__ __forceinline__ RowStatistics combine(RowStatistics mine, float (&warpLargest)[kMaxRowThreads / 32]) {
  for (int distance = 16; distance > 0; distance /= 2)
    mine.largest = fmaxf(mine.largest, __shfl_xor_sync(0xffffffffu, mine.largest, distance));
  if (threadIdx.x % 32 == 0) warpLargest[threadIdx.x / 32] = mine.largest;
  RowStatistics all;
  all.holdsNaN = __syncthreads_or(mine.holdsNaN) != 0;
  for (unsigned w = 0; w < blockDim.x / 32; ++w) all.largest = fmaxf(all.largest, warpLargest[w]);
  __syncthreads();  // the next row writes warpLargest again
  return all;
}

template <typename T>
__device__ __forceinline__ EightValues<T> loadAt(const RowsProblem<T>& p, Index row, Index col) {
  return loadEight(p.values + row * p.rowStride + col, p.cols - col, p.alignedValues);
}

template <typename T>
__device__ __forceinline__ void storeAt(const RowsProblem<T>& p, const EightValues<T>& v, Index row, Index col,
                                        float scale) {
  std::uint8_t* const to = reinterpret_cast<std::uint8_t*>(p.codes.data) + row * p.codes.stride + col;
  storeCodes<8>(to, encodeEight(v, scale), p.codes.stride - col, p.alignedCodes);
}

template <typename T, bool kOutliers>
__global__ void __launch_bounds__(kMaxRowThreads, sizeof(T) == 2 ? 2 : 1) quantizeRows(const RowsProblem<T> p) {
  __shared__ float warpLargest[kMaxRowThreads / 32];
  const Index vectorStep = static_cast<Index>(blockDim.x) * kEight, sweep = vectorStep * kHeldVectors;
  const Index begin = static_cast<Index>(threadIdx.x) * kEight;
  for (Index row = blockIdx.x; row < p.rows; row += gridDim.x) {
    EightValues<T> held[kHeldVectors];
    RowStatistics mine;
#pragma unroll
    for (int k = 0; k < kHeldVectors; ++k) held[k] = loadAt(p, row, begin + k * vectorStep);
#pragma unroll
    for (int k = 0; k < kHeldVectors; ++k) inspect<kOutliers>(p, held[k], begin + k * vectorStep, mine);
    for (Index col = begin + sweep; col < p.cols; col += vectorStep)
      inspect<kOutliers>(p, loadAt(p, row, col), col, mine);

    const RowStatistics all = combine(mine, warpLargest);
    const float absmax = flushedAbsmax(all.largest), scale = EigenQ::internal::int8Scale(absmax);
    if (threadIdx.x == 0) p.absmax[row] = all.holdsNaN ? CUDART_NAN_F : absmax;
#pragma unroll
    for (int k = 0; k < kHeldVectors; ++k) storeAt(p, held[k], row, begin + k * vectorStep, scale);
    for (Index col = begin + sweep; col < p.codes.stride; col += vectorStep)
      storeAt(p, loadAt(p, row, col), row, col, scale);
  }
}

unsigned rowThreads(Index width) {
  const Index warps = (width + kThreadValues * 32 - 1) / (kThreadValues * 32);
  return static_cast<unsigned>(std::min<Index>(warps * 32, kMaxRowThreads));
}

void quantizePanel(const ConstDenseView& a, float threshold, bool markNaN, const Int8Codes& codes, float* rowAbsmax,
                   std::uint8_t* outlierMask, Context& context) {
  const LaunchShape shape{static_cast<unsigned>(std::min<Index>(a.rows, Index{1} << 30)), rowThreads(codes.stride)};
  dispatchDeviceScalar(a.scalar, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const RowsProblem<T> p{static_cast<const T*>(a.data),
                           a.rows,
                           a.cols,
                           a.rowStride,
                           codes,
                           rowAbsmax,
                           threshold,
                           outlierMask,
                           markNaN,
                           hasAlignedRows(a),
                           hasAlignedRows(codes)};
    launch("quantizeRows", threshold > 0 ? quantizeRows<T, true> : quantizeRows<T, false>, shape, context, p);
  });
}

}  // namespace

void quantizeInt8Rows(const ConstDenseView& a, float threshold, bool markNaN, const Int8Codes& codes, float* rowAbsmax,
                      const DeviceOutliers& outliers, Context& context) {
  assert(codes.stride >= a.cols);
  if (threshold > 0) clearOutliers(outliers, a.cols, context);
  if (a.rows == 0) return;
  const auto quantize = [&](const ConstDenseView& panel, Index row) {
    quantizePanel(panel, threshold, markNaN, {codes.data + row * codes.stride, codes.stride}, rowAbsmax + row,
                  outliers.mask, context);
  };
  if (a.cols == 0 || hasContiguousRows(a)) {
    quantize(a, 0);
  } else {
    forEachCopiedPanel(a, 1, context, quantize);
  }
  if (!(threshold > 0) || a.cols == 0) return;
  listOutliers(a.cols, outliers, context);
  clearColumns(codes, a.rows, outliers, context);
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
