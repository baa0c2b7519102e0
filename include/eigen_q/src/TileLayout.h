// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_TILELAYOUT_H
#define EIGENQ_TILELAYOUT_H

#include <cstdint>
#include <string>
#include <utility>

#include <Eigen/Core>

#include "Errors.h"
#include "TileOrder.h"

namespace EigenQ {

/** Elements in a tiled order, padding zero. Element (r, c) is buffer(tileOffset(order, rows, cols, r, c)). */
template <typename Scalar>
struct TiledBuffer {
  Eigen::Matrix<Scalar, Eigen::Dynamic, 1> buffer;  // tileBufferSize(order, rows, cols)
  TileOrder order = TileOrder::kRow;
  Index rows = 0;  // of the matrix, without padding
  Index cols = 0;
};

/** The matrix \a a in the given order; for its transpose pass a.transpose(). Meant for int8 codes and int32 sums.
 * Source: bitsandbytes 0.43.0, transform; cuBLASLt's CUBLASLT_ORDER_*. */
template <typename Derived>
TiledBuffer<typename Derived::Scalar> toTiles(const Eigen::MatrixBase<Derived>& a, TileOrder order) {
  TiledBuffer<typename Derived::Scalar> tiled;
  tiled.buffer.setZero(tileBufferSize(order, a.rows(), a.cols()));
  tiled.order = order;
  tiled.rows = a.rows();
  tiled.cols = a.cols();
  for (Index r = 0; r < a.rows(); ++r)
    for (Index c = 0; c < a.cols(); ++c)
      tiled.buffer[tileOffset(order, a.rows(), a.cols(), r, c)] = a.derived().coeff(r, c);
  return tiled;
}

namespace internal {

inline void requireTileBuffer(Index found, TileOrder order, Index rows, Index cols) {
  const Index expected = tileBufferSize(order, rows, cols);
  if (found == expected) return;
  throw FormatError("fromTiles", "buffer",
                    "expected " + std::to_string(expected) + " elements, found " + std::to_string(found));
}

}  // namespace internal

/** The matrix, its padding cropped. Throws FormatError where the buffer has not the size its shape and order need. */
template <typename Scalar>
Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> fromTiles(const TiledBuffer<Scalar>& tiled) {
  internal::requireTileBuffer(tiled.buffer.size(), tiled.order, tiled.rows, tiled.cols);
  Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> a(tiled.rows, tiled.cols);
  for (Index r = 0; r < a.rows(); ++r)
    for (Index c = 0; c < a.cols(); ++c) a(r, c) = tiled.buffer[tileOffset(tiled.order, tiled.rows, tiled.cols, r, c)];
  return a;
}

/** Indices within a tile, row-major. */
using TileIndices = Eigen::Matrix<Index, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/** For one tile of a transform: entry p, counted row-major, is the row-major index within the tile of the element that
 * the transform stores at position p.
 * \param transform  takes a \a rows×\a cols row-major matrix of bytes to one of as many, in its order of storage; it
 *                   moves elements and nothing else. It is called once for every seven bits of an index.
 * Throws FormatError where it does not return each element once.
 * Source: bitsandbytes 0.43.0, get_inverse_transform_indices. */
template <typename Transform>
TileIndices getInverseTransformIndices(const Transform& transform, Index rows, Index cols) {
  using Bytes = Eigen::Matrix<std::int8_t, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Index size = rows * cols;
  TileIndices indices = TileIndices::Zero(rows, cols);
  for (int shift = 0; shift == 0 || (size - 1) >> shift > 0; shift += 7) {  // each pass carries 7 bits of the index
    Bytes digits(rows, cols);
    for (Index i = 0; i < size; ++i) digits.data()[i] = static_cast<std::int8_t>(i >> shift & 0x7f);
    const Bytes moved = transform(digits);
    if (moved.size() != size)
      throw FormatError("getInverseTransformIndices", "transform",
                        "expected " + std::to_string(size) + " elements, found " + std::to_string(moved.size()));
    for (Index i = 0; i < size; ++i) indices.data()[i] |= Index{moved.data()[i]} << shift;
  }
  Eigen::Matrix<bool, Eigen::Dynamic, 1> seen = Eigen::Matrix<bool, Eigen::Dynamic, 1>::Constant(size, false);
  for (Index i = 0; i < size; ++i) {
    const Index from = indices.data()[i];
    if (from < 0 || from >= size || seen[from])
      throw FormatError("getInverseTransformIndices", "transform", "does not return each element once");
    seen[from] = true;
  }
  return indices;
}

/** Rows and columns of a tile: 8×32 for turing, 32×32 for ampere, 1×32 for col32, 1×1 for the others. */
constexpr std::pair<Index, Index> tileShape(TileOrder order) {
  return {internal::tileRows(order), internal::tileCols(order)};
}

/** The inverse indices of a tile of \a order, made once: the original's MatmulLtState.tile_indices. */
inline const TileIndices& tileIndices(TileOrder order) {
  const auto make = [](TileOrder o) {
    const auto [rows, cols] = tileShape(o);
    TileIndices indices(rows, cols);
    for (Index r = 0; r < rows; ++r)
      for (Index c = 0; c < cols; ++c) indices.data()[tileOffset(o, rows, cols, r, c)] = r * cols + c;
    return indices;
  };
  static const TileIndices kept[] = {make(TileOrder::kRow), make(TileOrder::kCol), make(TileOrder::kCol32),
                                     make(TileOrder::kColTuring), make(TileOrder::kColAmpere)};
  return kept[static_cast<int>(order)];
}

namespace internal {

/** For undoLayout(): of a rows×cols matrix, where they are not 0, in a buffer of tiles. */
inline void requireTiles(Index bufferRows, Index bufferCols, const TileIndices& indices, Index rows, Index cols) {
  if (indices.size() == 0 || bufferRows % indices.rows() != 0 || bufferCols % indices.cols() != 0)
    throw FormatError("undoLayout", "tiled",
                      "expected multiples of " + std::to_string(indices.rows()) + "x" + std::to_string(indices.cols()) +
                          ", found " + std::to_string(bufferRows) + "x" + std::to_string(bufferCols));
  if (rows > bufferRows || cols > bufferCols)
    throw FormatError("undoLayout", "shape", "the matrix is larger than its buffer");
}

}  // namespace internal

/** The row-major matrix behind \a tiled, a buffer of consecutive tiles that run down the columns of tiles first.
 * \param tiled  padded rows×padded cols, as elements lie in memory, row by row
 * \param indices  of one tile, see getInverseTransformIndices; its shape is the tile's
 * \param rows, cols  of the matrix without padding, which is cropped; 0: the padding stays, as in the original
 * Throws FormatError where tiles do not fill the buffer or the matrix does not fit it.
 * Source: bitsandbytes 0.43.0, undo_layout. */
template <typename Derived>
Eigen::Matrix<typename Derived::Scalar, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> undoLayout(
    const Eigen::DenseBase<Derived>& tiled, const TileIndices& indices, Index rows = 0, Index cols = 0) {
  using Matrix = Eigen::Matrix<typename Derived::Scalar, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Index tileRows = indices.rows(), tileCols = indices.cols();
  internal::requireTiles(tiled.rows(), tiled.cols(), indices, rows, cols);
  const Matrix buffer = tiled.derived();
  Matrix a(tiled.rows(), tiled.cols());
  const Index tilesDown = tiled.rows() / tileRows;
  for (Index p = 0; p < buffer.size(); ++p) {
    const Index tile = p / indices.size(), within = indices.data()[p % indices.size()];
    a(tile % tilesDown * tileRows + within / tileCols, tile / tilesDown * tileCols + within % tileCols) =
        buffer.data()[p];
  }
  return a.topLeftCorner(rows > 0 ? rows : a.rows(), cols > 0 ? cols : a.cols());
}

/** The order that int8 kernels of bitsandbytes 0.43 want of a weight on a device of compute capability \a major:
 * ampere's for 8, turing's for all others, 9 and later among them; 0 stands for no device.
 * Source: bitsandbytes 0.43.0, get_special_format_str. */
constexpr TileOrder specialFormat(int major) { return major == 8 ? TileOrder::kColAmpere : TileOrder::kColTuring; }

}  // namespace EigenQ

#endif  // EIGENQ_TILELAYOUT_H
