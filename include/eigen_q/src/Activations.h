// SPDX-License-Identifier: MPL-2.0
// relu(x), gelu(x), silu(x), tanh(x) on any dense expression; around a quantised product they join its kernel.
#ifndef EIGENQ_ACTIVATIONS_H
#define EIGENQ_ACTIVATIONS_H

#include "Activation.h"

#include <Eigen/Core>

namespace EigenQ {
namespace internal {

/** 16-bit scalars are computed in float and rounded once, as kernels do. */
template <typename Scalar, Activation kActivation>
struct ActivationOp {
  Scalar operator()(const Scalar& v) const {
    using Compute = std::conditional_t<std::is_same<Scalar, double>::value, double, float>;
    return static_cast<Scalar>(activate<kActivation>(static_cast<Compute>(v)));
  }
};

}  // namespace internal

template <typename Derived, Activation kActivation>
using ActivationReturnType =
    const Eigen::CwiseUnaryOp<internal::ActivationOp<typename Derived::Scalar, kActivation>, const Derived>;

/** max(x, 0); NaN stays NaN. */
template <typename Derived>
ActivationReturnType<Derived, Activation::kRelu> relu(const Eigen::DenseBase<Derived>& x) {
  return ActivationReturnType<Derived, Activation::kRelu>(x.derived());
}
/** x·Φ(x), by the error function, not its tanh approximation. Hendrycks and Gimpel, arXiv:1606.08415. */
template <typename Derived>
ActivationReturnType<Derived, Activation::kGelu> gelu(const Eigen::DenseBase<Derived>& x) {
  return ActivationReturnType<Derived, Activation::kGelu>(x.derived());
}
/** x/(1 + e⁻ˣ). */
template <typename Derived>
ActivationReturnType<Derived, Activation::kSilu> silu(const Eigen::DenseBase<Derived>& x) {
  return ActivationReturnType<Derived, Activation::kSilu>(x.derived());
}
/** The hyperbolic tangent of each coefficient, of matrices too (Eigen's own takes arrays). */
template <typename Derived>
ActivationReturnType<Derived, Activation::kTanh> tanh(const Eigen::MatrixBase<Derived>& x) {
  return ActivationReturnType<Derived, Activation::kTanh>(x.derived());
}

}  // namespace EigenQ

namespace Eigen {
namespace internal {

template <typename Scalar, EigenQ::Activation kActivation>
struct functor_traits<EigenQ::internal::ActivationOp<Scalar, kActivation>> {
  enum { Cost = 20 * int(NumTraits<Scalar>::MulCost), PacketAccess = false, IsRepeatable = true };
};

}  // namespace internal
}  // namespace Eigen

#endif  // EIGENQ_ACTIVATIONS_H
