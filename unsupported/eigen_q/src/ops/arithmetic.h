// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_OPS_ARITHMETIC_H
#define EIGENQ_OPS_ARITHMETIC_H

#include "../Tape.h"

namespace EigenQ {
namespace ad {

/** y = a + b, same shape. */
template <typename Scalar, typename Place>
Var<Scalar, Place> add(const Var<Scalar, Place>& a, const Var<Scalar, Place>& b) {
  return a.tape().record("add", {a, b}, a.value() + b.value(), [=](const auto& dy) {
    a.addGrad(dy);
    b.addGrad(dy);
  });
}

/** y = a - b, same shape. */
template <typename Scalar, typename Place>
Var<Scalar, Place> sub(const Var<Scalar, Place>& a, const Var<Scalar, Place>& b) {
  return a.tape().record("sub", {a, b}, a.value() - b.value(), [=](const auto& dy) {
    a.addGrad(dy);
    b.addGrad(-dy);
  });
}

/** y = s·x, with s rounded to Scalar; to float on a device. */
template <typename Scalar, typename Place>
Var<Scalar, Place> scale(const Var<Scalar, Place>& x, double s) {
  const auto factor = static_cast<typename Place::template Factor<Scalar>>(s);
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

template <typename Scalar, typename Place>
Var<Scalar, Place> operator+(const Var<Scalar, Place>& a, const Var<Scalar, Place>& b) {
  return add(a, b);
}

template <typename Scalar, typename Place>
Var<Scalar, Place> operator-(const Var<Scalar, Place>& a, const Var<Scalar, Place>& b) {
  return sub(a, b);
}

template <typename Scalar, typename Place>
Var<Scalar, Place> operator-(const Var<Scalar, Place>& x) {
  return scale(x, -1);
}

template <typename Scalar, typename Place>
Var<Scalar, Place> operator*(double s, const Var<Scalar, Place>& x) {
  return scale(x, s);
}

template <typename Scalar, typename Place>
Var<Scalar, Place> operator*(const Var<Scalar, Place>& x, double s) {
  return scale(x, s);
}

template <typename Scalar, typename Place>
Var<Scalar, Place> operator/(const Var<Scalar, Place>& x, double s) {
  return scale(x, 1 / s);
}

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPS_ARITHMETIC_H
