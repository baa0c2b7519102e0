// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_OPS_LINEAR_NARROW_H
#define EIGENQ_OPS_LINEAR_NARROW_H

#include <eigen_q/src/Embedding.h>

#include "../HostProduct.h"
#include "../NarrowMatrix.h"
#include "linear.h"

namespace EigenQ {
namespace ad {

namespace internal {
/** A frozen weight in float or 16 bits: products, and no gradient of its own. */
template <>
class WeightOperand<FrozenFloats, float, Host> {
 public:
  static constexpr bool kKeepsAddress = false;

  WeightOperand(Tape<float>&, const FrozenFloats& weight) : m_w(weight) {}

  Eigen::Index rows() const { return m_w.rows(); }
  Eigen::Index cols() const { return m_w.cols(); }
  Var<float> var() const { return {}; }

  template <typename X, typename Y>
  void apply(const X& x, const Var<float>& b, Y& y) const {
    multiplyFloats(y, m_w.view, EigenQ::internal::viewOf(x), 1, /*accumulate=*/false);
    if (b) y.colwise() += b.value().col(0);
  }
  template <typename Dy, typename Dx>
  void applyTransposed(const Dy& dy, Dx& dx) const {
    multiplyFloats(dx, m_w.view.transpose(), EigenQ::internal::viewOf(dy), 1, /*accumulate=*/false);
  }
  template <typename Dy>
  void pullback(const Dy& dy, const Var<float>& x) const {
    if (!x.requiresGrad()) return;
    const auto target = x.gradTarget();
    multiplyFloats(target.grad, m_w.view.transpose(), EigenQ::internal::viewOf(dy), 1, target.accumulate);
  }

 private:
  FrozenFloats m_w;
};
}  // namespace internal

/** Column t of the result is column ids(t) of the table, widened; without gradient. \param table  dim×vocabulary; it is
 * read here and not kept. Throws std::out_of_range for an id outside the vocabulary. */
inline Var<float> embedding(Tape<float>& tape, const NarrowMatrix& table,
                            const Eigen::Ref<const Eigen::VectorXi>& ids) {
  ArenaMatrix<float> y = tape.newMatrix(table.rows(), ids.size());
  for (Eigen::Index t = 0; t < ids.size(); ++t)
    table.copyColumn(EigenQ::internal::checkedId(ids, t, table.cols()), y.col(t).data());
  return tape.record("embedding", {}, y, [](const auto&) {});
}

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPS_LINEAR_NARROW_H
