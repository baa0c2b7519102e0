// SPDX-License-Identifier: MPL-2.0
// vectorwise_product.cu: Y = A·Bᵀ of matrices that were quantised by rows, from exact sums of their codes.
//
//   codes  → int8Gemm → int32 sums of a slab of Y ─┐
//   codes  → sums of rows, zero-point types only ──┴→ y(i, j) in double, rounded once
//
// Traffic  4 B of sums a value, written and read; a slab of them stays in the second-level cache.
// Needs    nothing: codes whose rows are not contiguous are laid out in rows first.
#include <eigen_q/src/VectorwiseCodec.h>
#include <eigen_q/src/gpu/VectorwiseKernels.h>

#include <algorithm>
#include <cassert>

#include "int8_product.h"
#include "op_launch.cuh"
#include "product_reference.h"
#include "scalar.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

constexpr unsigned kThreads = 256, kWarps = kThreads / 32;
constexpr Index kMostBlocks = Index{1} << 16;
constexpr Index kSlabSums = Index{1} << 23;  // 32 MB

LaunchShape shapeFor(Index items, Index itemsPerBlock) {
  return {static_cast<unsigned>(std::min(ceilDiv(items, itemsPerBlock), kMostBlocks)), kThreads};
}

/** A warp a row; exact, for codes are whole numbers. */
__global__ void __launch_bounds__(kThreads) sumCodes(const CodesView codes, double* sums) {
  const Index lane = threadIdx.x % 32, step = static_cast<Index>(gridDim.x) * kWarps;
  for (Index i = static_cast<Index>(blockIdx.x) * kWarps + threadIdx.x / 32; i < codes.rows; i += step) {
    long long sum = 0;
    for (Index k = lane; k < codes.cols; k += 32) sum += codes.data[i * codes.rowStride + k * codes.colStride];
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, distance);
    if (lane == 0) sums[i] = static_cast<double>(sum);
  }
}

struct SumsProblem {
  const std::int32_t* sums;
  VectorwiseRows a, b;
  const double* aSums;  // zero-point types only
  const double* bSums;
  DenseView y;
};

template <typename T>
__global__ void __launch_bounds__(kThreads) finishSums(const SumsProblem p) {
  const Index step = static_cast<Index>(gridDim.x) * kThreads, n = p.y.cols;
  for (Index at = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x; at < p.y.rows * n; at += step) {
    const Index i = at / n, j = at % n, va = p.a.vectorOf(i), vb = p.b.vectorOf(j);
    double sum = p.sums[at];
    if (isZeropoint(p.a.type)) {
      sum = EigenQ::internal::addZeroPoints(sum, p.a.zeroPoints[va], p.b.zeroPoints[vb], p.aSums[i], p.bSums[j],
                                            static_cast<double>(p.a.codes.cols));
    }
    const double v = EigenQ::internal::scaleSum(sum, p.a.type, static_cast<double>(p.a.stats[va]),
                                                static_cast<double>(p.b.stats[vb]));
    static_cast<T*>(p.y.data)[i * p.y.rowStride + j * p.y.colStride] = fromFloat<T>(static_cast<float>(v));
  }
}

/** The same codes with contiguous rows. */
CodesView inRows(const CodesView& codes, Scratch& scratch, Context& context) {
  if (codes.colStride == 1 || codes.cols <= 1) return codes;
  const Index stride = roundUp(codes.cols, kCodeAlignment);
  std::int8_t* const copy = scratch.array<std::int8_t>(codes.rows * stride);
  copyCodes(codes.data, codes.rowStride, codes.colStride, codes.rows, codes.cols, copy, codes.rows, stride, context);
  return {copy, codes.rows, codes.cols, stride, 1};
}

const double* sumsOf(const VectorwiseRows& q, Scratch& scratch, Context& context) {
  if (!isZeropoint(q.type)) return nullptr;
  double* const sums = scratch.array<double>(q.codes.rows);
  launch("sumCodes", sumCodes, shapeFor(q.codes.rows, kWarps), context, q.codes, sums);
  return sums;
}

void finish(const SumsProblem& p, Context& context) {
  dispatchDeviceScalar(p.y.scalar, [&](auto tag) {
    launch("finishSums", finishSums<typename decltype(tag)::type>, shapeFor(p.y.rows * p.y.cols, kThreads), context, p);
  });
}

DenseView middleRows(DenseView y, Index first, Index count) {
  y.data = static_cast<char*>(y.data) + first * y.rowStride * (y.scalar == ScalarType::kFloat ? 4 : 2);
  y.rows = count;
  return y;
}

}  // namespace

void igemm(const CodesView& a, const CodesView& b, std::int32_t* c, Context& context) {
  assert(a.cols == b.cols);
  if (a.rows == 0 || b.rows == 0) return;
  if (a.cols == 0) {
    const DeviceGuard guard(context.device());
    EIGENQ_CUDA_CHECK(cudaMemsetAsync(c, 0, static_cast<std::size_t>(a.rows * b.rows) * sizeof *c, context.stream()));
    return;
  }
  const DeviceGuard guard(context.device());
  Scratch scratch(context);
  const CodesView aRows = inRows(a, scratch, context), bRows = inRows(b, scratch, context);
  Int8Product p;
  p.a = aRows.data;
  p.aStride = aRows.rowStride;
  p.b = bRows.data;
  p.bStride = bRows.rowStride;
  p.c = c;
  p.cRowStride = b.rows;
  p.cColStride = 1;
  p.m = a.rows;
  p.n = b.rows;
  p.k = a.cols;
  int8Gemm(p, context);
}

void dequantizeSums(const std::int32_t* sums, const VectorwiseRows& a, const VectorwiseRows& b, const DenseView& y,
                    Context& context) {
  if (y.rows == 0 || y.cols == 0) return;
  Scratch scratch(context);
  const double* const aSums = sumsOf(a, scratch, context);
  const double* const bSums = sumsOf(b, scratch, context);
  finish({sums, a, b, aSums, bSums, y}, context);
}

void multiplyVectorwise(const VectorwiseRows& a, const VectorwiseRows& b, const DenseView& y, Context& context) {
  if (y.rows == 0 || y.cols == 0) return;
  Scratch scratch(context);
  VectorwiseRows bRows = b;  // laid out once, not once a slab
  bRows.codes = inRows(b.codes, scratch, context);
  const double* const bSums = sumsOf(bRows, scratch, context);
  const Index slab = std::min(y.rows, std::max<Index>(1, kSlabSums / y.cols));
  std::int32_t* const sums = scratch.array<std::int32_t>(slab * y.cols);
  for (Index row = 0; row < y.rows; row += slab) {
    const Index rows = std::min(slab, y.rows - row);
    const VectorwiseRows part = a.middleRows(row, rows);
    Scratch ofSlab(context);
    const double* const aSums = sumsOf(part, ofSlab, context);
    igemm(part.codes, bRows.codes, sums, context);
    finish({sums, part, bRows, aSums, bSums, middleRows(y, row, rows)}, context);
  }
}

void multiplyExactly(const ConstDenseView& a, const ConstDenseView& b, const DenseView& y, Context& context) {
  runReference(DenseProduct{a, b, y, Epilogue()}, context);
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
