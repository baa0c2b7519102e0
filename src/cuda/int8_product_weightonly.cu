// SPDX-License-Identifier: MPL-2.0
// int8_product_weightonly.cu: up to 16 rows of X as they are, times int8 weights; int8_decode.cuh draws the operands.
//
//   Y(i, j) = epilogue( (Σₖ x(i, k)·code(j, k)) · absmax(j)/127 )
//
// Traffic  1 B a weight, read once: 28672×8192 take 55 us at 4.3 TB/s. X comes from the first-level cache.
// Work     2 to 2.5 instructions a weight beside the products; at 18 weights a clock and multiprocessor a third of what
//          can be issued.
// Exact    A code is exact in half and in bfloat16, a float is the sum of three bfloat16, and their products are exact
//          in the float that they are summed in. The scale meets the sum in double: one rounding, where decoding every
//          weight has two.
// Needs    M ≤ 16. Rows of W at 16-byte boundaries; others are read bytewise, several times slower.
#include "epilogue.cuh"
#include "int8_decode.cuh"
#include "int8_pairs.cuh"
#include "op_launch.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

using namespace decode;

/** How X reaches the tensor cores: as kPlanes matrices of Storage, whose sum it is. */
template <typename T>
struct Operand;

template <>
struct Operand<__nv_bfloat16> {
  using Storage = __nv_bfloat16;
  using Codes = CodePairs<__nv_bfloat16>;
  static constexpr int kPlanes = 1;

  static __device__ __forceinline__ void multiply(float (&d)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2,
                                                  std::uint32_t a3, std::uint32_t b0, std::uint32_t b1) {
    ptx::mmaBFloat16(d, a0, a1, a2, a3, b0, b1);
  }
  static __device__ __forceinline__ void split(__nv_bfloat16 v, Storage (&planes)[1]) { planes[0] = v; }
};

template <>
struct Operand<__half> {
  using Storage = __half;
  using Codes = CodePairs<__half>;
  static constexpr int kPlanes = 1;

  static __device__ __forceinline__ void multiply(float (&d)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2,
                                                  std::uint32_t a3, std::uint32_t b0, std::uint32_t b1) {
    ptx::mmaHalf(d, a0, a1, a2, a3, b0, b1);
  }
  static __device__ __forceinline__ void split(__half v, Storage (&planes)[1]) { planes[0] = v; }
};

template <>
struct Operand<float> : Operand<__nv_bfloat16> {
  static constexpr int kPlanes = 3;

  /** Eight leading bits each, so that the rest is exact; infinities and NaN go whole with the first. */
  static __device__ __forceinline__ void split(float v, Storage (&planes)[3]) {
    if (!(fabsf(v) <= 3.402823466e+38f)) {
      planes[0] = __float2bfloat16_rn(v);
      planes[1] = planes[2] = __float2bfloat16_rn(0.0f);
      return;
    }
#pragma unroll
    for (int i = 0; i < 3; ++i) {
      planes[i] = __float2bfloat16_rz(v);
      v -= __bfloat162float(planes[i]);
    }
  }
};

/** X for the kernel: row i of plane s starts at (s·rows + i)·stride, 16-byte aligned, zeros up to a multiple of 16. */
struct PackedTokens {
  const void* data = nullptr;
  Index stride = 0;
};

template <typename T>
__global__ void __launch_bounds__(kThreads)
    packKernel(const __grid_constant__ ConstDenseView x, typename Operand<T>::Storage* packed, Index stride) {
  constexpr int kPlanes = Operand<T>::kPlanes;
  const Index step = static_cast<Index>(gridDim.x) * kThreads;
  for (Index at = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x; at < x.rows * stride; at += step) {
    const Index i = at / stride, k = at % stride;
    T v = fromFloat<T>(0.0f);
    if (k < x.cols) v = static_cast<const T*>(x.data)[i * x.rowStride + k * x.colStride];
    typename Operand<T>::Storage planes[kPlanes];
    Operand<T>::split(v, planes);
#pragma unroll
    for (int s = 0; s < kPlanes; ++s) packed[s * x.rows * stride + at] = planes[s];
  }
}

/** X itself where it lies as the kernel wants it, else a copy. */
template <typename T>
PackedTokens packTokens(const ConstDenseView& x, Scratch& scratch, Context& context) {
  using Storage = typename Operand<T>::Storage;
  const bool fits = Operand<T>::kPlanes == 1 && x.colStride == 1 && isAligned(x.data, 16) && x.cols % 16 == 0 &&
                    (x.rowStride % 8 == 0 || x.rows == 1);
  if (fits) return {x.data, x.rowStride};
  const Index stride = roundUp(x.cols, 16);
  Storage* const packed = scratch.array<Storage>(Operand<T>::kPlanes * x.rows * stride);
  const Index blocks = (x.rows * stride + kThreads - 1) / kThreads;
  if (blocks == 0) return {packed, stride};
  launch("packing of activations", packKernel<T>, {static_cast<unsigned>(blocks < 1024 ? blocks : 1024), kThreads},
         context, x, packed, stride);
  return {packed, stride};
}

