// SPDX-License-Identifier: MPL-2.0
// quantize_vectorwise.cu: the seven int8 types of bitsandbytes 0.43, by rows or as a whole, and back.
//
//   rows   │ strip 0 │ strip 1 │ …    a thread block takes 32 rows of a strip, tile by tile of 32×32 in shared memory.
//          │         │         │      Rows and columns are read alike: columns are the rows of a transposed view
//          └ smallest and largest value of each strip → statistic of the row, or of all → codes
//
// Traffic  values are read twice, the second time from L2 where they fit; codes are written once. Nothing here is on
//          the way of a product that matters for speed: those quantise in quantize_int8.cu.
// Exact    a smallest and a largest value depend on no order. Codes are VectorwiseCodec.h's.
#include <eigen_q/src/VectorwiseCodec.h>
#include <eigen_q/src/gpu/VectorwiseKernels.h>

#include "alignment.h"
#include "op_launch.cuh"
#include "scalar.cuh"
#include "tile_walk.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

using EigenQ::internal::ValueRange;
using EigenQ::internal::VectorwiseCode;

constexpr Index kStripCols = 2048;
constexpr Index kMostStrips = 65535;
constexpr int kRowsPerWarp = kTileSide / kTileWarps;

template <typename T>
struct Values {
  const T* data;
  Index rows, cols, rowStride, colStride;

  explicit Values(const ConstDenseView& a)
      : data(static_cast<const T*>(a.data)),
        rows(a.rows),
        cols(a.cols),
        rowStride(a.rowStride),
        colStride(a.colStride) {}
  __device__ float operator()(Index i, Index j) const { return toFloat(data[i * rowStride + j * colStride]); }
};

/** Of all lanes. */
__device__ __forceinline__ ValueRange combine(ValueRange mine) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    ValueRange other;
    other.low = __shfl_xor_sync(0xffffffffu, mine.low, distance);
    other.high = __shfl_xor_sync(0xffffffffu, mine.high, distance);
    other.holdsNaN = __shfl_xor_sync(0xffffffffu, static_cast<int>(mine.holdsNaN), distance) != 0;
    mine.include(other);
  }
  return mine;
}

/** ranges[row·strips + strip] of 32 rows and a strip of columns. */
template <typename T>
__global__ void __launch_bounds__(kTileThreads)
    findRanges(const Values<T> values, bool down, Index stripCols, ValueRange* ranges) {
  __shared__ float tile[kTileSide][kTileSide + 1];
  const int lane = static_cast<int>(threadIdx.x) % kTileSide, warp = static_cast<int>(threadIdx.x) / kTileSide;
  const Index row = static_cast<Index>(blockIdx.x) * kTileSide, begin = blockIdx.y * stripCols;
  const Index end = min(values.cols, begin + stripCols);
  ValueRange mine[kRowsPerWarp];
  for (Index col = begin; col < end; col += kTileSide) {
    for (int k = warp; k < kTileSide; k += kTileWarps) {
      const int i = down ? lane : k, j = down ? k : lane;
      if (row + i < values.rows && col + j < end) tile[i][j] = values(row + i, col + j);
    }
    __syncthreads();
#pragma unroll
    for (int r = 0; r < kRowsPerWarp; ++r) {
      const int i = warp * kRowsPerWarp + r;
      if (row + i < values.rows && col + lane < end) mine[r].include(tile[i][lane]);
    }
    __syncthreads();  // the next tile takes the place of this one
  }
#pragma unroll
  for (int r = 0; r < kRowsPerWarp; ++r) {
    const Index i = row + warp * kRowsPerWarp + r;
    const ValueRange all = combine(mine[r]);
    if (lane == 0 && i < values.rows) ranges[i * gridDim.y + blockIdx.y] = all;
  }
}

