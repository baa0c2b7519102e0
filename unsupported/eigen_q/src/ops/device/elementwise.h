// SPDX-License-Identifier: MPL-2.0
// Ops of the device that treat every entry by itself, and sums. Their values are those of the host ops of these names.
#ifndef EIGENQ_OPS_DEVICE_ELEMENTWISE_H
#define EIGENQ_OPS_DEVICE_ELEMENTWISE_H

#include "helpers.h"

namespace EigenQ {
namespace ad {

namespace internal {
/** y = a(x). Saves nothing: relu and tanh differentiate by their value, the others by x. */
template <Activation kActivation, typename Scalar>
Var<Scalar, Device> activate(const char* name, const Var<Scalar, Device>& x) {
  const gpu::internal::Simple<Scalar> in(gpu::internal::denseTerm(x.value()));
  return x.tape().record(name, {x}, in.activated(kActivation), [=](const auto& dy, const auto& y) {
    constexpr bool kByValue = kActivation == Activation::kRelu || kActivation == Activation::kTanh;
    gpu::Context& context = x.tape().context();
    const GradientView dx = gradientOf(x);
    gpu::internal::ActivationBackward op;
    op.activation = kActivation;
    op.saved = kByValue ? reading(y, context) : reading(x);
    op.dy = reading(dy, context);
    op.dx = dx.view;
    op.accumulate = dx.accumulate;
    gpu::internal::activationBackward(op, context);
  });
}
}  // namespace internal

template <typename Scalar>
Var<Scalar, Device> relu(const Var<Scalar, Device>& x) {
  return internal::activate<Activation::kRelu>("relu", x);
}
template <typename Scalar>
Var<Scalar, Device> tanh(const Var<Scalar, Device>& x) {
  return internal::activate<Activation::kTanh>("tanh", x);
}
template <typename Scalar>
Var<Scalar, Device> silu(const Var<Scalar, Device>& x) {
  return internal::activate<Activation::kSilu>("silu", x);
}
template <typename Scalar>
Var<Scalar, Device> gelu(const Var<Scalar, Device>& x) {
  return internal::activate<Activation::kGelu>("gelu", x);
}

template <typename Scalar>
Var<Scalar, Device> swiglu(const Var<Scalar, Device>& gate, const Var<Scalar, Device>& up) {
  eigen_assert(gate.rows() == up.rows() && gate.cols() == up.cols() && "swiglu: gate and up differ in shape");
  Tape<Scalar, Device>& tape = gate.tape();
  gpu::Context& context = tape.context();
  ArenaMatrix<Scalar, Device> y = tape.newMatrix(gate.rows(), gate.cols());
  gpu::internal::swigluForward(internal::reading(gate), internal::reading(up), internal::writing(y, context), context);
  return tape.record("swiglu", {gate, up}, y, [=, &context](const auto& dy) {
    const internal::GradientView dgate = internal::gradientOf(gate);
    internal::SecondGradient<Scalar> dup(up, {gate});
    gpu::internal::SwigluBackward op;
    op.gate = internal::reading(gate);
    op.up = internal::reading(up);
    op.dy = internal::reading(dy, context);
    op.dgate = dgate.view;
    op.accumulateGate = dgate.accumulate;
    op.dup = dup->view;
    op.accumulateUp = dup->accumulate;
    gpu::internal::swigluBackward(op, context);
    dup.finish();
  });
}

template <typename Scalar>
Var<Scalar, Device> cwiseProduct(const Var<Scalar, Device>& a, const Var<Scalar, Device>& b) {
  eigen_assert(a.rows() == b.rows() && a.cols() == b.cols() && "cwiseProduct: the factors differ in shape");
  Tape<Scalar, Device>& tape = a.tape();
  gpu::Context& context = tape.context();
  ArenaMatrix<Scalar, Device> y = tape.newMatrix(a.rows(), a.cols());
  gpu::internal::cwiseProduct(internal::reading(a), internal::reading(b), internal::writing(y, context),
                              /*accumulate=*/false, context);
  return tape.record("cwiseProduct", {a, b}, y, [=, &context](const auto& dy) {
    const auto pull = [&](const Var<Scalar, Device>& x, const Var<Scalar, Device>& other) {
      if (!x.requiresGrad()) return;
      const internal::GradientView dx = internal::gradientOf(x);
      gpu::internal::cwiseProduct(internal::reading(dy, context), internal::reading(other), dx.view, dx.accumulate,
                                  context);
    };
    pull(a, b);
    pull(b, a);
  });
}

template <typename Scalar>
Var<Scalar, Device> sum(const Var<Scalar, Device>& x) {
  Tape<Scalar, Device>& tape = x.tape();
  gpu::Context& context = tape.context();
  ArenaMatrix<Scalar, Device> y = tape.newMatrix(1, 1);
  gpu::internal::sum(internal::reading(x), 1, internal::writing(y, context), /*accumulate=*/false, context);
  return tape.record("sum", {x}, y, [=, &context](const auto& dy) {
    const internal::GradientView dx = internal::gradientOf(x);
    gpu::internal::broadcast(internal::reading(dy, context), 1, dx.view, dx.accumulate, context);
  });
}

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPS_DEVICE_ELEMENTWISE_H
