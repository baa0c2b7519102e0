// SPDX-License-Identifier: MPL-2.0
// elementwise.cu: Y = epilogue(X), element by element. Casts, copies between layouts, and the epilogues that no product
// took along.
//
//   packed      X, Y and the residual run along the same dimension, 16-byte aligned:  16 bytes of the narrower scalar a
//               thread, so 32 of the wider
//   transposed  X runs along the other dimension than Y:   ┌────────┐ read along X     ┌────────┐ written along Y
//               64×64 tiles through shared memory          │ → → →  │ ───────────────▶ │ ↓ ↓ ↓  │
//                                                          └────────┘                  └────────┘
//   strided     all else: misaligned blocks, steps between elements; four elements in flight a thread
//
// Traffic  sizeof(X) + sizeof(Y) bytes an element, and sizeof(Y) for a residual: the floor is that of a copy.
// Work     ten instructions an element without activation; 200 for each 32 bytes still hide behind memory.
// Needs    nothing. X may be Y itself: every element is read by the thread that writes it, before it does. In tiles
//          that does not hold, but X and Y of different strides are different memory.
#include <algorithm>
#include <cstdint>

#include "context_state.h"
#include "dense_view.h"
#include "device_lowering.h"
#include "epilogue.cuh"
#include "op_launch.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

constexpr int kThreads = 256;
constexpr Index kMostBlocks = Index{1} << 30;  // of the first grid dimension; larger work loops

constexpr int kTile = 64;
constexpr int kTileRows = kThreads / 32;  // rows of a tile that a block moves at a time, by halves

template <typename T, int kCount>
struct alignas(sizeof(T) * kCount < 16 ? sizeof(T) * kCount : 16) Pack {
  T v[kCount];
};

/** Elements of a Pack: 16 bytes of the narrower scalar. */
template <typename X, typename Y>
constexpr int kPackSize = 16 / (sizeof(X) < sizeof(Y) ? sizeof(X) : sizeof(Y));

/** Y's elements, row after row; its rows are the dimension that runs through memory. */
struct Work {
  ConstDenseView x;
  DenseView y;
  Epilogue e;
};

/** kLinear: alpha, sign and residual are all there is, so that the rest costs no registers. The residual comes apart.
 */
template <bool kLinear, typename Y>
__device__ __forceinline__ float finish(const Epilogue& withoutResidual, float acc, Index i, Index j) {
  if (kLinear) return withoutResidual.alpha * acc * withoutResidual.sign;
  return applyEpilogue<Y>(withoutResidual, acc, i, j);
}

template <typename X, typename Y, bool kLinear>
__global__ void __launch_bounds__(kThreads) packedKernel(Work w, Index packsPerRow) {
  constexpr int kCount = kPackSize<X, Y>;
  const Y* const residual = static_cast<const Y*>(w.e.residual.data);
  Epilogue e = w.e;
  e.residual.data = nullptr;
  const Index step = static_cast<Index>(gridDim.x) * kThreads;
  for (Index item = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x; item < w.y.rows * packsPerRow;
       item += step) {
    const Index i = item / packsPerRow, j = (item - i * packsPerRow) * kCount;
    const X* const x = static_cast<const X*>(w.x.data) + i * w.x.rowStride + j;
    Y* const y = static_cast<Y*>(w.y.data) + i * w.y.rowStride + j;
    const Y* const r = residual ? residual + i * w.e.residual.rowStride + j : nullptr;
    if (j + kCount <= w.y.cols) {
      const auto in = *reinterpret_cast<const Pack<X, kCount>*>(x);
      Pack<Y, kCount> old, out;
      if (r) old = *reinterpret_cast<const Pack<Y, kCount>*>(r);
#pragma unroll
      for (int c = 0; c < kCount; ++c) {
        float v = finish<kLinear, Y>(e, toFloat(in.v[c]), i, j + c);
        if (r) v += e.residualSign * toFloat(old.v[c]);
        out.v[c] = fromFloat<Y>(v);
      }
      *reinterpret_cast<Pack<Y, kCount>*>(y) = out;
    } else {
      for (Index c = 0; j + c < w.y.cols; ++c) {
        float v = finish<kLinear, Y>(e, toFloat(x[c]), i, j + c);
        if (r) v += e.residualSign * toFloat(r[c]);
        y[c] = fromFloat<Y>(v);
      }
    }
  }
}

template <typename X, typename Y>
__global__ void __launch_bounds__(kThreads) stridedKernel(Work w) {
  constexpr int kInFlight = 4;
  const Index total = w.y.rows * w.y.cols;
  const Index step = static_cast<Index>(gridDim.x) * kThreads * kInFlight;
  const X* const x = static_cast<const X*>(w.x.data);
  for (Index first = static_cast<Index>(blockIdx.x) * kThreads * kInFlight + threadIdx.x; first < total;
       first += step) {
    float v[kInFlight];
    Index row[kInFlight];
#pragma unroll
    for (int c = 0; c < kInFlight; ++c) {
      const Index item = first + c * kThreads;
      row[c] = item / w.y.cols;
      if (item < total) v[c] = toFloat(x[row[c] * w.x.rowStride + (item - row[c] * w.y.cols) * w.x.colStride]);
    }
#pragma unroll
    for (int c = 0; c < kInFlight; ++c) {
      const Index item = first + c * kThreads;
      if (item < total) storeResult<Y>(w.y, w.e, v[c], row[c], item - row[c] * w.y.cols);
    }
  }
}

