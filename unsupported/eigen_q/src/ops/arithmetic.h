// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_OPS_ARITHMETIC_H
#define EIGENQ_OPS_ARITHMETIC_H

#include "../Tape.h"

namespace EigenQ {
namespace ad {

/** y = a + b, same shape. */
template <typename Scalar>
Var<Scalar> add(const Var<Scalar>& a, const Var<Scalar>& b) {
  return a.tape().record("add", {a, b}, a.value() + b.value(), [=](const auto& dy) {
    a.addGrad(dy);
    b.addGrad(dy);
  });
}

/** y = a - b, same shape. */
template <typename Scalar>
Var<Scalar> sub(const Var<Scalar>& a, const Var<Scalar>& b) {
  return a.tape().record("sub", {a, b}, a.value() - b.value(), [=](const auto& dy) {
    a.addGrad(dy);
    b.addGrad(-dy);
  });
}

/** y = s·x, with s rounded to Scalar. */
template <typename Scalar>
Var<Scalar> scale(const Var<Scalar>& x, double s) {
  const auto factor = static_cast<Scalar>(s);
  return x.tape().record("scale", {x}, factor * x.value(), [=](const auto& dy) { x.addGrad(factor * dy); });
}

/** y = a ∘ b, same shape. */
template <typename Scalar>
Var<Scalar> cwiseProduct(const Var<Scalar>& a, const Var<Scalar>& b) {
  return a.tape().record("cwiseProduct", {a, b}, a.value().cwiseProduct(b.value()), [=](const auto& dy) {
    a.addGrad(dy.cwiseProduct(b.value()));
    b.addGrad(dy.cwiseProduct(a.value()));
  });
}

template <typename Scalar>
Var<Scalar> operator+(const Var<Scalar>& a, const Var<Scalar>& b) {
  return add(a, b);
}

template <typename Scalar>
Var<Scalar> operator-(const Var<Scalar>& a, const Var<Scalar>& b) {
  return sub(a, b);
}

template <typename Scalar>
Var<Scalar> operator-(const Var<Scalar>& x) {
  return scale(x, -1);
}

template <typename Scalar>
Var<Scalar> operator*(double s, const Var<Scalar>& x) {
  return scale(x, s);
}

template <typename Scalar>
Var<Scalar> operator*(const Var<Scalar>& x, double s) {
  return scale(x, s);
}

template <typename Scalar>
Var<Scalar> operator/(const Var<Scalar>& x, double s) {
  return scale(x, 1 / s);
}

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPS_ARITHMETIC_H
