// SPDX-License-Identifier: MPL-2.0
// Tiles of half or bfloat16 in shared memory and their products on the tensor cores, for attention.
//
//   row of a tile   one token: kDim entries in chunks of 16 bytes. Chunk c of row r lies at c ^ (r % 8) (32 entries:
//                   c ^ (r / 2 % 4)), so that the eight rows of one ldmatrix meet all 32 banks.
//   a warp          16 rows of a 64-row tile. Lane 4g + c has of each 16×8 result rows g, g + 8 at columns 2c, 2c + 1:
//                   s[n][2h + e] is row g + 8h, column 8n + 2c + e. Two neighbouring results, rounded, are just the
//                   first factor of the next product: nothing goes through memory in between.
#ifndef EIGENQ_CUDA_OP_ATTENTION_MMA_CUH
#define EIGENQ_CUDA_OP_ATTENTION_MMA_CUH

#include <eigen_q/src/gpu/OpKernels.h>

#include "op_attention_tiles.cuh"
#include "ptx.cuh"
#include "ptx_shared.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {

constexpr int kMmaThreads = 128;
constexpr int kMmaRows = 64;  // of a block: 16 a warp

__device__ __forceinline__ void mma(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1,
                                    __half) {
  ptx::mmaHalf(d, a[0], a[1], a[2], a[3], b0, b1);
}
__device__ __forceinline__ void mma(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1,
                                    __nv_bfloat16) {
  ptx::mmaBFloat16(d, a[0], a[1], a[2], a[3], b0, b1);
}

/** One head of a matrix, from its first entry on. */
template <typename T>
struct HeadColumns {
  T* data;
  Index stride;

  template <typename View>
  __device__ __forceinline__ HeadColumns(const View& m, Index head, int headDim)
      : data(static_cast<T*>(m.data) + head * headDim), stride(m.colStride) {}
};

template <typename T, int kDim_>
struct MmaTile {
  static constexpr int kDim = kDim_;
  static constexpr int kChunks = kDim / 8;
  static_assert(kDim == 32 || kDim % 64 == 0, "the swizzle is for rows of 64 or of n·128 bytes");
  using Sums = float[kDim / 8][4];

  static __device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x % kWarp); }
  /** First of the warp's rows. */
  static __device__ __forceinline__ int warpRow() { return static_cast<int>(threadIdx.x / kWarp) * 16; }

  static __device__ __forceinline__ T* at(T* tile, int row, int chunk) {
    return tile + row * kDim + 8 * (chunk ^ (kChunks == 4 ? row / 2 % 4 : row % 8));
  }

  /** Starts to copy tokens first … of a head; zeros from \a end on. */
  template <int kRows>
  static __device__ __forceinline__ void fetch(T* tile, const HeadColumns<const T>& m, int first, int end) {
    static_assert(kRows * kChunks % kMmaThreads == 0, "threads share a tile evenly");
#pragma unroll
    for (int n = 0; n < kRows * kChunks / kMmaThreads; ++n) {
      const int chunk = static_cast<int>(threadIdx.x) + n * kMmaThreads;
      const int row = chunk / kChunks, token = first + row;
      const bool inside = token < end;
      ptx::copyAsync(at(tile, row, chunk % kChunks), m.data + (inside ? token : first) * m.stride + chunk % kChunks * 8,
                     inside);
    }
  }

  /** s = A·Bᵀ: the warp's 16 rows of A against kCols rows of B. */
  template <int kCols>
  static __device__ __forceinline__ void multiply(T* a, T* b, float (&s)[kCols / 8][4]) {
#pragma unroll
    for (int n = 0; n < kCols / 8; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) s[n][i] = 0;
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
      std::uint32_t x[4];
      ptx::loadMatrices(x, at(a, warpRow() + lane() % 16, 2 * k + lane() / 16));
#pragma unroll
      for (int n = 0; n < kCols / 16; ++n) {
        std::uint32_t y[4];  // rows 16n … of B: 0 to 7 at both halves of k, then 8 to 15
        ptx::loadMatrices(y, at(b, 16 * n + lane() / 16 * 8 + lane() % 8, 2 * k + lane() / 8 % 2));
        mma(s[2 * n], x, y[0], y[1], T());
        mma(s[2 * n + 1], x, y[2], y[3], T());
      }
    }
  }

  /** sums += W·B: 16×kInner weights of the warp, rounded to T, and kInner rows of B. */
  template <int kInner>
  static __device__ __forceinline__ void addWeighted(const float (&w)[kInner / 8][4], T* b, Sums& sums) {
#pragma unroll
    for (int k = 0; k < kInner / 16; ++k) {
      const float(&left)[4] = w[2 * k], (&right)[4] = w[2 * k + 1];
      const std::uint32_t x[4] = {packPair<T>(left[0], left[1]), packPair<T>(left[2], left[3]),
                                  packPair<T>(right[0], right[1]), packPair<T>(right[2], right[3])};
#pragma unroll
      for (int n = 0; n < kDim / 16; ++n) {
        std::uint32_t y[4];  // entries 16n … of B: 0 to 7 of both halves of k, then 8 to 15
        ptx::loadMatricesTransposed(y, at(b, 16 * k + lane() / 8 % 2 * 8 + lane() % 8, 2 * n + lane() / 16));
        mma(sums[2 * n], x, y[0], y[1], T());
        mma(sums[2 * n + 1], x, y[2], y[3], T());
      }
    }
  }

  /** The warp's rows, those before \a end, times factors[h] for row g + 8h. */
  static __device__ __forceinline__ void write(const Sums& sums, const float (&factors)[2], const HeadColumns<T>& m,
                                               int first, int end, bool accumulate) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int token = first + warpRow() + lane() / 4 + 8 * h;
      if (token >= end) continue;
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n) {
        const float v[2] = {factors[h] * sums[n][2 * h], factors[h] * sums[n][2 * h + 1]};
        store(m.data + token * m.stride + 8 * n + lane() % 4 * 2, v, accumulate);
      }
    }
  }
};

/** Why the tensor-core kernels cannot take these operands; null where they can. Views without data have no say. */
const char* refuseMma(const CausalAttention& op, std::initializer_list<ConstDenseView> more);

/** Calls \a f with the scalar's TypeTag and the head dimension as a constant. */
template <typename F>
void dispatchMma(const CausalAttention& op, F&& f) {
  const auto withDim = [&](auto tag) {
    if (op.headDim == 32) return f(tag, std::integral_constant<int, 32>());
    if (op.headDim == 64) return f(tag, std::integral_constant<int, 64>());
    return f(tag, std::integral_constant<int, 128>());
  };
  op.q.scalar == ScalarType::kHalf ? withDim(TypeTag<__half>()) : withDim(TypeTag<__nv_bfloat16>());
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_OP_ATTENTION_MMA_CUH