/** A thread block for each vector of \a count ranges. */
__global__ void __launch_bounds__(1024)
    finishStatistics(const ValueRange* ranges, Index count, const VectorwiseResult to) {
  __shared__ float warpLow[32], warpHigh[32];
  __shared__ bool warpHoldsNaN[32];
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const Index vector = blockIdx.x;
  ValueRange mine;
  for (Index at = threadIdx.x; at < count; at += blockDim.x) mine.include(ranges[vector * count + at]);
  mine = combine(mine);
  if (lane == 0) {
    warpLow[warp] = mine.low;
    warpHigh[warp] = mine.high;
    warpHoldsNaN[warp] = mine.holdsNaN;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (unsigned w = 1; w < blockDim.x / 32; ++w) mine.include({warpLow[w], warpHigh[w], warpHoldsNaN[w]});
  const VectorwiseCode code(to.type, mine);
  to.stats[vector] = code.stat();
  if (isZeropoint(to.type)) to.zeroPoints[vector] = code.zeroPoint();
}

template <typename T>
__global__ void __launch_bounds__(kTileThreads)
    encodeVectors(const Values<T> values, bool down, const VectorwiseResult to, bool putDown) {
  const auto encode = [=](Index i, Index j) {
    const Index v = isWholeMatrix(to.type) ? 0 : i;
    const double zeroPoint = isZeropoint(to.type) ? to.zeroPoints[v] : 0;
    return VectorwiseCode(to.type, to.stats[v], zeroPoint)(values(i, j));
  };
  walkTiles<std::int8_t>(values.rows, values.cols, down, encode, putDown, [=](Index i, Index j, std::int8_t code) {
    to.codes[i * to.rowStride + j * to.colStride] = code;
  });
}

template <typename T>
__global__ void __launch_bounds__(kTileThreads)
    decodeVectors(const VectorwiseRows q, bool down, const DenseView y, bool putDown) {
  const auto decode = [=](Index i, Index j) {
    const Index v = q.vectorOf(i);
    const double zeroPoint = isZeropoint(q.type) ? q.zeroPoints[v] : 0;
    const std::int8_t code = q.codes.data[i * q.codes.rowStride + j * q.codes.colStride];
    return static_cast<float>(EigenQ::internal::decodeVectorwise(q.type, code, q.stats[v], zeroPoint));
  };
  walkTiles<float>(q.codes.rows, q.codes.cols, down, decode, putDown, [=](Index i, Index j, float v) {
    static_cast<T*>(y.data)[i * y.rowStride + j * y.colStride] = fromFloat<T>(v);
  });
}

}  // namespace

void quantizeVectorwise(const ConstDenseView& a, const VectorwiseResult& to, Context& context) {
  const bool whole = isWholeMatrix(to.type), isEmpty = a.rows == 0 || a.cols == 0;
  const Index vectors = whole ? 1 : a.rows;
  if (vectors == 0) return;
  const Index stripCols = std::max(kStripCols, ceilDiv(a.cols, kMostStrips));
  const Index strips = isEmpty ? 0 : ceilDiv(a.cols, stripCols), count = whole ? a.rows * strips : strips;
  const bool down = liesAlongColumns(a.rowStride, a.colStride);
  Scratch scratch(context);
  ValueRange* const ranges = scratch.array<ValueRange>(a.rows * strips);
  dispatchDeviceScalar(a.scalar, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const Values<T> values(a);
    const dim3 grid(static_cast<unsigned>(ceilDiv(a.rows, kTileSide)), static_cast<unsigned>(strips));
    if (!isEmpty) launch("findRanges", findRanges<T>, {grid, kTileThreads}, context, values, down, stripCols, ranges);
    launch("finishStatistics", finishStatistics, {static_cast<unsigned>(vectors), whole ? 1024u : 32u}, context, ranges,
           count, to);
    if (isEmpty) return;
    launch("encodeVectors", encodeVectors<T>, {tileGrid(a.rows, a.cols), kTileThreads}, context, values, down, to,
           liesAlongColumns(to.rowStride, to.colStride));
  });
}

void dequantizeVectorwise(const VectorwiseRows& q, const DenseView& y, Context& context) {
  if (y.rows == 0 || y.cols == 0) return;
  dispatchDeviceScalar(y.scalar, [&](auto tag) {
    launch("decodeVectors", decodeVectors<typename decltype(tag)::type>, {tileGrid(y.rows, y.cols), kTileThreads},
           context, q, liesAlongColumns(q.codes.rowStride, q.codes.colStride), y,
           liesAlongColumns(y.rowStride, y.colStride));
  });
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
