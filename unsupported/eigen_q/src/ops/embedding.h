// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_OPS_EMBEDDING_H
#define EIGENQ_OPS_EMBEDDING_H

#include <eigen_q/src/Embedding.h>

#include "../Tape.h"

namespace EigenQ {
namespace ad {

/** Column t of the result is column ids(t) of the table.
 * \param table  dim×vocabulary: one token = one column (the bytes of a row-major vocabulary×dim checkpoint).
 * Pullback: scatter-add, in the order of the ids. Throws std::out_of_range for an id outside the vocabulary. */
template <typename Scalar>
Var<Scalar> embedding(Tape<Scalar>& tape, OperandArg<Scalar> table, const Eigen::Ref<const Eigen::VectorXi>& ids) {
  const Var<Scalar> e = table.on(tape);
  const auto columns = e.value();
  const auto kept = tape.keep(ids);
  ArenaMatrix<Scalar> y = tape.newMatrix(columns.rows(), kept.size());
  for (Eigen::Index t = 0; t < kept.size(); ++t)
    y.col(t) = columns.col(EigenQ::internal::checkedId(kept, t, columns.cols()));
  return tape.record("embedding", {e}, y, [=](const auto& dy) {
    auto de = e.grad();
    for (Eigen::Index t = 0; t < kept.size(); ++t) de.col(kept(t)) += dy.col(t);
  });
}

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPS_EMBEDDING_H
