// SPDX-License-Identifier: MPL-2.0
// tile_layout.cu: tiled orders on the device. A thread moves one element after the other, to where TileOrder.h or a
// table of indices says.
//
// Traffic  each element read and written once; runs of 32 B at the least on the tiled side, for codes. Layouts change
//          when a layer is loaded, not in its products.
#include <eigen_q/src/gpu/TileKernels.h>

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "alignment.h"
#include "op_launch.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

constexpr unsigned kThreads = 256;
constexpr Index kMostBlocks = Index{1} << 16;

/** Calls \a move(i) for each i in [0, count). */
template <typename Move>
__global__ void __launch_bounds__(kThreads) forEachElement(const Index count, const Move move) {
  const Index step = static_cast<Index>(gridDim.x) * kThreads;
  for (Index i = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x; i < count; i += step) move(i);
}

template <typename Move>
void run(const char* name, Index count, const Move& move, Context& context) {
  if (count == 0) return;
  const unsigned blocks = static_cast<unsigned>(std::min(ceilDiv(count, kThreads), kMostBlocks));
  launch(name, forEachElement<Move>, {blocks, kThreads}, context, count, move);
}

template <typename Word>
struct ToTiles {
  const Word* from;
  Index rows, cols, rowStride, colStride;
  TileOrder order;
  Word* buffer;

  __device__ void operator()(Index i) const {
    const Index r = i / cols, c = i % cols;
    buffer[tileOffset(order, rows, cols, r, c)] = from[r * rowStride + c * colStride];
  }
};

template <typename Word>
struct FromTiles {
  const Word* buffer;
  TileOrder order;
  Word* to;
  Index rows, cols, rowStride, colStride;

  __device__ void operator()(Index i) const {
    const Index r = i / cols, c = i % cols;
    to[r * rowStride + c * colStride] = buffer[tileOffset(order, rows, cols, r, c)];
  }
};

template <typename Word>
struct UndoLayout {
  const Word* tiled;
  Index tiledCols, tiledRowStride, tiledColStride, tilesDown;
  TileTransform transform;
  Word* to;
  Index rows, cols, rowStride, colStride;

  __device__ void operator()(Index p) const {
    const Index size = transform.tileRows * transform.tileCols, tile = p / size, within = transform.indices[p % size];
    const Index r = tile % tilesDown * transform.tileRows + within / transform.tileCols;
    const Index c = tile / tilesDown * transform.tileCols + within % transform.tileCols;
    if (r < rows && c < cols)
      to[r * rowStride + c * colStride] = tiled[p / tiledCols * tiledRowStride + p % tiledCols * tiledColStride];
  }
};

/** Calls \a f with a word as wide as an element. */
template <typename F>
void dispatchWord(std::size_t bytes, F&& f) {
  switch (bytes) {
    case 1:
      return f(std::uint8_t());
    case 2:
      return f(std::uint16_t());
    case 4:
      return f(std::uint32_t());
    default:
      throw std::invalid_argument("tile layouts: expected elements of 1, 2 or 4 bytes, found " + std::to_string(bytes));
  }
}

}  // namespace

void toTiles(const ElementsView<const void>& a, TileOrder order, void* buffer, Context& context) {
  const DeviceGuard guard(context.device());
  const auto size = static_cast<std::size_t>(tileBufferSize(order, a.rows, a.cols));
  if (size == 0) return;
  EIGENQ_CUDA_CHECK(cudaMemsetAsync(buffer, 0, size * a.elementBytes, context.stream()));
  dispatchWord(a.elementBytes, [&](auto word) {
    using Word = decltype(word);
    run("toTiles", a.rows * a.cols,
        ToTiles<Word>{static_cast<const Word*>(a.data), a.rows, a.cols, a.rowStride, a.colStride, order,
                      static_cast<Word*>(buffer)},
        context);
  });
}

void fromTiles(const void* buffer, TileOrder order, const ElementsView<void>& a, Context& context) {
  dispatchWord(a.elementBytes, [&](auto word) {
    using Word = decltype(word);
    run("fromTiles", a.rows * a.cols,
        FromTiles<Word>{static_cast<const Word*>(buffer), order, static_cast<Word*>(a.data), a.rows, a.cols,
                        a.rowStride, a.colStride},
        context);
  });
}

void undoLayout(const ElementsView<const void>& tiled, const TileTransform& transform, const ElementsView<void>& a,
                Context& context) {
  dispatchWord(a.elementBytes, [&](auto word) {
    using Word = decltype(word);
    run("undoLayout", tiled.rows * tiled.cols,
        UndoLayout<Word>{static_cast<const Word*>(tiled.data), tiled.cols, tiled.rowStride, tiled.colStride,
                         tiled.rows / transform.tileRows, transform, static_cast<Word*>(a.data), a.rows, a.cols,
                         a.rowStride, a.colStride},
        context);
  });
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