/** X's columns are contiguous, Y's rows are. */
template <typename X, typename Y>
__global__ void __launch_bounds__(kThreads) transposedKernel(Work w, Index tilesPerRow, Index tiles) {
  // Rows are an odd number of 4-byte banks apart, so that a column of either scalar size meets every bank.
  __shared__ X tile[kTile][kTile + 4 / sizeof(X)];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const X* const x = static_cast<const X*>(w.x.data);
  for (Index t = blockIdx.x; t < tiles; t += gridDim.x) {
    const Index row = t / tilesPerRow * kTile, col = t % tilesPerRow * kTile;
#pragma unroll
    for (int c = warp; c < kTile; c += kTileRows) {  // a column of X is contiguous: lanes go down it
#pragma unroll
      for (int r = lane; r < kTile; r += 32) {
        if (row + r < w.y.rows && col + c < w.y.cols)
          tile[c][r] = x[(row + r) * w.x.rowStride + (col + c) * w.x.colStride];
      }
    }
    __syncthreads();
#pragma unroll
    for (int r = warp; r < kTile; r += kTileRows) {
#pragma unroll
      for (int c = lane; c < kTile; c += 32) {
        if (row + r < w.y.rows && col + c < w.y.cols) storeResult<Y>(w.y, w.e, toFloat(tile[c][r]), row + r, col + c);
      }
    }
    __syncthreads();  // the next tile overwrites this one
  }
}

unsigned blocksFor(Index items, Index perBlock) {
  return static_cast<unsigned>(std::min(kMostBlocks, (items + perBlock - 1) / perBlock));
}

Work transpose(const Work& w) { return {w.x.transpose(), w.y.transpose(), w.e.transpose()}; }

Index magnitude(Index v) { return v < 0 ? -v : v; }

/** Rows of the result run through memory; of a vector, its elements are one row. */
Work orient(const Work& w) {
  const bool columns =
      w.y.rows == 1 || w.y.cols == 1 ? w.y.cols == 1 : magnitude(w.y.rowStride) < magnitude(w.y.colStride);
  return columns ? transpose(w) : w;
}

template <typename View>
bool isGapless(const View& v) {
  return v.colStride == 1 && (v.rows == 1 || v.rowStride == v.cols);
}

/** One long row where rows follow each other without a gap: no short tails, no misaligned rows. */
Work flatten(const Work& w) {
  const bool residualIsGapless = !w.e.residual.data || isGapless(w.e.residual);
  if (w.e.biasAxis != BiasAxis::kNone || !isGapless(w.x) || !isGapless(w.y) || !residualIsGapless) return w;
  Work flat = w;
  flat.x.rows = flat.y.rows = flat.e.residual.rows = 1;
  flat.x.cols = flat.y.cols = flat.e.residual.cols = w.y.rows * w.y.cols;
  return flat;
}

/** Whether every row begins at a whole pack. */
template <typename View>
bool isPacked(const View& v, std::size_t scalarSize, int packSize) {
  const std::uintptr_t alignment = std::min<std::uintptr_t>(16, scalarSize * static_cast<std::size_t>(packSize));
  const Index rowBytes = v.rowStride * static_cast<Index>(scalarSize);
  return v.colStride == 1 && reinterpret_cast<std::uintptr_t>(v.data) % alignment == 0 &&
         (v.rows == 1 || rowBytes % static_cast<Index>(alignment) == 0);
}

template <typename X, typename Y>
bool isPacked(const Work& w) {
  constexpr int kCount = kPackSize<X, Y>;
  return isPacked(w.x, sizeof(X), kCount) && isPacked(w.y, sizeof(Y), kCount) &&
         (!w.e.residual.data || isPacked(w.e.residual, sizeof(Y), kCount));
}

/** Whether X runs along the other dimension, in both of which a tile is not mostly empty. */
bool isTransposed(const Work& w) { return w.x.rowStride == 1 && w.x.colStride != 1 && w.y.rows >= 8 && w.y.cols >= 8; }

template <typename X, typename Y>
void launchAs(const Work& w, Context& context) {
  if (isPacked<X, Y>(w)) {
    const Index packsPerRow = (w.y.cols + kPackSize<X, Y> - 1) / kPackSize<X, Y>;
    const auto kernel = isLinear(w.e) ? packedKernel<X, Y, true> : packedKernel<X, Y, false>;
    launch("elementwise", kernel, {blocksFor(w.y.rows * packsPerRow, kThreads), kThreads}, context, w, packsPerRow);
  } else if (isTransposed(w)) {
    const Index tilesPerRow = (w.y.cols + kTile - 1) / kTile, tiles = tilesPerRow * ((w.y.rows + kTile - 1) / kTile);
    launch("elementwise", transposedKernel<X, Y>, {blocksFor(tiles, 1), kThreads}, context, w, tilesPerRow, tiles);
  } else {
    launch("elementwise", stridedKernel<X, Y>, {blocksFor(w.y.rows * w.y.cols, 4 * kThreads), kThreads}, context, w);
  }
}

}  // namespace

void elementwise(const ConstDenseView& x, const DenseView& y, const Epilogue& epilogue, Context& context) {
  if (y.rows == 0 || y.cols == 0) return;
  const DeviceGuard guard(context.device());
  const Work work = flatten(orient({x, y, epilogue}));
  dispatchDeviceScalar(x.scalar, [&](auto xTag) {
    dispatchDeviceScalar(y.scalar, [&](auto yTag) {
      launchAs<typename decltype(xTag)::type, typename decltype(yTag)::type>(work, context);
    });
  });
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
