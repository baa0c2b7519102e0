// SPDX-License-Identifier: MPL-2.0
// The tiled orders of TileLayout.h for device matrices, on Context::current().
#ifndef EIGENQ_GPU_DEVICETILES_H
#define EIGENQ_GPU_DEVICETILES_H

#include "../TileLayout.h"
#include "DeviceCodes.h"
#include "TileKernels.h"

namespace EigenQ {
namespace gpu {

/** An EigenQ::TiledBuffer in device memory. Moved, not copied. */
template <typename Scalar>
struct TiledBuffer {
  DeviceMatrix<Scalar> buffer;  // tileBufferSize(order, rows, cols)×1
  TileOrder order = TileOrder::kRow;
  Index rows = 0;  // of the matrix, without padding
  Index cols = 0;

  static TiledBuffer fromHost(const EigenQ::TiledBuffer<Scalar>& tiled, Context& context = Context::current()) {
    return {DeviceMatrix<Scalar>::fromHost(tiled.buffer, context), tiled.order, tiled.rows, tiled.cols};
  }
  /** Waits for the stream. */
  EigenQ::TiledBuffer<Scalar> toHost(Context& context = Context::current()) const {
    return {buffer.toHost(context), order, rows, cols};
  }
};

namespace internal {

template <typename Void, typename Scalar>
ElementsView<Void> elementsOf(const DeviceView<Scalar>& x) {
  return {x.data(), x.rows(), x.cols(), x.rowStride(), x.colStride(), sizeof(Scalar)};
}

}  // namespace internal

/** As EigenQ::toTiles; meant for int8 codes and int32 sums, for elements of 1, 2 or 4 bytes. */
template <typename Derived>
TiledBuffer<typename Derived::Scalar> toTiles(const DeviceBase<Derived>& a, TileOrder order) {
  Context& context = Context::current();
  TiledBuffer<typename Derived::Scalar> tiled{{}, order, a.rows(), a.cols()};
  tiled.buffer.resize(tileBufferSize(order, a.rows(), a.cols()), 1, context);
  internal::toTiles(internal::elementsOf<const void>(internal::toRead(a, context)), order,
                    internal::toWrite(tiled.buffer, context).data(), context);
  return tiled;
}

/** The matrix, its padding cropped. Throws FormatError where the buffer has not the size its shape and order need. */
template <typename Scalar>
DeviceMatrix<Scalar, Eigen::RowMajor> fromTiles(const TiledBuffer<Scalar>& tiled) {
  EigenQ::internal::requireTileBuffer(tiled.buffer.size(), tiled.order, tiled.rows, tiled.cols);
  Context& context = Context::current();
  DeviceMatrix<Scalar, Eigen::RowMajor> a(tiled.rows, tiled.cols, context);
  internal::fromTiles(internal::toRead(tiled.buffer, context).data(), tiled.order,
                      internal::elementsOf<void>(internal::toWrite(a, context)), context);
  return a;
}

/** As EigenQ::undoLayout. The indices are uploaded, so not inside a graph capture. */
template <typename Derived>
DeviceMatrix<typename Derived::Scalar, Eigen::RowMajor> undoLayout(const DeviceBase<Derived>& tiled,
                                                                   const TileIndices& indices, Index rows = 0,
                                                                   Index cols = 0) {
  EigenQ::internal::requireTiles(tiled.rows(), tiled.cols(), indices, rows, cols);
  Context& context = Context::current();
  const auto table = DeviceMatrix<Index, Eigen::RowMajor>::fromHost(indices, context);
  DeviceMatrix<typename Derived::Scalar, Eigen::RowMajor> a(rows > 0 ? rows : tiled.rows(),
                                                            cols > 0 ? cols : tiled.cols(), context);
  internal::undoLayout(internal::elementsOf<const void>(internal::toRead(tiled, context)),
                       {table.data(), indices.rows(), indices.cols()},
                       internal::elementsOf<void>(internal::toWrite(a, context)), context);
  return a;
}

}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_GPU_DEVICETILES_H
