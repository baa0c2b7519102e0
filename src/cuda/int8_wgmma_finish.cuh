// SPDX-License-Identifier: MPL-2.0
// What int8_gemm_sm90.cu does with a tile's sums: 128 or 64 a thread, in registers.
//
//   fragment   thread 32w + 4g + c of a warpgroup holds rows 16w + g and 16w + g + 8 of its 64, and of each group of 8
//              columns 8i + 2c and 8i + 2c + 1: sums 4i, 4i + 1 of the upper row, 4i + 2, 4i + 3 of the lower one
#ifndef EIGENQ_CUDA_INT8_WGMMA_FINISH_CUH
#define EIGENQ_CUDA_INT8_WGMMA_FINISH_CUH

#include <type_traits>

#include "epilogue.cuh"
#include "int8_wgmma_outliers.cuh"
#include "quad_transpose.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace wgmma {

/** Of a thread's two rows. */
struct RowFactors {
  float upper, lower;
};

/** What the sums are multiplied with, but for the other side's statistics. */
template <int kTileQ>
__device__ __forceinline__ RowFactors rowFactors(const Own<kTileQ>& own, const Place& place) {
  return {static_cast<float>(rowScale(own.statsP[place.row])), static_cast<float>(rowScale(own.statsP[place.row + 8]))};
}

