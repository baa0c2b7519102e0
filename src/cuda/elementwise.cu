// SPDX-License-Identifier: MPL-2.0
// elementwise.cu: Y = epilogue(X), element by element. Casts, copies between layouts, and the epilogues that no product
// took along.
//
//   packed      X, Y and the residual run along the same dimension, 16-byte aligned:  packs of 16 bytes of the narrower
//               scalar, so 32 of the wider; a thread has two on their way at a time, the grid's width apart
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

constexpr int kPacksInFlight = 2;  // of a thread: a copy of 64 MiB moves 3.7 TB/s, with one 3.3 (H200)

constexpr int kTile = 64;
constexpr int kTileRows = kThreads / 32;  // rows of a tile that a block moves at a time, by halves

template <typename T, int kCount>
struct alignas(sizeof(T) * kCount < 16 ? sizeof(T) * kCount : 16) Pack {
  T v[kCount];
};

/** The same memory without its elements. */
template <typename T, int kCount>
struct Bits {
  uint4 v[sizeof(T) * kCount / 16];
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

/** A pack's place: its row, its first column. */
struct PackPlace {
  Index i, j;

  template <typename View>
  __device__ __forceinline__ Index in(const View& v) const {
    return i * v.rowStride + j;
  }
};

/** What a thread reads of a whole pack before it writes it. As bits: of 16-bit scalars the compiler would keep each in
 * a register of its own. */
template <typename X, typename Y>
struct PackOperands {
  static constexpr int kCount = kPackSize<X, Y>;
  Bits<X, kCount> x;
  Bits<Y, kCount> residual;

  __device__ __forceinline__ void load(const Work& w, const PackPlace& at) {
    x = *reinterpret_cast<const Bits<X, kCount>*>(static_cast<const X*>(w.x.data) + at.in(w.x));
    if (w.e.residual.data)
      residual =
          *reinterpret_cast<const Bits<Y, kCount>*>(static_cast<const Y*>(w.e.residual.data) + at.in(w.e.residual));
  }

  template <bool kLinear>
  __device__ __forceinline__ void store(const Work& w, const Epilogue& withoutResidual, const PackPlace& at) const {
    const auto& in = reinterpret_cast<const Pack<X, kCount>&>(x);
    const auto& old = reinterpret_cast<const Pack<Y, kCount>&>(residual);
    Pack<Y, kCount> out;
#pragma unroll
    for (int c = 0; c < kCount; ++c) {
      float v = finish<kLinear, Y>(withoutResidual, toFloat(in.v[c]), at.i, at.j + c);
      if (w.e.residual.data) v += w.e.residualSign * toFloat(old.v[c]);
      out.v[c] = fromFloat<Y>(v);
    }
    *reinterpret_cast<Pack<Y, kCount>*>(static_cast<Y*>(w.y.data) + at.in(w.y)) = out;
  }
};

/** The last elements of a row, fewer than a pack. */
template <typename X, typename Y, bool kLinear>
__device__ __forceinline__ void finishTail(const Work& w, const Epilogue& withoutResidual, const PackPlace& at) {
  const X* const x = static_cast<const X*>(w.x.data) + at.in(w.x);
  const Y* const r = static_cast<const Y*>(w.e.residual.data) + at.in(w.e.residual);
  Y* const y = static_cast<Y*>(w.y.data) + at.in(w.y);
  for (Index c = 0; at.j + c < w.y.cols; ++c) {
    float v = finish<kLinear, Y>(withoutResidual, toFloat(x[c]), at.i, at.j + c);
    if (w.e.residual.data) v += w.e.residualSign * toFloat(r[c]);
    y[c] = fromFloat<Y>(v);
  }
}

/** \a step packs, one for each thread of the grid, lie between those that a thread has in flight. */
template <typename X, typename Y, bool kLinear>
__global__ void __launch_bounds__(kThreads) packedKernel(Work w, Index packsPerRow) {
  constexpr int kCount = kPackSize<X, Y>;
  Epilogue e = w.e;
  e.residual.data = nullptr;
  const Index packs = w.y.rows * packsPerRow, step = static_cast<Index>(gridDim.x) * kThreads;
  for (Index first = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x; first < packs;
       first += kPacksInFlight * step) {
    PackPlace at[kPacksInFlight];
    PackOperands<X, Y> operands[kPacksInFlight];
#pragma unroll
    for (int n = 0; n < kPacksInFlight; ++n) {
      const Index pack = first + n * step;
      if (pack >= packs) break;
      const Index i = packs == packsPerRow ? 0 : pack / packsPerRow;
      at[n] = {i, (pack - i * packsPerRow) * kCount};
      if (at[n].j + kCount <= w.y.cols) operands[n].load(w, at[n]);
    }
#pragma unroll
    for (int n = 0; n < kPacksInFlight; ++n) {
      if (first + n * step >= packs) break;
      if (at[n].j + kCount <= w.y.cols) {
        operands[n].template store<kLinear>(w, e, at[n]);
      } else {
        finishTail<X, Y, kLinear>(w, e, at[n]);
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

/** Threads take more packs than one only where there are enough to fill all multiprocessors. */
unsigned packedBlocks(Index packs, Context& context) {
  constexpr Index kThreadsOfMultiprocessor = 2048;
  const bool many = packs > kThreadsOfMultiprocessor * context.multiprocessors();
  return blocksFor(packs, many ? kPacksInFlight * kThreads : kThreads);
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
    launch("elementwise", kernel, {packedBlocks(w.y.rows * packsPerRow, context), kThreads}, context, w, packsPerRow);
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
