// SPDX-License-Identifier: MPL-2.0
// A slab of W gives a slab of columns of Y, in either direction, so no sum is split between slabs:
//
//   Y = X·Wᵀ   ┌──────┐ W n×k: rows             Y = X·W   ┌──┬──┬──┐ W k×n: columns
//              ├──────┤ a slab is decoded,                │  │  │  │
//              ├──────┤ multiplied, forgotten             └──┴──┴──┘
//
// Traffic  codes once; the decoded slab is written and read in the second-level cache; X once a slab.
// Work     2·m·n·k FLOP by cuBLASLt, beside which n·k decoded weights vanish from m of some hundreds on.
#include "via_dense.h"

#include <algorithm>

#include "../lowering_log.h"
#include "context_state.h"
#include "dense_product.h"
#include "dense_view.h"
#include "dequantize.h"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

using EigenQ::internal::firstWilling;

/** Of decoded weights: half of an H200's second-level cache, which X and Y share. Bounds the scratch memory. */
constexpr Index kSlabBytes = Index{24} << 20;
constexpr Index kSlabStep = 128;  // columns of Y; also whole bytes and blocks of 4-bit codes, where rows are such

/** Slabs of about the same width, so that cuBLASLt sees one shape, or two. */
Index slabColumns(Index depth, Index columns, ScalarType scalar) {
  const Index bytes = depth * columns * static_cast<Index>(sizeOf(scalar));
  const Index slabs = (bytes + kSlabBytes - 1) / kSlabBytes;
  if (slabs <= 1) return columns;
  const Index width = (columns + slabs - 1) / slabs;
  return std::min(columns, (width + kSlabStep - 1) / kSlabStep * kSlabStep);
}

/** The product with op(W) decoded into \a memory, or, for a refusal, as if it were. */
DenseProduct decoded(const QuantizedProduct& p, const WeightView& w, void* memory, Index column) {
  const DenseView slab = {memory, p.x.scalar, w.rows, w.cols, w.cols, 1};
  const ConstDenseView b = p.transposed ? asConst(slab.transpose()) : asConst(slab);
  return {p.x, b, columns(p.y, column, b.cols), columns(p.epilogue, p.y.scalar, column, b.cols)};
}

}  // namespace

const char* refuseViaDense(const QuantizedProduct& p, const Context& context) {
  if (p.w.int8Activations && p.transposed) return "X is to be quantised to int8";
  return refuseDenseCublasLt(decoded(p, p.w, nullptr, 0), context);
}

void runViaDense(const QuantizedProduct& p, Context& context) {
  const Index depth = p.x.cols, width = slabColumns(depth, p.y.cols, p.x.scalar);
  Scratch scratch(context);
  void* const memory = scratch.bytes(static_cast<std::size_t>(depth * width) * sizeOf(p.x.scalar));
  for (Index column = 0; column < p.y.cols; column += width) {
    const Index count = std::min(width, p.y.cols - column);
    const WeightView w = p.transposed ? p.w.window(column, 0, count, depth) : p.w.window(0, column, depth, count);
    // The row itself, not dequantize(): that would report a dequantisation that nobody asked for.
    const Dequantization slab = {w, {memory, p.x.scalar, w.rows, w.cols, w.cols, 1}, Epilogue()};
    firstWilling(deviceDequantizers(), slab, context).run(slab, context);
    runDenseCublasLt(decoded(p, w, memory, column), context);
  }
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
