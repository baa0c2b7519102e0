// SPDX-License-Identifier: MPL-2.0
// int8_product_outliers.cu: dense copies of what LLM.int8() multiplies in full precision.
//
//   X  m×k   · · │o₀│ · · │o₁│ ·      x[0] = X(:, o₀)   x[1] = X(:, o₁) …   as floats
//   W  n×k   · · │o₀│ · · │o₁│ ·      w[0] = W(:, o₀)   w[1] = W(:, o₁) …   decoded
//
// Packed, they are as tensor cores take them: X(:, o) and the codes of W(:, o), 16 columns side by side. Codes are
// exact in 16 bits, and so their products in float; absmax/127 comes in with the integer sums' scale.
//
// How many there are is known to the device only: the grid has room for kGatheredOutliers, and blocks beyond the count
// end at once. Traffic: a 32-byte sector of W for each weight, which is why they are read once a call and not once a
// tile: 28672 rows and 8 outliers are 7 MB, 2 us.
#include "int8_kernels.h"
#include "int8_scale.cuh"
#include "op_launch.cuh"
#include "outlier_marks.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

constexpr int kThreads = 256;
constexpr int kColumnsPerBlock = 8;

__global__ void __launch_bounds__(kThreads)
    gatherKernel(const __grid_constant__ DeviceDecomposedProduct p, float* x, Index xStride, float* w, Index wStride) {
  const int count = *p.activations.outlierCount;
  const int first = static_cast<int>(blockIdx.y) * kColumnsPerBlock;
  if (first >= count) return;
  const Index at = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  const Index n = p.w.rows;
#pragma unroll
  for (int o = first; o < first + kColumnsPerBlock; ++o) {
    if (o >= count) break;
    const Index k = p.activations.outliers[o];
    if (at < n) {
      w[o * wStride + at] = outlierWeight(p, at, k);
    } else if (at - n < p.x.rows) {
      x[o * xStride + at - n] = readFloat(p.x, at - n, k);
    }
  }
}

struct PackArgs {
  DeviceDecomposedProduct p;
  Int8Codes codes;             // of p's activations
  const std::uint32_t* marks;  // null: listed and cleared already
  int* columns;                // for the list; every block writes the same
  int* count;
};

/** The first columns in shared memory, all in global memory. \returns how many there are */
__device__ __forceinline__ int listColumns(const PackArgs& a, int (&first)[kMostPacked]) {
  __shared__ int count;
  const int thread = static_cast<int>(threadIdx.x);
  if (!a.marks) {
    const int all = *a.p.activations.outlierCount;
    if (thread < all && thread < kMostPacked) first[thread] = a.p.activations.outliers[thread];
    __syncthreads();
    return all;
  }
  if (thread < 32) {
    const int all = listMarked(a.marks, markChunks(a.p.x.rows), a.p.w.cols, [&](int o, int k) {
      a.columns[o] = k;
      if (o < kMostPacked) first[o] = k;
    });
    if (thread == 0) count = all;
  }
  __syncthreads();
  if (thread == 0 && blockIdx.x == 0 && blockIdx.y == 0) *a.count = count;
  return count;
}

/** A thread packs a row of W or X. Y-blocks share the chunks of kPackedAtOnce columns. Loads of a chunk go out
 * together, as no branch and no store stands between them: behind the last column the last is read again. */
