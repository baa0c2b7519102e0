// SPDX-License-Identifier: MPL-2.0
// Dense operands on their way into and out of the kernels, which compute on packed float only. Compiled once, for the
// baseline instruction set.
#ifndef EIGENQ_CPU_OPERANDS_H
#define EIGENQ_CPU_OPERANDS_H

#include <eigen_q/src/Lowering.h>

namespace EigenQ {
namespace internal {

/** Rows [row, row + rows) and columns [col, col + cols) of x as float, column by column:
 * packed[k·rows + i] = x(row + i, col + k). */
void packTile(const ConstDenseView& x, Index row, Index rows, Index col, Index cols, float* packed);

/** y's window of rows×cols at (row, col) = epilogue(acc), acc row-major with \a ld floats from row to row. The
 * epilogue's bias and residual are those of the whole y. */
void storeTile(const float* acc, Index ld, Index row, Index col, Index rows, Index cols, const DenseView& y,
               const Epilogue& epilogue);

/** Whether \a epilogue leaves sums as they are. */
bool isPlain(const Epilogue& epilogue);

/** Whether every value of x is zero or in ±[2⁻⁴⁰, 2⁴⁰]: what is scaled by a block's largest magnitude, and by weights',
 * then stays far from float's ends. */
bool inFixedPointRange(const ConstDenseView& x);

}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_OPERANDS_H
