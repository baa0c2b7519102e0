// SPDX-License-Identifier: MPL-2.0
// Rows of a quantised table by their numbers.
#ifndef EIGENQ_EMBEDDING_H
#define EIGENQ_EMBEDDING_H

#include "Quantize.h"
#include "QuantizedBase.h"

#include <stdexcept>
#include <string>

namespace EigenQ {

namespace internal {

/** ids(t), where the table has it; else throws std::out_of_range. */
inline Index checkedId(const Eigen::Ref<const Eigen::VectorXi>& ids, Index t, Index vocabulary) {
  const Index id = ids(t);
  if (id >= 0 && id < vocabulary) return id;
  throw std::out_of_range("embedding: id " + std::to_string(t) + ": expected 0 to " + std::to_string(vocabulary - 1) +
                          ", found " + std::to_string(id));
}

/** Row t of \a out = row ids(t) of \a table, each decoded by one kernel into where it belongs. */
template <typename Table, typename Out>
void gatherRows(const QuantizedBase<Table>& table, const Eigen::Ref<const Eigen::VectorXi>& ids,
                const Eigen::MatrixBase<Out>& out) {
  for (Index t = 0; t < ids.size(); ++t)
    out.const_cast_derived().row(t) =
        table.middleRows(checkedId(ids, t, table.rows()), 1).template cast<typename Out::Scalar>();
}

}  // namespace internal

/** Row t of the result is row ids(t) of the table; only these rows are decoded, none is copied in its codes.
 * \param table  vocabulary×dim: an Int8Matrix, NF4Matrix, FP4Matrix or an expression of one. Any dim: rows of 4-bit
 *               codes may begin inside a block, or even inside a byte.
 * \returns      ids.size()×dim, equal to the bit to the rows of the dequantised table, each value rounded once more
 *               where Scalar is narrower than float: r(r32(level·absmax)) for 4 bits, r(r32(r32(code·SCB)·RN(1/127)))
 *               for int8.
 * Error: the original's int8 rows are r(code·r32(SCB/127)) instead. Both lie within 2.1·2⁻²⁴ of code·SCB/127, relative.
 * Throws std::out_of_range for an id outside the table.
 * Source: bitsandbytes' Embedding8bit and Embedding4bit, which decodes the whole table where the block size does not
 * divide dim. */
template <typename Scalar = float, typename Table>
RowMajorMatrix<Scalar> embedding(const QuantizedBase<Table>& table, const Eigen::Ref<const Eigen::VectorXi>& ids) {
  RowMajorMatrix<Scalar> rows(ids.size(), table.cols());
  internal::gatherRows(table, ids, rows);
  return rows;
}

}  // namespace EigenQ

#endif  // EIGENQ_EMBEDDING_H
