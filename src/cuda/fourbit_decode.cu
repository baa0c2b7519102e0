// SPDX-License-Identifier: MPL-2.0
// fourbit_decode.cu: what stands before and behind the kernels that decode 4-bit weights for few rows of X.
//
// Traffic  X and Y have at most 16 rows: noise beside W. These kernels cost their launch.
#include "fourbit_decode.h"

#include <algorithm>

#include "alignment.h"
#include "epilogue.cuh"
#include "op_launch.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

constexpr int kThreads = 256;
constexpr Index kRowBytes = 16;

unsigned blocksFor(Index items) { return static_cast<unsigned>((items + kThreads - 1) / kThreads); }

/** A thread per column: one of the two strides is short, and both sides are read or written in runs. */
template <typename From, typename To>
__global__ void __launch_bounds__(kThreads) packColumns(ConstDenseView x, To* packed, Index stride) {
  const Index k = Index{blockIdx.x} * kThreads + threadIdx.x;
  if (k >= x.cols) return;
  const From* const column = static_cast<const From*>(x.data) + k * x.colStride;
  for (Index i = 0; i < x.rows; ++i) packed[i * stride + k] = fromFloat<To>(toFloat(column[i * x.rowStride]));
}

template <typename From, typename To>
void launchPack(const ConstDenseView& x, To* packed, Index stride, Context& context) {
  launch("packColumns", packColumns<From, To>, {blocksFor(x.cols), kThreads}, context, x, packed, stride);
}

bool isPacked(const ConstDenseView& x, Index elementBytes) {
  return (x.colStride == 1 || x.cols <= 1) && reinterpret_cast<std::uintptr_t>(x.data) % kRowBytes == 0 &&
         (x.rows <= 1 || (x.rowStride >= 0 && x.rowStride * elementBytes % kRowBytes == 0));
}

template <typename T>
__global__ void __launch_bounds__(kThreads) addSlicesKernel(const float* sums, int slices, DenseView y, Epilogue e) {
  const Index entry = Index{blockIdx.x} * kThreads + threadIdx.x, entries = y.rows * y.cols;
  if (entry >= entries) return;
  float sum = sums[entry];
  for (int slice = 1; slice < slices; ++slice) sum += sums[slice * entries + entry];
  storeResult<T>(y, e, sum, entry / y.cols, entry % y.cols);
}

/** Microseconds: full rounds of tiles at a multiprocessor's share of 4.3 TB/s, and what the second kernel costs. */
double estimate(Index tiles, Index cols, const DecodeSpread& spread) {
  constexpr double kBytesPerWeight = 0.5625, kBytesPerMicrosecond = 32.5e3, kSecondKernel = 2;
  const double weights = kDecodeTileRows * static_cast<double>(ceilDiv(cols, spread.slices));
  return static_cast<double>(ceilDiv(tiles, spread.ctas)) * weights * kBytesPerWeight / kBytesPerMicrosecond +
         (spread.slices > 1 ? kSecondKernel : 0);
}

}  // namespace

DecodeSpread spreadDecode(Index rows, Index cols, Index unit, Index fewestSlices, int multiprocessors) {
  constexpr Index kTried = 8;  // each slice more saves less; the second kernel costs the same
  const Index tiles = ceilDiv(rows, kDecodeTileRows), units = std::max<Index>(ceilDiv(cols, unit), 1);
  DecodeSpread best;
  double least = 0;
  for (Index slices = fewestSlices; slices <= std::min(units, fewestSlices + kTried - 1); ++slices) {
    const DecodeSpread spread{slices, std::max<Index>(std::min<Index>(tiles, multiprocessors / slices), 1)};
    const double time = estimate(tiles, cols, spread);
    if (slices > fewestSlices && time >= least) continue;
    least = time;
    best = spread;
  }
  return best;
}

PackedRows packRows(const ConstDenseView& x, ScalarType scalar, Scratch& scratch, Context& context) {
  const Index bytes = scalar == ScalarType::kFloat ? 4 : 2;
  if (x.scalar == scalar && isPacked(x, bytes)) return {x.data, x.rowStride};
  const Index perRow = kRowBytes / bytes, stride = (x.cols + perRow - 1) / perRow * perRow;
  PackedRows packed{scratch.bytes(static_cast<std::size_t>(x.rows * stride * bytes)), stride};
  if (x.rows == 0 || x.cols == 0) return packed;
  void* const target = const_cast<void*>(packed.data);
  const DeviceGuard guard(context.device());
  dispatchDeviceScalar(x.scalar, [&](auto tag) {
    using From = typename decltype(tag)::type;
    if (scalar == ScalarType::kFloat) return launchPack<From>(x, static_cast<float*>(target), stride, context);
    launchPack<From>(x, static_cast<From*>(target), stride, context);
  });
  return packed;
}

void addSlices(const float* sums, int slices, const DenseView& y, const Epilogue& epilogue, Context& context) {
  const DeviceGuard guard(context.device());
  dispatchDeviceScalar(y.scalar, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch("addSlices", addSlicesKernel<T>, {blocksFor(y.rows * y.cols), kThreads}, context, sums, slices, y, epilogue);
  });
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
