// SPDX-License-Identifier: MPL-2.0
// What int8_gemm_sm90.cu does with a tile's sums: 128 or 64 a thread, in registers.
//
//   fragment   thread 32w + 4g + c of a warpgroup holds rows 16w + g and 16w + g + 8 of its 64, and of each group of 8
//              columns 8i + 2c and 8i + 2c + 1: sums 4i, 4i + 1 of the upper row, 4i + 2, 4i + 3 of the lower one
#ifndef EIGENQ_CUDA_INT8_WGMMA_FINISH_CUH
#define EIGENQ_CUDA_INT8_WGMMA_FINISH_CUH

#include "epilogue.cuh"
#include "int8_wgmma_outliers.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace wgmma {

/** Sums become values, in place: the registers are all taken. */
template <int kTileQ>
__device__ __forceinline__ void scale(const Own<kTileQ>& own, const Place& place, const int (&sums)[kTileQ / 2],
                                      float (&values)[kTileQ / 2]) {
  const float a = static_cast<float>(rowScale(own.statsP[place.row]));
  const float b = static_cast<float>(rowScale(own.statsP[place.row + 8]));
#pragma unroll
  for (int i = 0; i < kTileQ / 8; ++i) {
    const float2 q = *reinterpret_cast<const float2*>(&own.statsQ[8 * i + place.col]);
    values[4 * i] = static_cast<float>(sums[4 * i]) * (a * q.x);
    values[4 * i + 1] = static_cast<float>(sums[4 * i + 1]) * (a * q.y);
    values[4 * i + 2] = static_cast<float>(sums[4 * i + 2]) * (b * q.x);
    values[4 * i + 3] = static_cast<float>(sums[4 * i + 3]) * (b * q.y);
  }
}

/** values = scaled sums + packed outliers: scaled by X's side, with the outliers added, X in its units and W in codes,
 * then by W's side. */
template <typename T, int kTileQ>
__device__ __forceinline__ void scaleWithPacked(const WgmmaArgs& a, const Part& part, const Place& place, int count,
                                                Own<kTileQ>& own, const int (&sums)[kTileQ / 2],
                                                float (&values)[kTileQ / 2]) {
  const float x0 = own.statsP[place.row], x1 = own.statsP[place.row + 8];
#pragma unroll
  for (int i = 0; i < kTileQ / 8; ++i) {
    const float2 q = *reinterpret_cast<const float2*>(&own.statsQ[8 * i + place.col]);
    values[4 * i] = static_cast<float>(sums[4 * i]) * (x0 * q.x);
    values[4 * i + 1] = static_cast<float>(sums[4 * i + 1]) * (x0 * q.y);
    values[4 * i + 2] = static_cast<float>(sums[4 * i + 2]) * (x1 * q.x);
    values[4 * i + 3] = static_cast<float>(sums[4 * i + 3]) * (x1 * q.y);
  }
  addPackedOutliers<T, kTileQ>(a, part, place, count, own, values);
  const float w0 = own.weightP[place.row], w1 = own.weightP[place.row + 8];
#pragma unroll
  for (int i = 0; i < kTileQ / 8; ++i) {
    const float2 q = *reinterpret_cast<const float2*>(&own.weightQ[8 * i + place.col]);
    values[4 * i] *= w0 * q.x;
    values[4 * i + 1] *= w0 * q.y;
    values[4 * i + 2] *= w1 * q.x;
    values[4 * i + 3] *= w1 * q.y;
  }
}

/** Four lanes hold a 4×4 matrix of words, a row each of which v is their column; afterwards they hold its transpose:
 * lane c has what lanes 0 to 3 held in v[c]. */
__device__ __forceinline__ void transposeInQuad(std::uint32_t (&v)[4], int c) {
  const bool odd = c & 1, high = c & 2;
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const std::uint32_t other = __shfl_xor_sync(0xffffffffu, odd ? v[i] : v[i + 1], 1);
    (odd ? v[i] : v[i + 1]) = other;
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const std::uint32_t other = __shfl_xor_sync(0xffffffffu, high ? v[i] : v[i + 2], 2);
    (high ? v[i] : v[i + 2]) = other;
  }
}

/** What happens to a tile's values on their way to memory, from the leanest code to the most general. */
enum class Finish {
  kRound,   // no outliers, no epilogue, vectors stored
  kAffine,  // outliers, bias, bounds and residual, these and the result in vectors
  kPacked,  // the same, but outliers by tensor cores
  kAny,     // activations, any strides: finishSlowly()
};

/** Two neighbours of y's type. */
template <typename T>
__device__ __forceinline__ float2 loadPair(const T* from) {
  if constexpr (sizeof(T) == 4) {
    return *reinterpret_cast<const float2*>(from);
  } else {
    const std::uint32_t bits = *reinterpret_cast<const std::uint32_t*>(from);
    const T* const pair = reinterpret_cast<const T*>(&bits);
    return make_float2(toFloat(pair[0]), toFloat(pair[1]));
  }
}

