// SPDX-License-Identifier: MPL-2.0
// Elementwise activations: the scalar definitions that expressions, kernels and the tape share.
#ifndef EIGENQ_ACTIVATION_H
#define EIGENQ_ACTIVATION_H

#include <cmath>
#include <cstdint>

namespace EigenQ {

/** Elementwise functions that a kernel applies before it stores a result. */
enum class Activation : std::uint8_t { kNone, kRelu, kGelu, kSilu, kTanh };

namespace internal {

/** a(v) for T float or double. NaN stays NaN. */
template <Activation kActivation, typename T>
T activate(T v) {
  if constexpr (kActivation == Activation::kRelu) return v < T(0) ? T(0) : v;
  // v·Φ(v), exact; Hendrycks and Gimpel, arXiv:1606.08415. 1 + erf would cancel for negative v.
  if constexpr (kActivation == Activation::kGelu) return T(0.5) * v * std::erfc(v * T(-0.70710678118654752440));
  if constexpr (kActivation == Activation::kSilu) return v / (T(1) + std::exp(-v));
  if constexpr (kActivation == Activation::kTanh) return std::tanh(v);
  if constexpr (kActivation == Activation::kNone) return v;
}

template <Activation kActivation>
struct ActivationConstant {
  static constexpr Activation value = kActivation;
};

/** Calls \a f with the activation as a constant: one switch, outside the loops. */
template <typename F>
void dispatchActivation(Activation activation, F&& f) {
  switch (activation) {
    case Activation::kNone:
      return f(ActivationConstant<Activation::kNone>());
    case Activation::kRelu:
      return f(ActivationConstant<Activation::kRelu>());
    case Activation::kGelu:
      return f(ActivationConstant<Activation::kGelu>());
    case Activation::kSilu:
      return f(ActivationConstant<Activation::kSilu>());
    case Activation::kTanh:
      return f(ActivationConstant<Activation::kTanh>());
  }
}

}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_ACTIVATION_H
