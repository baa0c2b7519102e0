// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_OPS_ACTIVATION_H
#define EIGENQ_OPS_ACTIVATION_H

#include <cmath>
#include <type_traits>

#include <eigen_q/src/Activation.h>
#include <eigen_q/src/FloatKernels.h>

#include "../Tape.h"

namespace EigenQ {
namespace ad {

/** y = max(x, 0), NaN where x is; the derivative at 0 is 0. */
template <typename Scalar>
Var<Scalar> relu(const Var<Scalar>& x) {
  const auto in = x.value().array();
  return x.tape().record("relu", {x}, (in < Scalar(0)).select(Scalar(0), in), [=](const auto& dy, const auto& y) {
    x.addGrad((y.array() > Scalar(0)).select(dy.array(), Scalar(0)));
  });
}

/** y = tanh(x). */
template <typename Scalar>
Var<Scalar> tanh(const Var<Scalar>& x) {
  return x.tape().record("tanh", {x}, x.value().array().tanh(), [=](const auto& dy, const auto& y) {
    x.addGrad(dy.array() * (Scalar(1) - y.array().square()));
  });
}

/** y = x·σ(x), σ the logistic function.  ȳ ↦ ȳ σ(x)(1 + x(1 - σ(x))). */
template <typename Scalar>
Var<Scalar> silu(const Var<Scalar>& x) {
  return x.tape().record("silu", {x}, x.value().array() * x.value().array().logistic(), [=](const auto& dy) {
    Scratch<Scalar> scratch(x.tape());
    auto sigma = scratch.array(x.rows(), x.cols());
    sigma = x.value().array().logistic();
    x.addGrad(dy.array() * sigma * (Scalar(1) + x.value().array() * (Scalar(1) - sigma)));
  });
}

namespace internal {
inline Var<float> swigluByKernels(const Var<float>& gate, const Var<float>& up) {
  Tape<float>& tape = gate.tape();
  ArenaMatrix<float> y = tape.newMatrix(gate.rows(), gate.cols());
  EigenQ::internal::floatKernels().swiglu(y.size(), gate.value().data(), up.value().data(), y.data());
  return tape.record("swiglu", {gate, up}, y, [=](const auto& dy) {
    const auto dUp = floatGradient(up);  // before the gate's: where both are one, the kernel writes it first
    const auto dGate = floatGradient(gate);
    EigenQ::internal::floatKernels().swigluBackward(dy.size(), gate.value().data(), up.value().data(), dy.data(), dGate,
                                                    dUp);
  });
}
}  // namespace internal

/** y = silu(gate) ∘ up, the gate of a Llama feed-forward block. Same shape; saves nothing beside its inputs.
 * Source: Shazeer, GLU Variants Improve Transformer, arXiv:2002.05202. */
template <typename Scalar>
Var<Scalar> swiglu(const Var<Scalar>& gate, const Var<Scalar>& up) {
  if constexpr (std::is_same_v<Scalar, float>) {
    return internal::swigluByKernels(gate, up);
  } else {
    const auto value = gate.value().array() * gate.value().array().logistic() * up.value().array();
    return gate.tape().record("swiglu", {gate, up}, value, [=](const auto& dy) {
      Scratch<Scalar> scratch(gate.tape());
      const auto x = gate.value();
      auto sigma = scratch.array(x.rows(), x.cols());
      sigma = x.array().logistic();
      up.addGrad(dy.array() * x.array() * sigma);
      gate.addGrad(dy.array() * up.value().array() * sigma * (Scalar(1) + x.array() * (Scalar(1) - sigma)));
    });
  }
}

/** y = x·Φ(x), Φ the normal distribution function by erf (not the tanh approximation).
 * Source: Hendrycks and Gimpel, arXiv:1606.08415. */
template <typename Scalar>
Var<Scalar> gelu(const Var<Scalar>& x) {
  const auto value = [](Scalar v) { return EigenQ::internal::activate<Activation::kGelu>(v); };
  const auto slope = [](Scalar v) {  // Φ(v) + v·φ(v)
    constexpr auto kSqrtHalf = Scalar(0.70710678118654752440), kInvSqrt2Pi = Scalar(0.39894228040143267794);
    return Scalar(0.5) * (Scalar(1) + std::erf(v * kSqrtHalf)) + v * kInvSqrt2Pi * std::exp(Scalar(-0.5) * v * v);
  };
  return x.tape().record("gelu", {x}, x.value().unaryExpr(value),
                         [=](const auto& dy) { x.addGrad(dy.cwiseProduct(x.value().unaryExpr(slope))); });
}

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPS_ACTIVATION_H
