// SPDX-License-Identifier: MPL-2.0
// How the outlier columns come to a part's values in int8_gemm_sm90.cu.
//
//   packed     by a wgmma of 16-bit values, 16 columns at a time, onto the sums times X's unit: int8_wgmma_pack.cuh
//   gathered   eight columns at a time as floats in shared memory, fmaf by fmaf: for operands that are not of 16 bits
#ifndef EIGENQ_CUDA_INT8_WGMMA_OUTLIERS_CUH
#define EIGENQ_CUDA_INT8_WGMMA_OUTLIERS_CUH

#include "int8_wgmma_part.cuh"

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

/** What a warpgroup does with the packed columns of its tiles. */
template <int kTileQ>
class PackedReader {
 public:
  __device__ __forceinline__ PackedReader(PackedChunks<kTileQ>& packed, int warpgroup)
      : m_packed(packed), m_firstRow(warpgroup * kGroupRows) {}

  /** How many columns there are. */
  __device__ __forceinline__ int waitForCount() const {
    ptx::wait(ptx::sharedAddress(&m_packed.listed), 0);
    return m_packed.count;
  }
  /** v, bits of floats, += a tile's \a count columns of X times W's codes, in the order of columns. */
  template <typename T>
  __device__ __forceinline__ void add(const Place& place, int count, int (&v)[kTileQ / 2]) {
    ptx::settle(v);
    for (int first = 0; first < count; first += kPackedAtOnce) {
      ptx::wait(ptx::sharedAddress(&m_packed.full[m_ring.index]), m_ring.parity);
      const auto& halves = m_packed.p[m_ring.index];
      const auto pair = [&](int half, int row) {
        return *reinterpret_cast<const std::uint32_t*>(halves[half][m_firstRow + row].values + 2 * place.col);
      };
      std::uint32_t p[4] = {pair(0, place.row), pair(0, place.row + 8), pair(1, place.row), pair(1, place.row + 8)};
      ptx::settle(p);
      ptx::wgmmaFence();
      ptx::wgmmaBits(v, p, ptx::slicedOperand(ptx::sharedAddress(m_packed.q[m_ring.index]), 16 * kTileQ), TypeTag<T>());
      ptx::wgmmaCommit();
      ptx::wgmmaWait<0>();
      ptx::keep(p);
      handBack();
    }
    ptx::settle(v);
  }
  /** Takes a tile's chunks without looking at them. \returns how many columns there are */
  __device__ __forceinline__ int skip() {
    const int count = waitForCount();
    for (int first = 0; first < count; first += kPackedAtOnce) {
      ptx::wait(ptx::sharedAddress(&m_packed.full[m_ring.index]), m_ring.parity);
      handBack();
    }
    return count;
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