template <typename T>
__global__ void __launch_bounds__(kThreads)
    packKernel(const __grid_constant__ PackArgs a, T* x, Index xStride, T* w, Index wStride) {
  __shared__ int columns[kMostPacked];
  joinStreamThenAllow();
  const int count = listColumns(a, columns);
  const Index at = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x, n = a.p.w.rows;
  const bool ofW = at < n;
  const Index row = ofW ? at : at - n;
  if (!ofW && row >= a.p.x.rows) return;
  const std::int8_t* const weights = codesOf(a.p.w) + row * a.p.w.stride;
  const T* const values = static_cast<const T*>(a.p.x.data) + row * a.p.x.rowStride;
  std::int8_t* const codes = a.marks && !ofW ? a.codes.data + row * a.codes.stride : nullptr;
  const int packed = min(count, static_cast<int>(kMostPacked));
  for (int first = static_cast<int>(blockIdx.y * kPackedAtOnce); first < packed;
       first += static_cast<int>(gridDim.y * kPackedAtOnce)) {
    alignas(16) T chunk[kPackedAtOnce];
    if (ofW) {
      std::int8_t raw[kPackedAtOnce];
#pragma unroll
      for (int o = 0; o < kPackedAtOnce; ++o) raw[o] = weights[columns[min(first + o, packed - 1)]];
#pragma unroll
      for (int o = 0; o < kPackedAtOnce; ++o) chunk[o] = fromFloat<T>(static_cast<float>(raw[o]));
    } else {
#pragma unroll
      for (int o = 0; o < kPackedAtOnce; ++o) chunk[o] = values[columns[min(first + o, packed - 1)] * a.p.x.colStride];
    }
#pragma unroll
    for (int o = 0; o < kPackedAtOnce; ++o) chunk[o] = first + o < packed ? chunk[o] : fromFloat<T>(0.0f);
    const Index line = first / kPackedAtOnce * (ofW ? wStride : xStride) + row;
    uint4* const to = reinterpret_cast<uint4*>((ofW ? w : x) + line * kPackedAtOnce);
    to[0] = reinterpret_cast<const uint4*>(chunk)[0];
    to[1] = reinterpret_cast<const uint4*>(chunk)[1];
    for (int o = first; codes && o < min(first + static_cast<int>(kPackedAtOnce), packed); ++o) codes[columns[o]] = 0;
  }
  for (int o = packed; codes && blockIdx.y == 0 && o < count; ++o) codes[a.columns[o]] = 0;
}

template <typename T>
void launchPack(const PackArgs& args, T* x, Index xStride, T* w, Index wStride, Context& context) {
  const dim3 grid(static_cast<unsigned>(ceilDiv(args.p.w.rows + args.p.x.rows, kThreads)), 2);
  if (args.marks)
    return launchEarly("packing of outliers", packKernel<T>, {grid, kThreads}, context, args, x, xStride, w, wStride);
  launch("packing of outliers", packKernel<T>, {grid, kThreads}, context, args, x, xStride, w, wStride);
}

}  // namespace

PackedOutliers packOutliers(DeviceDecomposedProduct& p, const Int8Codes& codes, const std::uint32_t* marks,
                            Index rowMultiple, Scratch& scratch, Context& context) {
  PackArgs args = {p, codes, marks, nullptr, nullptr};
  if (marks) {
    p.activations.outliers = args.columns = scratch.array<int>(p.w.cols);
    p.activations.outlierCount = args.count = scratch.array<int>(1);
  }
  const Index xStride = roundUp(p.x.rows, rowMultiple), wStride = roundUp(p.w.rows, rowMultiple);
  std::uint16_t* const x = scratch.array<std::uint16_t>(kMostPacked * xStride);
  std::uint16_t* const w = scratch.array<std::uint16_t>(kMostPacked * wStride);
  dispatchSixteenBits(p.x.scalar, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launchPack(args, reinterpret_cast<T*>(x), xStride, reinterpret_cast<T*>(w), wStride, context);
  });
  return {x, xStride, w, wStride};
}

GatheredOutliers gatherOutliers(const DeviceDecomposedProduct& p, Scratch& scratch, Context& context) {
  if (!p.activations.outlierCount) return {};
  // Eight values are read at a time, from a multiple of four on: room for those behind the last.
  const Index xStride = roundUp(p.x.rows + 4, 8), wStride = roundUp(p.w.rows + 4, 8);
  const Index most = p.w.cols < kGatheredOutliers ? roundUp(p.w.cols, kColumnsPerBlock) : kGatheredOutliers;
  float* const x = scratch.array<float>(most * xStride);
  float* const w = scratch.array<float>(most * wStride);
  const dim3 grid(static_cast<unsigned>((p.w.rows + p.x.rows + kThreads - 1) / kThreads),
                  static_cast<unsigned>(most / kColumnsPerBlock));
  launch("gather of outlier columns", gatherKernel, {grid, kThreads}, context, p, x, xStride, w, wStride);
  return {x, xStride, w, wStride};
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