/** v = a group's sums, scaled. */
template <int kTileQ>
__device__ __forceinline__ void scale(const Own<kTileQ>& own, const Place& place, const RowFactors& rows, int group,
                                      const int (&sums)[kTileQ / 2], float (&v)[kGroupValues]) {
#pragma unroll
  for (int i = 0; i < kGroupValues / 4; ++i) {
    const float2 q = *reinterpret_cast<const float2*>(&own.statsQ[kGroupCols * group + 8 * i + place.col]);
    const int* const s = sums + kGroupValues * group + 4 * i;
    v[4 * i] = static_cast<float>(s[0]) * (rows.upper * q.x);
    v[4 * i + 1] = static_cast<float>(s[1]) * (rows.upper * q.y);
    v[4 * i + 2] = static_cast<float>(s[2]) * (rows.lower * q.x);
    v[4 * i + 3] = static_cast<float>(s[3]) * (rows.lower * q.y);
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

/** A group of a tile in Y, as one of a thread's two rows meets it. */
struct GroupRow {
  Index row, firstCol;  // in Y, of the group
  int col;              // the thread's first
  int left;             // columns of Y from the group's first on
  int half;             // which of the two rows
};

template <typename T>
__device__ __forceinline__ void finishAffine(const Epilogue& e, const GroupRow& at, float (&values)[kGroupValues]) {
  const bool perCol = e.biasAxis == BiasAxis::kPerCol;
  const T* const bias = static_cast<const T*>(e.bias) + at.firstCol + at.col;
  const T* const residual =
      static_cast<const T*>(e.residual.data) + at.row * e.residual.rowStride + at.firstCol + at.col;
  const float rowBias = e.biasAxis == BiasAxis::kPerRow ? toFloat(static_cast<const T*>(e.bias)[at.row]) : 0.0f;
#pragma unroll
  for (int i = 0; i < kGroupCols / 8; ++i) {
    if (8 * i + at.col >= at.left) continue;
    float2 b = make_float2(rowBias, rowBias), r = make_float2(0, 0);
    if (perCol) b = loadPair<T>(bias + 8 * i);
    if (e.residual.data) r = loadPair<T>(residual + 8 * i);
    float* const v = values + 4 * i + 2 * at.half;
    const float signedX = e.residualSign * r.x, signedY = e.residualSign * r.y;
    v[0] = bounded(e, v[0], b.x) + signedX;
    v[1] = bounded(e, v[1], b.y) + signedY;
  }
}

/** Whole 32-byte sectors at a time. float: eight bytes a lane, four lanes side by side. 16 bits: four lanes exchange
 * their parts of four groups of eight columns, and store one each. All lanes of a warp come here together. */
template <typename T>
__device__ __forceinline__ void storeSectors(T* to, bool rowThere, const GroupRow& at,
                                             const float (&values)[kGroupValues]) {
  const float* const v = values + 2 * at.half;
  if constexpr (sizeof(T) == 4) {
#pragma unroll
    for (int i = 0; i < kGroupCols / 8; ++i) {
      if (rowThere && 8 * i + at.col < at.left)
        *reinterpret_cast<float2*>(to + at.col + 8 * i) = make_float2(v[4 * i], v[4 * i + 1]);
    }
  } else {
    const int c = at.col / 2;
    std::uint32_t words[4];
#pragma unroll
    for (int i = 0; i < kGroupCols / 8; ++i) words[i] = packPair<T>(v[4 * i], v[4 * i + 1]);
    transposeQuad(words);
    if (rowThere && 8 * c < at.left)
      *reinterpret_cast<uint4*>(to + 8 * c) = make_uint4(words[0], words[1], words[2], words[3]);
  }
}

/** v → the epilogue → Y. \tparam kAffine  there is one */
template <typename T, bool kAffine>
__device__ __forceinline__ void store(const WgmmaArgs& a, const Part& part, const Place& place, int group,
                                      float (&v)[kGroupValues]) {
  const Index firstCol = part.col + kGroupCols * group;
  const int left = static_cast<int>(a.sizeQ - firstCol < kGroupCols ? a.sizeQ - firstCol : kGroupCols);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const GroupRow at = {part.row + place.row + 8 * half, firstCol, place.col, left, half};
    const bool there = at.row < a.sizeP;
    if (kAffine && there) finishAffine<T>(a.p.epilogue, at, v);
    storeSectors<T>(static_cast<T*>(a.p.y.data) + at.row * a.p.y.rowStride + firstCol, there, at, v);
  }
}

/** A tile, group by group; without an epilogue by code that has none in between. */
template <typename T, int kTileQ, bool kAffine>
__device__ __forceinline__ void finishGroups(const WgmmaArgs& a, const Part& part, const Place& place,
                                             const Own<kTileQ>& own, const int (&sums)[kTileQ / 2]) {
  const RowFactors rows = rowFactors<kTileQ>(own, place);
#pragma unroll
  for (int group = 0; group < kTileQ / kGroupCols; ++group) {
    float v[kGroupValues];
    scale<kTileQ>(own, place, rows, group, sums, v);
    store<T, kAffine>(a, part, place, group, v);
  }
}

template <typename T, int kTileQ, Finish kFinish>
__device__ __forceinline__ void finishAtOnce(const WgmmaArgs& a, const Part& part, const Place& place,
                                             const Own<kTileQ>& own, const int (&sums)[kTileQ / 2]) {
  if (kFinish == Finish::kRound || a.plain) {
    finishGroups<T, kTileQ, false>(a, part, place, own, sums);
  } else {
    finishGroups<T, kTileQ, true>(a, part, place, own, sums);
  }
}

/** What a thread's values are multiplied with on behalf of one side: stat/127, of its two rows or of each column. */
template <int kTileQ>
class UnitsOf {
 public:
  __device__ __forceinline__ UnitsOf(const Own<kTileQ>& own, const Place& place, bool ofRows)
      : m_own(own),
        m_place(place),
        m_rows{own.statsP[place.row] * kUnit, own.statsP[place.row + 8] * kUnit},
        m_ofRows(ofRows) {}
  /** Of values 4·i to 4·i + 3. */
  __device__ __forceinline__ float4 operator()(int i) const {
    const float2 q = *reinterpret_cast<const float2*>(&m_own.statsQ[8 * i + m_place.col]);
    const float2 cols = make_float2(q.x * kUnit, q.y * kUnit);
    return m_ofRows ? make_float4(m_rows.upper, m_rows.upper, m_rows.lower, m_rows.lower)
                    : make_float4(cols.x, cols.y, cols.x, cols.y);
  }

 private:
  const Own<kTileQ>& m_own;
  const Place& m_place;
  RowFactors m_rows;
  bool m_ofRows;
};

/** A tile with packed outliers: W's unit times (X's unit times the sums + X's columns times W's codes). */
template <typename T, int kTileQ>
__device__ __forceinline__ void finishPacked(const WgmmaArgs& a, const Part& part, const Place& place,
                                             const Own<kTileQ>& own, PackedReader<kTileQ>& packed,
                                             int (&sums)[kTileQ / 2]) {
  const UnitsOf<kTileQ> ofX(own, place, a.sideP.isX), ofW(own, place, !a.sideP.isX);
  const auto multiply = [](int& bits, float unit) { bits = __float_as_int(static_cast<float>(bits) * unit); };
#pragma unroll
  for (int i = 0; i < kTileQ / 8; ++i) {
    const float4 unit = ofX(i);
    multiply(sums[4 * i], unit.x);
    multiply(sums[4 * i + 1], unit.y);
    multiply(sums[4 * i + 2], unit.z);
    multiply(sums[4 * i + 3], unit.w);
  }
  packed.template add<T>(place, packed.waitForCount(), sums);
  const auto storeGroups = [&](auto affine) {
#pragma unroll
    for (int group = 0; group < kTileQ / kGroupCols; ++group) {
      float scaled[kGroupValues];
#pragma unroll
      for (int i = 0; i < kGroupValues / 4; ++i) {
        const float4 unit = ofW(kGroupCols / 8 * group + i);
        const int* const from = sums + kGroupValues * group + 4 * i;
        scaled[4 * i] = __int_as_float(from[0]) * unit.x;
        scaled[4 * i + 1] = __int_as_float(from[1]) * unit.y;
        scaled[4 * i + 2] = __int_as_float(from[2]) * unit.z;
        scaled[4 * i + 3] = __int_as_float(from[3]) * unit.w;
      }
      store<T, decltype(affine)::value>(a, part, place, group, scaled);
    }
  };
  if (a.plain) return storeGroups(std::false_type());
  storeGroups(std::true_type());
}

/** A tile with gathered outliers. \param addOutliers  adds them to KeptValues */
template <typename T, int kTileQ, typename AddOutliers>
__device__ __forceinline__ void finishKept(const WgmmaArgs& a, const Part& part, const Place& place,
                                           const Own<kTileQ>& own, const int (&sums)[kTileQ / 2],
                                           AddOutliers&& addOutliers) {
  const RowFactors rows = rowFactors<kTileQ>(own, place);
  KeptValues<kTileQ> kept;
#pragma unroll
  for (int group = 0; group < kTileQ / kGroupCols; ++group) {
    float v[kGroupValues];
    scale<kTileQ>(own, place, rows, group, sums, v);
#pragma unroll
    for (int i = 0; i < kGroupValues; ++i) kept.values[group * kGroupValues + i] = v[i];
  }
  addOutliers(kept);
  kept.forEachGroup([&](int group, float(&v)[kGroupValues]) {
    if (a.plain) return store<T, false>(a, part, place, group, v);
    store<T, true>(a, part, place, group, v);
  });
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
    int sum = indexed[i];
    for (int o = 0; o < count; ++o) {
      outliers = fmaf(outlierOf(a, a.sideP, row, o), outlierOf(a, a.sideQ, col, o), outliers);
      if (a.marks) sum -= outlierCode(a, a.sideP, row, o) * outlierCode(a, a.sideQ, col, o);
    }
    const float statP = a.sideP.stats[row], statQ = a.sideQ.stats[col];
    const float v =
        scaledSum(exactDouble(sum), rowScale(a.sideP.isX ? statP : statQ), a.sideP.isX ? statQ : statP, outliers);
    storeResult<T>(a.p.y, a.p.epilogue, v, row, col);
  }
}

}  // namespace wgmma
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_INT8_WGMMA_FINISH_CUH
