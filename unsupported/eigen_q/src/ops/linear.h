// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_OPS_LINEAR_H
#define EIGENQ_OPS_LINEAR_H

#include <type_traits>

#include "../Tape.h"
#include "helpers.h"

namespace EigenQ {
namespace ad {

namespace internal {
/** How a weight multiplies inside linear() and loraLinear(): y = W x, and the gradients of x and, if it can have one,
 * of W. This one is dense; quantised weights specialise it. \tparam Weight  the argument's type without reference. */
template <typename Weight, typename Scalar, typename Place, typename Enable = void>
class WeightOperand {
  static_assert(!std::is_same_v<Weight, const Parameter<Scalar, Place>>,
                "EigenQ::ad: a const Parameter cannot take a gradient; pass it non-const");
  static_assert(std::is_convertible_v<Weight&, Operand<Scalar, Place>>,
                "EigenQ::ad: a weight is a Var, a Parameter or a quantised matrix of the same scalar type");

 public:
  /** Whether the argument stays in use until Tape::clear(), so that a temporary would dangle. */
  static constexpr bool kKeepsAddress = !std::is_same_v<std::remove_const_t<Weight>, Var<Scalar, Place>>;

  WeightOperand(Tape<Scalar, Place>& tape, Weight& weight) : m_var(Operand<Scalar, Place>(weight).on(tape)) {}

  Eigen::Index rows() const { return m_var.rows(); }
  Eigen::Index cols() const { return m_var.cols(); }
  Var<Scalar, Place> var() const { return m_var; }

  /** y = W x + b 1ᵀ, where b may be a false Var. */
  template <typename X, typename Y>
  void apply(const X& x, const Var<Scalar, Place>& b, Y& y) const {
    OpsOn<Place>::template linear<Scalar>(m_var.value(), x, b, y);
  }

  /** dx = Wᵀ dy. */
  template <typename Dy, typename Dx>
  void applyTransposed(const Dy& dy, Dx& dx) const {
    m_var.tape().store(dx, m_var.value().transpose() * dy);
  }

  template <typename Dy>
  void pullback(const Dy& dy, const Var<Scalar, Place>& x) const {
    x.addGrad(m_var.value().transpose() * dy);
    m_var.addGrad(dy * x.value().transpose());
  }

 private:
  Var<Scalar, Place> m_var;
};

/** \tparam Weight  as deduced for a forwarding reference. */
template <typename Weight, typename Scalar, typename Place>
struct WeightOperandOf : WeightOperand<std::remove_reference_t<Weight>, Scalar, Place> {
  using Base = WeightOperand<std::remove_reference_t<Weight>, Scalar, Place>;
  static_assert(std::is_lvalue_reference_v<Weight> || !Base::kKeepsAddress,
                "EigenQ::ad: the tape refers to the weight until clear(); pass a named object, not a temporary");
  using Base::Base;
};
}  // namespace internal

/** Y = W X + b 1ᵀ.
 * \param weight  out×in: a Parameter, a Var, or a frozen quantised matrix, which outlives the tape's next clear().
 * \param x  in×tokens. \param bias  out×1, or left out.
 * Pullback: X̄ += Wᵀ Ȳ, W̄ += Ȳ Xᵀ, b̄ += Ȳ 1. A quantised W has no gradient: X̄ takes the transposed quantised
 * product, as in bitsandbytes' MatMul4Bit and MatMul8bitLt. */
template <typename Weight, typename Scalar, typename Place>
Var<Scalar, Place> linear(Weight&& weight, const Var<Scalar, Place>& x, OperandArg<Scalar, Place> bias = {}) {
  Tape<Scalar, Place>& tape = x.tape();
  const internal::WeightOperandOf<Weight, Scalar, Place> w(tape, weight);
  const Var<Scalar, Place> b = bias.on(tape);
  eigen_assert(w.cols() == x.rows() && "linear: W x: inner dimensions differ");
  eigen_assert((!b || (b.rows() == w.rows() && b.cols() == 1)) && "linear: the bias is not out x 1");

  ArenaMatrix<Scalar, Place> y = tape.newMatrix(w.rows(), x.cols());
  {
    const auto onContext = tape.scope();
    (void)onContext;
    w.apply(x.value(), b, y);
  }
  return tape.record("linear", {x, w.var(), b}, y, [=](const auto& dy) {
    w.pullback(dy, x);
    if (b) internal::OpsOn<Place>::template addRowSums<Scalar>(b, dy);
  });
}

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPS_LINEAR_H
