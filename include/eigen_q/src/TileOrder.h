// SPDX-License-Identifier: MPL-2.0
// Where tiled orders put an element: the one definition that every backend answers to. Eigen-free.
#ifndef EIGENQ_TILEORDER_H
#define EIGENQ_TILEORDER_H

#include <cstdint>
#include <utility>

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

}  // namespace EigenQ

#endif  // EIGENQ_TILEORDER_H
