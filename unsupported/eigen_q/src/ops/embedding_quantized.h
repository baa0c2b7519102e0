// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_OPS_EMBEDDING_QUANTIZED_H
#define EIGENQ_OPS_EMBEDDING_QUANTIZED_H

#include <eigen_q/Core>

#include "../Tape.h"

namespace EigenQ {
namespace ad {

/** Column t of the result is row ids(t) of a frozen quantised table, dequantised; see EigenQ::embedding.
 * \param table  vocabulary×dim, one token = one row, as bitsandbytes' Embedding8bit and Embedding4bit store it: the
 *   transpose of what the dense overload takes, and the same bytes. It is read here and not kept.
 * \returns dim×ids.size(), without gradient. Throws std::out_of_range for an id outside the vocabulary. */
template <typename Scalar, typename Table>
Var<Scalar> embedding(Tape<Scalar>& tape, const QuantizedBase<Table>& table,
                      const Eigen::Ref<const Eigen::VectorXi>& ids) {
  ArenaMatrix<Scalar> y = tape.newMatrix(table.cols(), ids.size());
  EigenQ::internal::gatherRows(table, ids, y.transpose());
  return tape.record("embedding", {}, y, [](const auto&) {});
}

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPS_EMBEDDING_QUANTIZED_H
