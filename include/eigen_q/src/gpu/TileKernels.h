// SPDX-License-Identifier: MPL-2.0
// Moving elements to and from tiled orders on a device, in plain numbers; pointers are device pointers. Work is queued
// on the context's stream and nothing waits for it. Eigen-free.
#ifndef EIGENQ_GPU_TILEKERNELS_H
#define EIGENQ_GPU_TILEKERNELS_H

#include <cstddef>

#include "../TileOrder.h"
#include "Context.h"

namespace EigenQ {
namespace gpu {
namespace internal {

/** A rows×cols matrix of elements of \a elementBytes, 1, 2 or 4; strides count elements. */
template <typename Void>
struct ElementsView {
  Void* data = nullptr;
  Index rows = 0;
  Index cols = 0;
  Index rowStride = 0;
  Index colStride = 1;
  std::size_t elementBytes = 1;
};

/** buffer = \a a in a tiled order, padding zero: tileBufferSize(order, rows, cols) elements. */
void toTiles(const ElementsView<const void>& a, TileOrder order, void* buffer, Context& context);

/** \a a = the matrix in \a buffer. */
void fromTiles(const void* buffer, TileOrder order, const ElementsView<void>& a, Context& context);

/** Tiles of tileRows×tileCols that run down the columns of tiles first; entry p of \a indices, row-major, is where
 * within its tile the element at position p belongs. */
struct TileTransform {
  const Index* indices = nullptr;
  Index tileRows = 0;
  Index tileCols = 0;
};

/** \a a = the top left corner of the matrix behind \a tiled, whose elements lie in memory row by row. */
void undoLayout(const ElementsView<const void>& tiled, const TileTransform& transform, const ElementsView<void>& a,
                Context& context);

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_GPU_TILEKERNELS_H
