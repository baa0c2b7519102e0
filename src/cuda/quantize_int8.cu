// SPDX-License-Identifier: MPL-2.0
// quantize_int8.cu: row-wise int8. The columns' half of it is quantize_int8_cols.cu, the list of outliers outliers.cu.
//
//   row │ v0 … v7 │ …      a thread holds 4 vectors of 8 values in registers, a thread block a row
//       └ load → |·| maximum over the block → 127/absmax → codes → 8 B a vector
//
// Traffic  16-bit values are read once, codes written once: 3 B a value; 2048×8192 take 12 us at 4.3 TB/s.
// Work     a value: unpack, multiply, convert, half a byte permutation, half a comparison. The conversion runs at an
//          eighth of the rate of the others, and still in half of the time that memory takes.
// Shape    as many threads as the row needs, up to 512, which hold 16384 values; of a longer row the rest is
//          read again, from L2. An outlier anywhere empties its column, and when a row is encoded nobody knows the
//          columns yet: with a threshold they are cleared afterwards, a few bytes a row, instead of reading X twice.
// Tokens   For a product that follows at once, launches count. Up to 1024 rows, further blocks of the same launch read
//          them once more, in strips of 256 columns by a chunk of rows, for the marks of outlier columns. Of more rows
//          these blocks are few and long (8192×4096: 75 us, where the rows alone take 26): there each row sets its
//          bits, in marks cleared by a launch before, and looks whether they are set first, as atomic operations on a
//          few words are slow (2048×4096: 17 us without looking). The codes there are the product's business, but that
//          outliers themselves hold 0 where it wants that.
// Needs    contiguous rows; 16-byte-aligned ones and 8-byte-aligned rows of codes, or both go one by one.
#include <eigen_q/src/Int8Codec.h>

#include <cassert>

#include "int8_codes.cuh"
#include "op_launch.cuh"
#include "outlier_marks.cuh"
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
  std::uint8_t* outlierMask;    // a byte a column, or...
  std::uint32_t* outlierMarks;  // ...a bit (outlier_marks.cuh), which...
  bool rowsMark;                // ...the rows set, or strips
  unsigned* claims;             // to be cleared
  Index claimCount;
  bool markNaN;
  bool alignedValues, alignedCodes;
};

/** What a thread learns of its part of a row. */
struct RowStatistics {
  float largest = 0;
  bool holdsNaN = false;
};

/** What becomes of elements that reach the threshold. */
enum class Outliers {
  kNone,    // there is no threshold
  kIgnore,  // their codes are the product's business; strips mark their columns
  kMask,    // 0 stands in their place, and their columns' bytes are set
  kTake     // the same, and their columns' bits are set
};

/** A bit for each of the eight that reaches the threshold. */
template <typename T>
__device__ __forceinline__ std::uint32_t outliersOf(const EightValues<T>& v, float threshold) {
  float f[kEight];
  toFloats(v, f);
  std::uint32_t found = 0;
#pragma unroll
  for (int k = 0; k < kEight; ++k) found |= static_cast<std::uint32_t>(fabsf(f[k]) >= threshold) << k;
  return found;
}

/** \returns which of the eight are outliers, but for kIgnore: these do not count, and become 0. */
template <Outliers kOutliers, typename T>
__device__ __forceinline__ std::uint32_t inspect(const RowsProblem<T>& p, EightValues<T>& v,
                                                 RowStatistics& statistics) {
  std::uint32_t found = 0;
  if (kOutliers == Outliers::kIgnore) {
    float f[kEight];
    toFloats(v, f);
#pragma unroll
    for (int k = 0; k < kEight; ++k)
      statistics.largest = fmaxf(statistics.largest, fabsf(f[k]) >= p.threshold ? 0.0f : fabsf(f[k]));
  } else {
    float largest = absmaxOf(v);
    if (kOutliers != Outliers::kNone && largest >= p.threshold) {
      found = outliersOf(v, p.threshold);
      clearValues(v, found);
      largest = absmaxOf(v);
    }
    statistics.largest = fmaxf(statistics.largest, largest);
  }
  if (p.markNaN) statistics.holdsNaN = statistics.holdsNaN || holdsNaN(v);
  return found;
}

/** Marks the columns of up to four times eight values, \a step apart; a byte of \a found each. Behind all else that a
 * row needs, as bits are looked at before they are set, all at once. */
