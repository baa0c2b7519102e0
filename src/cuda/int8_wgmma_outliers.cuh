// SPDX-License-Identifier: MPL-2.0
// How the outlier columns come to a part's values in int8_gemm_sm90.cu.
//
//   packed     by an mma.sync of 16-bit values, 16 columns at a time, into the registers of the sums, which are floats
//              by then. Three warps of the third warpgroup list the columns once, and gather them for a tile while the
//              others multiply it: W's codes, and what X's codes left of X
//
//                packers    │ list │ tile 0 │ tile 1 │ …          ring of two chunks:  P 128 rows │ Q 128 or 256
//                consumers  │ multiply tile 0 │ + │ multiply tile 1 │ + │ …            of 32 bytes
//
//   gathered   eight columns at a time as floats in shared memory, fmaf by fmaf: for operands that are not of 16 bits
//
// What the codes left: a product right behind its quantiser has codes of outlier columns in its integer sums, but 0 for
// the outliers themselves. So x − code·absmax/127 is what remains to be multiplied: all of an outlier, and the rounding
// error of its column's other values, exact to 2⁻⁹ of that error. Nothing has to be cleared between the two launches.
#ifndef EIGENQ_CUDA_INT8_WGMMA_OUTLIERS_CUH
#define EIGENQ_CUDA_INT8_WGMMA_OUTLIERS_CUH

#include "int8_wgmma_part.cuh"
#include "int8_wgmma_walk.cuh"
#include "outlier_marks.cuh"
#include "ptx.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace wgmma {

__device__ __forceinline__ float outlierOf(const WgmmaArgs& a, const Side& side, Index row, int o) {
  if (side.gathered && o < kGatheredOutliers) return side.gathered[o * side.gatheredStride + row];
  const Index k = a.p.activations.outliers[o];
  return side.isX ? readFloat(a.p.x, row, k) : outlierWeight(a.p, row, k);
}
__device__ __forceinline__ int outlierCode(const WgmmaArgs& a, const Side& side, Index row, int o) {
  const Index k = a.p.activations.outliers[o];
  return side.isX ? a.p.activations.codes[row * a.p.activations.stride + k] : codesOf(a.p.w)[row * a.p.w.stride + k];
}

__device__ __forceinline__ void multiplyPacked(__half, float (&d)[4], const uint2& low, const uint2& high,
                                               const uint2& q) {
  ptx::mmaHalf(d, low.x, high.x, low.y, high.y, q.x, q.y);
}
__device__ __forceinline__ void multiplyPacked(__nv_bfloat16, float (&d)[4], const uint2& low, const uint2& high,
                                               const uint2& q) {
  ptx::mmaBFloat16(d, low.x, high.x, low.y, high.y, q.x, q.y);
}

// ---- the packers

/** Whose barriers these are: by one thread, before any other comes here. */
template <int kTileQ>
__device__ __forceinline__ void initPacked(PackedChunks<kTileQ>& packed) {
#pragma unroll
  for (int slot = 0; slot < kPackedSlots; ++slot) {
    ptx::initBarrier(ptx::sharedAddress(&packed.full[slot]), kPackers);
    ptx::initBarrier(ptx::sharedAddress(&packed.empty[slot]), kConsumers / 32);
  }
  ptx::initBarrier(ptx::sharedAddress(&packed.listed), 1);
}

/** The columns, by a warp. */
template <int kTileQ>
__device__ __forceinline__ void listColumns(const WgmmaArgs& a, PackedChunks<kTileQ>& packed) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  int count = 0;
  if (a.marks) {
    count = listMarked<4, 8>(a.marks, markChunks(a.p.x.rows), a.p.w.cols, [&](int o, int k) {
      a.columns[o] = k;
      if (o < kHeldColumns) packed.columns[o] = k;
    });
  } else {
    count = outlierCount(a.p.activations);
    for (int o = lane; o < min(count, kHeldColumns); o += 32) packed.columns[o] = a.p.activations.outliers[o];
  }
  if (lane == 0) packed.count = count;
  __syncwarp();
  // Behind the last column the last again, up to a multiple of four.
  const int at = count + lane;
  if (count > 0 && lane < (-count & 3) && at < kHeldColumns) packed.columns[at] = packed.columns[count - 1];
  __syncwarp();
  if (lane == 0) ptx::arrive(ptx::sharedAddress(&packed.listed));
}

