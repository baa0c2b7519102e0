// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_TILELAYOUT_H
#define EIGENQ_TILELAYOUT_H

#include <cstdint>
#include <string>
#include <utility>

#include <Eigen/Core>

#include "Errors.h"
#include "Macros.h"
#include "Views.h"

namespace EigenQ {

/** Orders of a matrix's elements in memory. The last three are cuBLASLt's tiled orders, which old int8 checkpoints and
 * its int8 kernels use; a tile is 32 columns wide. Drawings: doc/formats.md#tiles. */
enum class TileOrder : std::uint8_t {
  kRow,
  kCol,
  kCol32,      // COL32: 32 columns, row after row
  kColTuring,  // COL4_4R2_8C: 8-row tiles, even rows before odd ones, four columns at a time
  kColAmpere,  // COL32_2R_4R4: 32-row tiles, pairs of rows eight apart
};

namespace internal {

EIGENQ_HOST_DEVICE constexpr Index roundUp(Index n, Index multiple) { return (n + multiple - 1) / multiple * multiple; }

/** Rows of a tile, to whose multiple the buffer's rows are padded. */
EIGENQ_HOST_DEVICE constexpr Index tileRows(TileOrder order) {
  return order == TileOrder::kColTuring ? 8 : order == TileOrder::kColAmpere ? 32 : 1;
}

/** Columns of a tile, to whose multiple the buffer's columns are padded. */
EIGENQ_HOST_DEVICE constexpr Index tileCols(TileOrder order) {
  return order == TileOrder::kRow || order == TileOrder::kCol ? 1 : 32;
}

/** Place of row \a r among the 32 rows of an ampere tile: 0 1 8 9 16 17 24 25 | 2 3 10 11 … */
EIGENQ_HOST_DEVICE constexpr Index ampereRow(Index r) { return (r % 8) / 2 * 8 + r % 32 / 8 * 2 + r % 2; }

/** Place of element (r, c) among the 256 of a turing tile. */
EIGENQ_HOST_DEVICE constexpr Index turingPlace(Index r, Index c) {
  return r % 2 * 128 + c % 32 / 4 * 16 + r % 8 / 2 * 4 + c % 4;
}

}  // namespace internal

/** Position of element (\a r, \a c) of a \a rows×\a cols matrix in a buffer of the given order. */
EIGENQ_HOST_DEVICE constexpr Index tileOffset(TileOrder order, Index rows, Index cols, Index r, Index c) {
  switch (order) {
    case TileOrder::kRow:
      return r * cols + c;
    case TileOrder::kCol:
      return c * rows + r;
    case TileOrder::kCol32:
      return c / 32 * 32 * rows + 32 * r + c % 32;
    case TileOrder::kColTuring:
      return c / 32 * 32 * internal::roundUp(rows, 8) + r / 8 * 256 + internal::turingPlace(r, c);
    case TileOrder::kColAmpere:
      return c / 32 * 32 * internal::roundUp(rows, 32) + r / 32 * 1024 + 32 * internal::ampereRow(r) + c % 32;
  }
  return -1;
}

/** Shape of the zero-padded buffer that holds a \a rows×\a cols matrix in the given order. */
constexpr std::pair<Index, Index> tileBufferShape(TileOrder order, Index rows, Index cols) {
  return {internal::roundUp(rows, internal::tileRows(order)), internal::roundUp(cols, internal::tileCols(order))};
}

/** Elements of that buffer. */
constexpr Index tileBufferSize(TileOrder order, Index rows, Index cols) {
  return tileBufferShape(order, rows, cols).first * tileBufferShape(order, rows, cols).second;
}

// doc/formats.md#tiles, the worked example: element (13, 37) of a 40×70 matrix.
static_assert(tileOffset(TileOrder::kCol32, 40, 70, 13, 37) == 1701, "doc/formats.md#tiles");
static_assert(tileOffset(TileOrder::kColTuring, 40, 70, 13, 37) == 1689, "doc/formats.md#tiles");
static_assert(tileOffset(TileOrder::kColAmpere, 40, 70, 13, 37) == 2661, "doc/formats.md#tiles");

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

/** The matrix, its padding cropped. Throws FormatError where the buffer has not the size its shape and order need. */
template <typename Scalar>
Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> fromTiles(const TiledBuffer<Scalar>& tiled) {
  const Index expected = tileBufferSize(tiled.order, tiled.rows, tiled.cols);
  if (tiled.buffer.size() != expected) {
    throw FormatError(
        "fromTiles", "buffer",
        "expected " + std::to_string(expected) + " elements, found " + std::to_string(tiled.buffer.size()));
  }
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
  if (indices.size() == 0 || tiled.rows() % tileRows != 0 || tiled.cols() % tileCols != 0)
    throw FormatError("undoLayout", "tiled",
                      "expected multiples of " + std::to_string(tileRows) + "x" + std::to_string(tileCols) +
                          ", found " + std::to_string(tiled.rows()) + "x" + std::to_string(tiled.cols()));
  if (rows > tiled.rows() || cols > tiled.cols())
    throw FormatError("undoLayout", "shape", "the matrix is larger than its buffer");
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
