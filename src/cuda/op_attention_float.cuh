// SPDX-License-Identifier: MPL-2.0
// Products of tiles in shared memory by plain float arithmetic, for the attention kernels that take any scalar type and
// any head dimension.
//
//   a tile     kTile tokens × kDim entries of one head, as floats; entries beyond headDim and tokens beyond the end of
//              the sequence are zero. Rows are kDim + 4 floats apart: the 16-byte reads of eight lanes, each of its own
//              row, then meet all 32 banks.
//   a block    16×16 threads; thread (ty, tx) has rows ty + 16r and columns tx + 16c of kTile×kTile products, and rows
//              ty + 16r and entries kVec·(tx + 16j) … of kTile×kDim sums.
#ifndef EIGENQ_CUDA_OP_ATTENTION_FLOAT_CUH
#define EIGENQ_CUDA_OP_ATTENTION_FLOAT_CUH

#include <eigen_q/src/gpu/OpKernels.h>

#include "op_attention_tiles.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {

/** Tokens×features as a kernel for any scalar type sees it, from the first entry of a head on. */
template <typename Void>
struct HeadView {
  Void* data;
  ScalarType scalar;
  Index offset;  // of the head, in entries
  Index stride;

  template <typename View>
  __device__ __forceinline__ HeadView(const View& m, Index head, Index headDim)
      : data(m.data), scalar(m.scalar), offset(head * headDim), stride(m.colStride) {}
  __device__ __forceinline__ float load(Index token, Index entry) const {
    return loadAs(scalar, data, offset + token * stride + entry);
  }
  __device__ __forceinline__ void store(Index token, Index entry, float v, bool accumulate) const {
    storeAs(scalar, data, offset + token * stride + entry, accumulate ? load(token, entry) + v : v);
  }
};

template <int kDim_, int kTile_>
struct FloatTile {
  static constexpr int kDim = kDim_, kTile = kTile_;
  static constexpr int kThreads = 256;
  static constexpr int kRows = kTile / 16;         // of a thread, in both kinds of result
  static constexpr int kVec = kDim >= 64 ? 4 : 2;  // neighbouring entries of a thread
  static constexpr int kGroups = kDim / (16 * kVec);
  static constexpr int kStride = kDim + 4, kWeightStride = kTile + 4;
  static constexpr int kFloats = kTile * kStride, kWeightFloats = kTile * kWeightStride;
  static_assert(kTile % 16 == 0 && kDim % (16 * kVec) == 0, "16×16 threads share a tile evenly");

  using Scores = float[kRows][kRows];
  using Sums = float[kRows][kGroups][kVec];

  static __device__ __forceinline__ int ty() { return static_cast<int>(threadIdx.x) / 16; }
  static __device__ __forceinline__ int tx() { return static_cast<int>(threadIdx.x) % 16; }

  static __device__ __forceinline__ void fill(float* tile, const HeadView<const void>& m, int first, int end,
                                              int headDim, float scale) {
    for (int n = static_cast<int>(threadIdx.x); n < kTile * kDim; n += kThreads) {
      const int row = n / kDim, entry = n % kDim;
      const bool inside = first + row < end && entry < headDim;
      tile[row * kStride + entry] = inside ? scale * m.load(first + row, entry) : 0.0f;
    }
  }

  /** s = A·Bᵀ over the kDim entries. */
  static __device__ __forceinline__ void multiply(const float* a, const float* b, Scores& s) {
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int c = 0; c < kRows; ++c) s[r][c] = 0;
#pragma unroll 4
    for (int d = 0; d < kDim; d += 4) {
      float4 x[kRows], y[kRows];
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        x[r] = *reinterpret_cast<const float4*>(a + (ty() + 16 * r) * kStride + d);
        y[r] = *reinterpret_cast<const float4*>(b + (tx() + 16 * r) * kStride + d);
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r)
#pragma unroll
        for (int c = 0; c < kRows; ++c)
          s[r][c] = fmaf(x[r].x, y[c].x, fmaf(x[r].y, y[c].y, fmaf(x[r].z, y[c].z, fmaf(x[r].w, y[c].w, s[r][c]))));
    }
  }

  /** sums += W·B, W kTile×kTile weights. */
  static __device__ __forceinline__ void addWeighted(const float* weights, const float* b, Sums& sums) {
#pragma unroll 4
    for (int n = 0; n < kTile; ++n) {
      float w[kRows], v[kGroups][kVec];
#pragma unroll
      for (int r = 0; r < kRows; ++r) w[r] = weights[(ty() + 16 * r) * kWeightStride + n];
#pragma unroll
      for (int j = 0; j < kGroups; ++j) {
        const auto pack = *reinterpret_cast<const Pack<float, kVec>*>(b + n * kStride + kVec * (tx() + 16 * j));
#pragma unroll
        for (int k = 0; k < kVec; ++k) v[j][k] = pack.values[k];
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r)
#pragma unroll
        for (int j = 0; j < kGroups; ++j)
#pragma unroll
          for (int k = 0; k < kVec; ++k) sums[r][j][k] = fmaf(w[r], v[j][k], sums[r][j][k]);
    }
  }

  static __device__ __forceinline__ void putWeights(const Scores& s, float* weights) {
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int c = 0; c < kRows; ++c) weights[(ty() + 16 * r) * kWeightStride + tx() + 16 * c] = s[r][c];
  }

  /** Rows first … of the head, those of the sequence; row r is multiplied by factors[r]. */
  static __device__ __forceinline__ void write(const Sums& sums, const float (&factors)[kRows], const HeadView<void>& m,
                                               int first, int end, int headDim, bool accumulate) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int token = first + ty() + 16 * r;
      if (token >= end) continue;
#pragma unroll
      for (int j = 0; j < kGroups; ++j)
#pragma unroll
        for (int k = 0; k < kVec; ++k) {
          const int entry = kVec * (tx() + 16 * j) + k;
          if (entry < headDim) m.store(token, entry, sums[r][j][k] * factors[r], accumulate);
        }
    }
  }
};

/** Combines the 16 threads of a row, which share a half-warp. */
template <typename Op>
__device__ __forceinline__ float rowReduce(float v, Op op) {
#pragma unroll
  for (unsigned mask = 8; mask > 0; mask /= 2) v = op(v, shuffleXor(v, mask));
  return v;
}

/** Calls \a f with the smallest head dimension that the kernels are compiled for. */
template <typename F>
void dispatchHeadDim(Index headDim, F&& f) {
  if (headDim <= 32) return f(std::integral_constant<int, 32>());
  if (headDim <= 64) return f(std::integral_constant<int, 64>());
  if (headDim <= 128) return f(std::integral_constant<int, 128>());
  static_assert(kMaxHeadDim == 256, "the largest head dimension has a kernel");
  return f(std::integral_constant<int, 256>());
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_OP_ATTENTION_FLOAT_CUH