template <Outliers kOutliers, typename T>
__device__ __forceinline__ void mark(const RowsProblem<T>& p, Index row, Index col, Index step, std::uint32_t found) {
  if (found == 0) return;
  if (kOutliers == Outliers::kMask) {
    for (; found; found &= found - 1) {
      const int bit = __ffs(static_cast<int>(found)) - 1;
      p.outlierMask[col + bit / kEight * step + bit % kEight] = 1;  // by any number of threads, the same value
    }
  } else if (p.rowsMark) {
    std::uint32_t* const marks = p.outlierMarks + row % markChunks(p.rows) * markWords(p.cols);
    std::uint32_t old[kHeldVectors], bits[kHeldVectors];
#pragma unroll
    for (int k = 0; k < kHeldVectors; ++k) {
      const Index at = col + k * step;
      bits[k] = (found >> (k * kEight) & 0xff) << (at % 32);
      old[k] = bits[k] ? __ldcg(marks + at / 32) : 0;
    }
#pragma unroll
    for (int k = 0; k < kHeldVectors; ++k)
      if ((old[k] & bits[k]) != bits[k]) atomicOr(marks + (col + k * step) / 32, bits[k]);
  }
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

template <Outliers kOutliers, typename T>
__device__ __forceinline__ void quantizeRow(const RowsProblem<T>& p, Index row,
                                            float (&warpLargest)[kMaxRowThreads / 32]) {
  const Index vectorStep = static_cast<Index>(blockDim.x) * kEight, sweep = vectorStep * kHeldVectors;
  const Index begin = static_cast<Index>(threadIdx.x) * kEight;
  EightValues<T> held[kHeldVectors];
  RowStatistics mine;
  std::uint32_t found = 0;
#pragma unroll
  for (int k = 0; k < kHeldVectors; ++k) held[k] = loadAt(p, row, begin + k * vectorStep);
#pragma unroll
  for (int k = 0; k < kHeldVectors; ++k) found |= inspect<kOutliers>(p, held[k], mine) << (k * kEight);
  for (Index col = begin + sweep; col < p.cols; col += vectorStep) {
    EightValues<T> v = loadAt(p, row, col);
    mark<kOutliers>(p, row, col, 0, inspect<kOutliers>(p, v, mine));
  }

  const RowStatistics all = combine(mine, warpLargest);
  const float absmax = flushedAbsmax(all.largest), scale = EigenQ::internal::int8Scale(absmax);
  if (threadIdx.x == 0) p.absmax[row] = all.holdsNaN ? CUDART_NAN_F : absmax;
#pragma unroll
  for (int k = 0; k < kHeldVectors; ++k) storeAt(p, held[k], row, begin + k * vectorStep, scale);
  for (Index col = begin + sweep; col < p.codes.stride; col += vectorStep) {
    EightValues<T> v = loadAt(p, row, col);
    inspect<kOutliers>(p, v, mine);
    storeAt(p, v, row, col, scale);
  }
  mark<kOutliers>(p, row, begin, vectorStep, found);
}

template <typename T, Outliers kOutliers>
__global__ void __launch_bounds__(kMaxRowThreads, sizeof(T) == 2 ? 2 : 1) quantizeRows(const RowsProblem<T> p) {
  __shared__ float warpLargest[kMaxRowThreads / 32];
  for (Index row = blockIdx.x; row < p.rows; row += gridDim.x) quantizeRow<kOutliers>(p, row, warpLargest);
}

constexpr int kStripCols = 32 * kEight;
// Measured with int8.wgmma behind: 128 and 256 rows of 4096 take 15.4 and 16.0 us instead of 16.7 and 17.0 with blocks
// of rowThreads(), with outliers 23.7 and 26.4 instead of 24.5 and 50.6, as the larger blocks no longer fit all at
// once.
constexpr Index kFewRows = 64;
constexpr Index kStripRows = 1024;  // more mark their columns themselves

/** The bits of a strip, 8 columns a lane, of a chunk of rows, a row a warp at a time. */
template <typename T>
__device__ __forceinline__ void markStrip(const RowsProblem<T>& p, Index strip, Index chunk) {
  __shared__ std::uint32_t words[kStripCols / 32];
  const int lane = static_cast<int>(threadIdx.x % 32);
  const Index warp = threadIdx.x / 32, warps = blockDim.x / 32, col = strip * kStripCols + lane * kEight;
  const Index first = chunk * markChunkRows(p.rows), rest = p.rows - first, most = markChunkRows(p.rows);
  const Index end = first + (rest < most ? rest : most);
  if (threadIdx.x < kStripCols / 32) words[threadIdx.x] = 0;
  __syncthreads();
  std::uint32_t found = 0;
#pragma unroll 8
  for (Index row = first + warp; row < end; row += warps) {
    found |= outliersOf(loadAt(p, row, col), p.threshold);
  }
  if (found) atomicOr(&words[lane / 4], found << (lane % 4 * kEight));
  __syncthreads();
  static_assert(markWords(kStripCols) == kStripCols / 32, "strips make whole words");
  if (threadIdx.x < kStripCols / 32)
    p.outlierMarks[chunk * markWords(p.cols) + strip * (kStripCols / 32) + threadIdx.x] = words[threadIdx.x];
}

__global__ void __launch_bounds__(kMaxRowThreads) clearMarks(std::uint32_t* marks, Index words) {
  joinStreamThenAllow();
  const Index at = Index{blockIdx.x} * blockDim.x + threadIdx.x;
  if (at < words) marks[at] = 0;
}

/** A block a row, and for \a marking, ahead of them a block for each strip of each chunk. */
template <typename T, Outliers kOutliers>
__global__ void __launch_bounds__(kMaxRowThreads, sizeof(T) == 2 ? 2 : 1)
    quantizeTokens(const RowsProblem<T> p, unsigned strips, unsigned marking) {
  __shared__ float warpLargest[kMaxRowThreads / 32];
  joinStreamThenAllow();
  const Index thread = Index{blockIdx.x} * blockDim.x + threadIdx.x, threads = Index{gridDim.x} * blockDim.x;
  if (kOutliers != Outliers::kNone)
    for (Index i = thread; i < p.claimCount; i += threads) p.claims[i] = 0;
  if (blockIdx.x >= marking) {
    quantizeRow<kOutliers>(p, blockIdx.x - marking, warpLargest);
  } else {
    markStrip(p, blockIdx.x % strips, blockIdx.x / strips);
  }
}

template <typename T>
RowsProblem<T> rowsProblem(const ConstDenseView& a, float threshold, bool markNaN, const Int8Codes& codes,
                           float* rowAbsmax) {
  RowsProblem<T> p = {};
  p.values = static_cast<const T*>(a.data);
  p.rows = a.rows;
  p.cols = a.cols;
  p.rowStride = a.rowStride;
  p.codes = codes;
  p.absmax = rowAbsmax;
  p.threshold = threshold;
  p.markNaN = markNaN;
  p.alignedValues = hasAlignedRows(a);
  p.alignedCodes = hasAlignedRows(codes);
  return p;
}

/** A vector a thread while there are enough threads: fewer steps one after another. */
unsigned tokenThreads(Index width) {
  const Index warps = (width + kStripCols - 1) / kStripCols;
  return static_cast<unsigned>(std::min<Index>(std::max<Index>(warps, 4) * 32, kMaxRowThreads));
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
    RowsProblem<T> p = rowsProblem<T>(a, threshold, markNaN, codes, rowAbsmax);
    p.outlierMask = outlierMask;
    launch("quantizeRows", threshold > 0 ? quantizeRows<T, Outliers::kMask> : quantizeRows<T, Outliers::kNone>, shape,
           context, p);
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

void quantizeInt8Tokens(const ConstDenseView& a, float threshold, const Int8Codes& codes, float* rowAbsmax,
                        const OutlierMarks& outlierMarks, Context& context) {
  assert(codes.stride >= a.cols && hasContiguousRows(a));
  if (a.rows == 0) return;
  const bool marks = threshold > 0, rowsMark = marks && outlierMarks.clearsOutliers && a.rows > kStripRows;
  const unsigned strips = marks && !rowsMark ? static_cast<unsigned>(ceilDiv(a.cols, kStripCols)) : 0;
  const unsigned marking = strips * static_cast<unsigned>(markChunks(a.rows));
  if (rowsMark) {
    const Index words = markChunks(a.rows) * markWords(a.cols);
    const LaunchShape whole{static_cast<unsigned>(ceilDiv(words, kMaxRowThreads)), kMaxRowThreads};
    launchEarly("clearMarks", clearMarks, whole, context, outlierMarks.words, words);
  }
  const LaunchShape shape{static_cast<unsigned>(a.rows) + marking,
                          a.rows <= kFewRows ? tokenThreads(codes.stride) : rowThreads(codes.stride)};
  dispatchDeviceScalar(a.scalar, [&](auto tag) {
    using T = typename decltype(tag)::type;
    RowsProblem<T> p = rowsProblem<T>(a, threshold, true, codes, rowAbsmax);
    p.outlierMarks = outlierMarks.words;
    p.claims = outlierMarks.claims;
    p.claimCount = outlierMarks.claimCount;
    p.rowsMark = rowsMark;
    launchEarly("quantizeTokens",
                !marks                        ? quantizeTokens<T, Outliers::kNone>
                : outlierMarks.clearsOutliers ? quantizeTokens<T, Outliers::kTake>
                                              : quantizeTokens<T, Outliers::kIgnore>,
                shape, context, p, strips, marking);
  });
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
