// SPDX-License-Identifier: MPL-2.0
// How the outlier columns come to a part's values in int8_gemm_sm90.cu.
//
//   packed     by an mma.sync of 16-bit values, 16 columns at a time, beside the sums: int8_wgmma_pack.cuh
//   gathered   eight columns at a time as floats in shared memory, fmaf by fmaf: for operands that are not of 16 bits
#ifndef EIGENQ_CUDA_INT8_WGMMA_OUTLIERS_CUH
#define EIGENQ_CUDA_INT8_WGMMA_OUTLIERS_CUH

#include "int8_wgmma_part.cuh"
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
    const auto four = [&](int row) { return *reinterpret_cast<const uint2*>(rows[row].values + 4 * place.col); };
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
  /** Takes a tile's chunks without looking at them. \returns how many columns there are */
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
