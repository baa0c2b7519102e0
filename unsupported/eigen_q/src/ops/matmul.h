// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_OPS_MATMUL_H
#define EIGENQ_OPS_MATMUL_H

#include "../Tape.h"

namespace EigenQ {
namespace ad {

/** Y = A B, m×k times k×n.  Pullback: Ā += Ȳ Bᵀ, B̄ += Aᵀ Ȳ. */
template <typename Scalar, typename Place>
Var<Scalar, Place> matmul(const Var<Scalar, Place>& a, const Var<Scalar, Place>& b) {
  eigen_assert(a.cols() == b.rows() && "matmul: inner dimensions differ");
  return a.tape().record("matmul", {a, b}, a.value() * b.value(), [=](const auto& dy) {
    a.addGrad(dy * b.value().transpose());
    b.addGrad(a.value().transpose() * dy);
  });
}

/** The matrix product, as in Eigen. */
template <typename Scalar, typename Place>
Var<Scalar, Place> operator*(const Var<Scalar, Place>& a, const Var<Scalar, Place>& b) {
  return matmul(a, b);
}

/** Y = Xᵀ, copied. */
template <typename Scalar, typename Place>
Var<Scalar, Place> transpose(const Var<Scalar, Place>& x) {
  return x.tape().record("transpose", {x}, x.value().transpose(), [=](const auto& dy) { x.addGrad(dy.transpose()); });
}

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPS_MATMUL_H
