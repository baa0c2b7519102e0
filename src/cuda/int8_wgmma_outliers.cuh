// SPDX-License-Identifier: MPL-2.0
// How the outlier columns come to a part's values in int8_gemm_sm90.cu.
//
//   packed     X's columns and W's codes, 16 at a time in shared memory: an mma.sync of 16-bit values into the
//              registers of the sums, which are floats by then
//   gathered   eight columns at a time as floats in shared memory, fmaf by fmaf: for operands that are not of 16 bits
#ifndef EIGENQ_CUDA_INT8_WGMMA_OUTLIERS_CUH
#define EIGENQ_CUDA_INT8_WGMMA_OUTLIERS_CUH

#include "int8_wgmma_part.cuh"
#include "ptx.cuh"
#include "ptx_shared.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace wgmma {

__device__ __forceinline__ float outlierOf(const WgmmaArgs& a, const Side& side, Index row, int o) {
  if (side.gathered && o < kGatheredOutliers) return side.gathered[o * side.gatheredStride + row];
  const Index k = a.p.activations.outliers[o];
  return side.isX ? readFloat(a.p.x, row, k) : outlierWeight(a.p, row, k);
}

__device__ __forceinline__ void multiplyPacked(__half, float (&d)[4], const uint2& low, const uint2& high,
                                               const uint2& q) {
  ptx::mmaHalf(d, low.x, high.x, low.y, high.y, q.x, q.y);
}
__device__ __forceinline__ void multiplyPacked(__nv_bfloat16, float (&d)[4], const uint2& low, const uint2& high,
                                               const uint2& q) {
  ptx::mmaBFloat16(d, low.x, high.x, low.y, high.y, q.x, q.y);
}

/** Asks for a chunk of the packed outliers of a part: 32 bytes a row, those of P first. */
template <int kTileQ>
__device__ __forceinline__ void askForPacked(const WgmmaArgs& a, const Part& part, int chunk, Own<kTileQ>& own) {
  constexpr int kPieces = 2 * (kGroupRows + kTileQ);  // of 16 bytes
  for (int at = static_cast<int>(threadIdx.x) % kGroup; at < kPieces; at += kGroup) {
    const int i = at / 2;
    const bool ofP = i < kGroupRows;
    const Side& side = ofP ? a.sideP : a.sideQ;
    const Index row = ofP ? part.row + i : part.col + i - kGroupRows;
    const auto* const from = static_cast<const uint4*>(side.packed) + 2 * (chunk * side.packedStride + row) + at % 2;
    ptx::copyAsync(reinterpret_cast<uint4*>(own.packed) + at, from, true);
  }
  ptx::commitCopies();
}

/** values += the packed outliers: X in its units, W in codes. A lane takes four neighbours for the four places that a
 * fragment has for it, the same of both sides. The first chunk has been asked for. */
template <typename T, int kTileQ>
__device__ __forceinline__ void addPackedOutliers(const WgmmaArgs& a, const Part& part, const Place& place, int count,
                                                  Own<kTileQ>& own, float (&values)[kTileQ / 2]) {
  const auto four = [&](int row) { return *reinterpret_cast<const uint2*>(own.packed[row] + 4 * place.col); };
  const int chunks = (count + 15) / 16;
  for (int chunk = 0; chunk < chunks; ++chunk) {
    if (chunk > 0) {
      ptx::syncThreads(part.barrier, kGroup);  // the last one has been used
      askForPacked<kTileQ>(a, part, chunk, own);
    }
    ptx::waitForCopies<0>();
    ptx::syncThreads(part.barrier, kGroup);
    const uint2 low = four(place.row), high = four(place.row + 8);
#pragma unroll
    for (int i = 0; i < kTileQ / 8; ++i) {
      float d[4] = {values[4 * i], values[4 * i + 1], values[4 * i + 2], values[4 * i + 3]};
      multiplyPacked(T(), d, low, high, four(kGroupRows + 8 * i + place.row % 8));
#pragma unroll
      for (int e = 0; e < 4; ++e) values[4 * i + e] = d[e];
    }
  }
}

/** values += the outlier columns. */
template <int kTileQ>
__device__ __forceinline__ void addOutliers(const WgmmaArgs& a, const Part& part, const Place& place, int count,
                                            Own<kTileQ>& own, float (&values)[kTileQ / 2]) {
  for (int first = 0; first < count; first += kOutliersAtOnce) {
    ptx::syncThreads(part.barrier, kGroup);  // what lies there has been used
    constexpr int kBoth = kGroupRows + kTileQ;
    for (int at = static_cast<int>(threadIdx.x) % kGroup; at < kOutliersAtOnce * kBoth; at += kGroup) {
      const int o = at / kBoth, i = at % kBoth;
      const Index row = first + o < count ? factorRow<kTileQ>(a, part, i) : -1;
      const float v = row >= 0 ? outlierOf(a, i < kGroupRows ? a.sideP : a.sideQ, row, first + o) : 0.0f;
      (i < kGroupRows ? own.outliersP[o][i] : own.outliersQ[o][i - kGroupRows]) = v;
    }
    ptx::syncThreads(part.barrier, kGroup);
    const int here = count - first < kOutliersAtOnce ? count - first : kOutliersAtOnce;
    for (int o = 0; o < here; ++o) {
      const float u = own.outliersP[o][place.row], v = own.outliersP[o][place.row + 8];
#pragma unroll
      for (int i = 0; i < kTileQ / 8; ++i) {
        const float2 w = *reinterpret_cast<const float2*>(&own.outliersQ[o][8 * i + place.col]);
        values[4 * i] = fmaf(u, w.x, values[4 * i]);
        values[4 * i + 1] = fmaf(u, w.y, values[4 * i + 1]);
        values[4 * i + 2] = fmaf(v, w.x, values[4 * i + 2]);
        values[4 * i + 3] = fmaf(v, w.y, values[4 * i + 3]);
      }
    }
  }
}

}  // namespace wgmma
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_INT8_WGMMA_OUTLIERS_CUH