/** The columns from number \a first on, of which there are \a count: behind the last the last again. */
__device__ __forceinline__ int4 fourColumns(const WgmmaArgs& a, const int (&held)[kHeldColumns], int first, int count) {
  if (first < kHeldColumns) return *reinterpret_cast<const int4*>(held + first);
  const int* const list = a.p.activations.outliers;
  const int last = count - 1;
  return {list[first], list[min(first + 1, last)], list[min(first + 2, last)], list[min(first + 3, last)]};
}

/** Four columns of a row of X, what the codes left of them, or of codes of W: loaded, and later packed. */
template <typename T, bool kIsX>
struct FourOfRow {
  T values[kIsX ? 4 : 1];
  std::int8_t codes[4];
  float stat;

  __device__ __forceinline__ void load(const WgmmaArgs& a, const Side& side, Index row, const int4& columns) {
    const std::int8_t* const from =
        kIsX ? a.p.activations.codes + row * a.p.activations.stride : codesOf(a.p.w) + row * a.p.w.stride;
    codes[0] = from[columns.x], codes[1] = from[columns.y], codes[2] = from[columns.z], codes[3] = from[columns.w];
    if constexpr (kIsX) {
      const T* const x = static_cast<const T*>(a.p.x.data) + row * a.p.x.rowStride;
      const Index step = a.p.x.colStride;
      values[0] = x[columns.x * step], values[1] = x[columns.y * step];
      values[2] = x[columns.z * step], values[3] = x[columns.w * step];
      stat = side.stats[row];
    }
  }
  /** \param there  columns that are there */
  __device__ __forceinline__ uint2 packed(int there) const {
    float v[4];
#pragma unroll
    for (int o = 0; o < 4; ++o) {
      const float code = static_cast<float>(codes[o]);
      v[o] = code;
      if constexpr (kIsX) v[o] = fmaf(-code, stat * kUnit, toFloat(values[o]));
      if (o >= there) v[o] = 0;
    }
    return make_uint2(packPair<T>(v[0], v[1]), packPair<T>(v[2], v[3]));
  }
};

/** A chunk of one side, \a rows rows, of which \a there are there: four columns of a row an item, kAtOnce items of a
 * thread under way at once. Nothing waits for a load before all are. */
template <typename T, bool kIsX, int kAtOnce, int kTileQ>
__device__ __forceinline__ void packSide(const WgmmaArgs& a, const PackedChunks<kTileQ>& packed, const Side& side,
                                         Index firstRow, Index there, int rows, int first,
                                         char (*to)[2 * kPackedAtOnce]) {
  const int thread = static_cast<int>(threadIdx.x) - kConsumers - 32, count = packed.count;
  const Index last = there - 1;
#pragma unroll 1
  for (int begin = thread; begin < kPackedAtOnce / 4 * rows; begin += kAtOnce * kPackers) {
    FourOfRow<T, kIsX> four[kAtOnce];
#pragma unroll
    for (int n = 0; n < kAtOnce; ++n) {
      const int item = begin + n * kPackers, column = first + item / rows * 4;
      const Index row = item % rows;
      if (column < count)
        four[n].load(a, side, firstRow + (row < last ? row : last), fourColumns(a, packed.columns, column, count));
    }
#pragma unroll
    for (int n = 0; n < kAtOnce; ++n) {
      const int item = begin + n * kPackers, quarter = item / rows, left = count - first - 4 * quarter;
      if (quarter < kPackedAtOnce / 4)
        reinterpret_cast<uint2*>(to[item % rows])[quarter] = left > 0 ? four[n].packed(left) : make_uint2(0, 0);
    }
  }
}