/** Row \a half of the thread's two. \param left  columns of Y from the tile's first on */
template <typename T, int kTileQ>
__device__ __forceinline__ void finishAffine(const Epilogue& e, Index row, Index firstCol, int col, int left, int half,
                                             float (&values)[kTileQ / 2]) {
  const bool perCol = e.biasAxis == BiasAxis::kPerCol;
  const T* const bias = static_cast<const T*>(e.bias) + firstCol + col;
  const T* const residual = static_cast<const T*>(e.residual.data) + row * e.residual.rowStride + firstCol + col;
  const float rowBias = e.biasAxis == BiasAxis::kPerRow ? toFloat(static_cast<const T*>(e.bias)[row]) : 0.0f;
#pragma unroll
  for (int i = 0; i < kTileQ / 8; ++i) {
    if (8 * i + col >= left) continue;
    float2 b = make_float2(rowBias, rowBias), r = make_float2(0, 0);
    if (perCol) b = loadPair<T>(bias + 8 * i);
    if (e.residual.data) r = loadPair<T>(residual + 8 * i);
    float* const v = values + 4 * i + 2 * half;
    const float signedX = e.residualSign * r.x, signedY = e.residualSign * r.y;
    v[0] = bounded(e, v[0], b.x) + signedX;
    v[1] = bounded(e, v[1], b.y) + signedY;
  }
}

/** Whole 32-byte sectors at a time. float: eight bytes a lane, four lanes side by side. 16 bits: four lanes exchange
 * their parts of four groups of eight columns, and store a group each. All lanes of a warp come here together. */
template <typename T, int kTileQ>
__device__ __forceinline__ void storeSectors(T* tile, bool rowThere, int col, int left, int half,
                                             const float (&values)[kTileQ / 2]) {
  if constexpr (sizeof(T) == 4) {
#pragma unroll
    for (int i = 0; i < kTileQ / 8; ++i) {
      if (rowThere && 8 * i + col < left)
        *reinterpret_cast<float2*>(tile + col + 8 * i) =
            make_float2(values[4 * i + 2 * half], values[4 * i + 2 * half + 1]);
    }
  } else {
    const int c = col / 2;
#pragma unroll
    for (int i = 0; i < kTileQ / 8; i += 4) {
      std::uint32_t v[4];
#pragma unroll
      for (int g = 0; g < 4; ++g)
        v[g] = packPair<T>(values[4 * (i + g) + 2 * half], values[4 * (i + g) + 2 * half + 1]);
      transposeInQuad(v, c);
      if (rowThere && 8 * (i + c) < left)
        *reinterpret_cast<uint4*>(tile + 8 * c + 8 * i) = make_uint4(v[0], v[1], v[2], v[3]);
    }
  }
}

/** A tile one value at a time, scaled as on the host. The loops are not unrolled, as 128 copies of an activation's code
 * are too many: registers cannot be indexed, so that the sums lie in local memory. */
template <typename T, int kTileQ>
__device__ __forceinline__ void finishSlowly(const WgmmaArgs& a, const Part& part, const Place& place, int count,
                                             const int (&sums)[kTileQ / 2]) {
  int indexed[kTileQ / 2];
#pragma unroll
  for (int i = 0; i < kTileQ / 2; ++i) indexed[i] = sums[i];
#pragma unroll 1
  for (int i = 0; i < kTileQ / 2; ++i) {
    const Index row = part.row + place.row + i % 4 / 2 * 8;
    const Index col = part.col + place.col + i / 4 * 8 + i % 2;
    if (row >= a.sizeP || col >= a.sizeQ) continue;
    float outliers = 0;
    for (int o = 0; o < count; ++o)
      outliers = fmaf(outlierOf(a, a.sideP, row, o), outlierOf(a, a.sideQ, col, o), outliers);
    const float statP = a.sideP.stats[row], statQ = a.sideQ.stats[col];
    const float v = scaledSum(exactDouble(indexed[i]), rowScale(a.sideP.isX ? statP : statQ),
                              a.sideP.isX ? statQ : statP, outliers);
    storeResult<T>(a.p.y, a.p.epilogue, v, row, col);
  }
}

template <typename T, int kTileQ, Finish kFinish>
__device__ __forceinline__ void finishFast(const WgmmaArgs& a, const Part& part, const Place& place,
                                           float (&values)[kTileQ / 2]) {
  const Index firstRow = part.row + place.row, firstCol = part.col;
  const int left = static_cast<int>(a.sizeQ - firstCol < kTileQ ? a.sizeQ - firstCol : kTileQ);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const Index row = firstRow + 8 * half;
    const bool there = row < a.sizeP;
    if (kFinish != Finish::kRound && there && !a.plain)
      finishAffine<T, kTileQ>(a.p.epilogue, row, firstCol, place.col, left, half, values);
    T* const tile = static_cast<T*>(a.p.y.data) + row * a.p.y.rowStride + firstCol;
    storeSectors<T, kTileQ>(tile, there, place.col, left, half, values);
  }
}

}  // namespace wgmma
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_INT8_WGMMA_FINISH_CUH