/** sums += 16 columns a lane of rows g and g + 8 of W, times all tokens. */
template <typename T, int kTiles>
__device__ __forceinline__ void multiplyStep(const uint4& low, const uint4& high,
                                             const typename Operand<T>::Storage* const (&tokens)[kTiles],
                                             const bool (&present)[kTiles], Index planeStride, Index k, bool inside,
                                             float (&sums)[kTiles][4]) {
  const std::uint32_t lowCodes[4] = {low.x, low.y, low.z, low.w}, highCodes[4] = {high.x, high.y, high.z, high.w};
  std::uint32_t a[4][4];
#pragma unroll
  for (int s = 0; s < 4; ++s) {
    Operand<T>::Codes::pairs(lowCodes[s], a[s][0], a[s][2]);
    Operand<T>::Codes::pairs(highCodes[s], a[s][1], a[s][3]);
  }
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
#pragma unroll
    for (int plane = 0; plane < Operand<T>::kPlanes; ++plane) {
      uint4 x[2] = {};
      if (present[t] && inside) {
        const auto* const from = tokens[t] + plane * planeStride + k;
        x[0] = ptx::loadCached(from);
        x[1] = ptx::loadCached(from + 8);
      }
      Operand<T>::multiply(sums[t], a[0][0], a[0][1], a[0][2], a[0][3], x[0].x, x[0].y);
      Operand<T>::multiply(sums[t], a[1][0], a[1][1], a[1][2], a[1][3], x[0].z, x[0].w);
      Operand<T>::multiply(sums[t], a[2][0], a[2][1], a[2][2], a[2][3], x[1].x, x[1].y);
      Operand<T>::multiply(sums[t], a[3][0], a[3][1], a[3][2], a[3][3], x[1].z, x[1].w);
    }
  }
}

template <typename T, int kTiles, bool kAligned>
__global__ void __launch_bounds__(kThreads)
    weightOnlyKernel(const __grid_constant__ QuantizedProduct p, const __grid_constant__ PackedTokens x) {
  using Storage = typename Operand<T>::Storage;
  __shared__ float parts[kWarps * kMaxTokens * kRows];
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const int g = lane / 4, c = lane % 4;
  const Index firstRow = static_cast<Index>(blockIdx.x) * kRows, n = p.w.rows, depth = p.w.cols;
  const int m = static_cast<int>(p.y.rows);

  const WeightRows rows(p.w, firstRow, g);
  const Storage* tokens[kTiles];
  bool present[kTiles];
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
    present[t] = t * 8 + g < m;
    tokens[t] = static_cast<const Storage*>(x.data) + (t * 8 + g) * x.stride;
  }

  float sums[kTiles][4] = {};
  for (Index k = static_cast<Index>(warp) * kUnroll * kStep; k < depth; k += kTurn) {
    WeightBatch w;
    load<kAligned>(rows, k + 16 * c, depth, w);
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const Index at = k + u * kStep + 16 * c;
      multiplyStep<T, kTiles>(w.low[u], w.high[u], tokens, present, m * x.stride, at, at < depth, sums);
    }
  }

  storeParts<kTiles>(sums, warp, lane, parts);
  __syncthreads();
  const int token = thread / kRows, row = thread % kRows;
  const Index j = firstRow + row;
  if (token >= m || j >= n) return;
  const double scale = static_cast<double>(p.w.rowAbsmax[j]) * (Operand<T>::Codes::kUnit / 127.0);
  const float v = static_cast<float>(static_cast<double>(sumOfWarps(parts, token, row)) * scale);
  storeResult<T>(p.y, p.epilogue, v, token, j);
}

template <typename T>
void launchAs(const QuantizedProduct& p, Context& context) {
  Scratch scratch(context);
  const PackedTokens x = packTokens<T>(p.x, scratch, context);
  const auto kernel = !hasAlignedRows(p.w) ? weightOnlyKernel<T, 2, false>
                      : p.y.rows > 8       ? weightOnlyKernel<T, 2, true>
                                           : weightOnlyKernel<T, 1, true>;
  launch("int8.decode.weightonly", kernel, {blocksFor(p.w.rows), kThreads}, context, p, x);
}

}  // namespace

const char* refuseInt8WeightOnlyDecode(const QuantizedProduct& p, const Context&) {
  if (p.w.format != WeightFormat::kInt8) return "needs int8 weights";
  if (p.w.int8Activations && p.transposed) return "the activations are to be quantised";
  if (!p.transposed) return "computes X·Wᵀ only";
  if (p.x.scalar != p.y.scalar) return "X and Y are of different scalar types";
  if (p.y.rows > kMaxTokens) return "more than 16 rows of X";
  return nullptr;
}

void runInt8WeightOnlyDecode(const QuantizedProduct& p, Context& context) {
  forResult(p.y, [&](auto tag) { launchAs<typename decltype(tag)::type>(p, context); });
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