/** What the packers do: kPackers threads behind the copying warp. */
template <typename T, int kTileQ>
__device__ __forceinline__ void pack(const WgmmaArgs& a, PackedChunks<kTileQ>& packed) {
  constexpr int kBarrier = 1 + kTileP / kGroupRows;  // behind those of the parts
  if (threadIdx.x < kConsumers + 64) listColumns(a, packed);
  ptx::syncThreads(kBarrier, kPackers);
  const int count = packed.count;
  Ring<kPackedSlots> ring;
  for (Walk walk(a); !walk.done(); walk.advance()) {
    const TileAt at = walk.tile();
    const Index rowP = at.p * kTileP, rowQ = at.q * kTileQ;
    for (int first = 0; first < max(count, 1); first += kPackedAtOnce, ring.advance()) {  // one of zeros at least
      ptx::wait(ptx::sharedAddress(&packed.empty[ring.index]), ring.parity ^ 1);
      const auto p = packed.rows[ring.index], q = p + kTileP;
      if (a.sideP.isX) {
        packSide<T, false, 4>(a, packed, a.sideQ, rowQ, a.sizeQ - rowQ, kTileQ, first, q);
        packSide<T, true, 2>(a, packed, a.sideP, rowP, a.sizeP - rowP, kTileP, first, p);
      } else {
        packSide<T, false, 4>(a, packed, a.sideP, rowP, a.sizeP - rowP, kTileP, first, p);
        packSide<T, true, 2>(a, packed, a.sideQ, rowQ, a.sizeQ - rowQ, kTileQ, first, q);
      }
      ptx::arrive(ptx::sharedAddress(&packed.full[ring.index]));
    }
  }
}

// ---- the warpgroups that multiply

/** What a warpgroup does with the packed columns of its tiles. */
template <int kTileQ>
class PackedReader {
 public:
  __device__ __forceinline__ PackedReader(PackedChunks<kTileQ>& packed, int warpgroup)
      : m_packed(packed), m_firstRow(warpgroup * kGroupRows) {}

  /** How many columns there are, of zeros at least one. */
  __device__ __forceinline__ int waitForCount() const {
    ptx::wait(ptx::sharedAddress(&m_packed.listed), 0);
    return max(m_packed.count, 1);
  }
  /** Waits for \a chunks chunks, no more than the ring has slots. */
  __device__ __forceinline__ void waitFor(int chunks) const {
    Ring<kPackedSlots> ring = m_ring;
    for (int chunk = 0; chunk < chunks; ++chunk, ring.advance())
      ptx::wait(ptx::sharedAddress(&m_packed.full[ring.index]), ring.parity);
  }
  __device__ __forceinline__ void handBack(int chunks) {
    for (int chunk = 0; chunk < chunks; ++chunk) handBack();
  }
  /** v += chunk \a chunk of those that wait, X times W's codes, times W's unit. A lane takes four neighbours for the
   * four places that a fragment has for it, the same of both sides. */
  template <typename T>
  __device__ __forceinline__ void add(const WgmmaArgs& a, const Own<kTileQ>& own, const Place& place, int group,
                                      int chunk, float (&v)[kGroupValues]) const {
    const auto& rows = m_packed.rows[(m_ring.index + chunk) % kPackedSlots];
    const auto four = [&](int row) { return *reinterpret_cast<const uint2*>(rows[row] + 4 * place.col); };
    const uint2 low = four(m_firstRow + place.row), high = four(m_firstRow + place.row + 8);
    const float upper = own.statsP[place.row] * kUnit, lower = own.statsP[place.row + 8] * kUnit;
#pragma unroll
    for (int i = 0; i < kGroupValues / 4; ++i) {
      const int col = kGroupCols * group + 8 * i;
      float d[4] = {};
      multiplyPacked(T(), d, low, high, four(kTileP + col + place.row % 8));
      const float2 q = *reinterpret_cast<const float2*>(&own.statsQ[col + place.col]);
      const float2 unit = make_float2(q.x * kUnit, q.y * kUnit);
      v[4 * i] = fmaf(d[0], a.sideP.isX ? unit.x : upper, v[4 * i]);
      v[4 * i + 1] = fmaf(d[1], a.sideP.isX ? unit.y : upper, v[4 * i + 1]);
      v[4 * i + 2] = fmaf(d[2], a.sideP.isX ? unit.x : lower, v[4 * i + 2]);
      v[4 * i + 3] = fmaf(d[3], a.sideP.isX ? unit.y : lower, v[4 * i + 3]);
    }
  }
  /** The same of all chunks of a tile, one after another, for all values. */
  template <typename T>
  __device__ __forceinline__ void addAll(const WgmmaArgs& a, const Own<kTileQ>& own, const Place& place, int count,
                                         KeptValues<kTileQ>& kept) {
#pragma unroll 1
    for (int first = 0; first < count; first += kPackedAtOnce) {
      waitFor(1);
      kept.forEachGroup([&](int group, float(&v)[kGroupValues]) { add<T>(a, own, place, group, 0, v); });
      handBack();
    }
  }
  /** Takes a tile's chunks without looking at them.
eturns how many columns there are */
  __device__ __forceinline__ int skip() {
    const int count = waitForCount();
    for (int first = 0; first < count; first += kPackedAtOnce) {
      waitFor(1);
      handBack();
    }
    return m_packed.count;
  }

