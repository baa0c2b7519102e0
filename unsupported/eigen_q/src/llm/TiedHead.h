// SPDX-License-Identifier: MPL-2.0
// The embedding as the weight of the head.
#ifndef EIGENQ_LLM_TIED_HEAD_H
#define EIGENQ_LLM_TIED_HEAD_H

#include "../../Autodiff"

namespace EigenQ {
namespace llm {
namespace internal {

/** Eᵀ as a weight, vocabulary×hidden, of E, hidden×vocabulary: nothing is transposed in memory. */
template <typename Scalar, typename Place>
struct TiedHead {
  ad::Var<Scalar, Place> embedding;

  Index rows() const { return embedding.cols(); }
  Index cols() const { return embedding.rows(); }
};

}  // namespace internal
}  // namespace llm

namespace ad {
namespace internal {

template <typename Scalar, typename Place>
class WeightOperand<llm::internal::TiedHead<Scalar, Place>, Scalar, Place> {
 public:
  static constexpr bool kKeepsAddress = false;

  WeightOperand(Tape<Scalar, Place>&, const llm::internal::TiedHead<Scalar, Place>& head) : m_e(head.embedding) {}

  Eigen::Index rows() const { return m_e.cols(); }
  Eigen::Index cols() const { return m_e.rows(); }
  Var<Scalar, Place> var() const { return m_e; }

  template <typename X, typename Y>
  void apply(const X& x, const Var<Scalar, Place>& b, Y& y) const {
    eigen_assert(!b && "TiedHead: a tied head has no bias");
    EIGEN_UNUSED_VARIABLE(b);
    m_e.tape().store(y, m_e.value().transpose() * x);
  }
  template <typename Dy, typename Dx>
  void applyTransposed(const Dy& dy, Dx& dx) const {
    m_e.tape().store(dx, m_e.value() * dy);
  }
  template <typename Dy>
  void pullback(const Dy& dy, const Var<Scalar, Place>& x) const {
    x.addGrad(m_e.value() * dy);
    m_e.addGrad(x.value() * dy.transpose());
  }

 private:
  Var<Scalar, Place> m_e;
};

}  // namespace internal
}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_LLM_TIED_HEAD_H