 private:
  __device__ __forceinline__ void handBack() {
    __syncwarp();
    if (threadIdx.x % 32 == 0) ptx::arrive(ptx::sharedAddress(&m_packed.empty[m_ring.index]));
    m_ring.advance();
  }

  PackedChunks<kTileQ>& m_packed;
  Ring<kPackedSlots> m_ring;
  int m_firstRow;
};

// ---- gathered columns

/** kept += the outlier columns. */
template <int kTileQ>
__device__ __forceinline__ void addOutliers(const WgmmaArgs& a, const Part& part, const Place& place, int count,
                                            GatheredChunk<kTileQ>& chunk, KeptValues<kTileQ>& kept) {
#pragma unroll 1
  for (int first = 0; first < count; first += kOutliersAtOnce) {
    ptx::syncThreads(part.barrier, kGroup);  // what lies there has been used
    constexpr int kBoth = kGroupRows + kTileQ;
    for (int at = static_cast<int>(threadIdx.x) % kGroup; at < kOutliersAtOnce * kBoth; at += kGroup) {
      const int o = at / kBoth, i = at % kBoth;
      const Index row = first + o < count ? factorRow<kTileQ>(a, part, i) : -1;
      const float v = row >= 0 ? outlierOf(a, i < kGroupRows ? a.sideP : a.sideQ, row, first + o) : 0.0f;
      (i < kGroupRows ? chunk.p[o][i] : chunk.q[o][i - kGroupRows]) = v;
    }
    ptx::syncThreads(part.barrier, kGroup);
    const int here = count - first < kOutliersAtOnce ? count - first : kOutliersAtOnce;
    kept.forEachGroup([&](int group, float(&values)[kGroupValues]) {
      for (int o = 0; o < here; ++o) {
        const float u = chunk.p[o][place.row], v = chunk.p[o][place.row + 8];
#pragma unroll
        for (int i = 0; i < kGroupCols / 8; ++i) {
          const float2 w = *reinterpret_cast<const float2*>(&chunk.q[o][kGroupCols * group + 8 * i + place.col]);
          values[4 * i] = fmaf(u, w.x, values[4 * i]);
          values[4 * i + 1] = fmaf(u, w.y, values[4 * i + 1]);
          values[4 * i + 2] = fmaf(v, w.x, values[4 * i + 2]);
          values[4 * i + 3] = fmaf(v, w.y, values[4 * i + 3]);
        }
      }
    });
  }
}

}  // namespace wgmma
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_INT8_WGMMA_OUTLIERS_CUH
