// SPDX-License-Identifier: MPL-2.0
// Ops of the device that work column by column: softmax, cross-entropy, norms. As the host ops of these names.
#ifndef EIGENQ_OPS_DEVICE_COLUMNS_H
#define EIGENQ_OPS_DEVICE_COLUMNS_H

#include "../cross_entropy.h"
#include "helpers.h"

namespace EigenQ {
namespace ad {

template <typename Scalar>
Var<Scalar, Device> softmax(const Var<Scalar, Device>& x) {
  Tape<Scalar, Device>& tape = x.tape();
  gpu::Context& context = tape.context();
  ArenaMatrix<Scalar, Device> y = tape.newMatrix(x.rows(), x.cols());
  gpu::internal::softmaxForward(internal::reading(x), internal::writing(y, context), context);
  return tape.record("softmax", {x}, y, [=, &context](const auto& dy, const auto& value) {
    const internal::GradientView dx = internal::gradientOf(x);
    gpu::internal::softmaxBackward(internal::reading(value, context), internal::reading(dy, context), dx.view,
                                   dx.accumulate, context);
  });
}

template <typename Scalar>
Var<Scalar, Device> logSoftmax(const Var<Scalar, Device>& x) {
  Tape<Scalar, Device>& tape = x.tape();
  gpu::Context& context = tape.context();
  ArenaMatrix<Scalar, Device> y = tape.newMatrix(x.rows(), x.cols());
  gpu::internal::logSoftmaxForward(internal::reading(x), internal::writing(y, context), context);
  return tape.record("logSoftmax", {x}, y, [=, &context](const auto& dy, const auto& value) {
    const internal::GradientView dx = internal::gradientOf(x);
    gpu::internal::logSoftmaxBackward(internal::reading(value, context), internal::reading(dy, context), dx.view,
                                      dx.accumulate, context);
  });
}

/** With targets on the device, for graphs that are replayed with other targets. Nothing can be thrown there: where a
 * target is no class, the loss and that column's gradient are NaN. */
template <typename Scalar>
Var<Scalar, Device> crossEntropy(const Var<Scalar, Device>& logits, const gpu::DeviceView<const int>& targets,
                                 int ignoreIndex = -100, Reduction reduction = Reduction::Mean) {
  if (targets.size() != logits.cols())
    throw std::invalid_argument("crossEntropy: expected " + std::to_string(logits.cols()) +
                                " targets, one per column of the logits, found " + std::to_string(targets.size()));
  Tape<Scalar, Device>& tape = logits.tape();
  gpu::Context& context = tape.context();
  ArenaMatrix<Scalar, Device> loss = tape.newMatrix(1, 1);
  gpu::internal::CrossEntropy op;
  op.logits = internal::reading(logits);
  op.targets = internal::reading(targets, context);
  op.ignoreIndex = ignoreIndex;
  op.mean = reduction == Reduction::Mean;
  op.lse = internal::newFloats(tape, logits.cols());
  op.weight = internal::newFloats(tape, 1);
  op.loss = internal::writing(loss, context);
  gpu::internal::crossEntropyForward(op, context);

  return tape.record("crossEntropy", {logits}, loss, [=, &context](const auto& dy) {
    const internal::GradientView dx = internal::gradientOf(logits);
    gpu::internal::CrossEntropyBackward back;
    back.logits = op.logits;
    back.targets = op.targets;
    back.ignoreIndex = ignoreIndex;
    back.lse = op.lse;
    back.weight = op.weight;
    back.dloss = internal::reading(dy, context);
    back.dlogits = dx.view;
    back.accumulate = dx.accumulate;
    gpu::internal::crossEntropyBackward(back, context);
  });
}

template <typename Scalar>
Var<Scalar, Device> crossEntropy(const Var<Scalar, Device>& logits, const Eigen::Ref<const Eigen::VectorXi>& targets,
                                 int ignoreIndex = -100, Reduction reduction = Reduction::Mean) {
  internal::checkTargets(targets, ignoreIndex, logits.rows(), logits.cols());
  return crossEntropy(logits, logits.tape().keep(targets), ignoreIndex, reduction);
}

namespace internal {
/** RMSNorm, or LayerNorm where there is a bias. */
template <typename Scalar>
Var<Scalar, Device> norm(const char* name, const Var<Scalar, Device>& x, const Var<Scalar, Device>& g,
                         const Var<Scalar, Device>& b, double eps) {
  Tape<Scalar, Device>& tape = x.tape();
  gpu::Context& context = tape.context();
  ArenaMatrix<Scalar, Device> y = tape.newMatrix(x.rows(), x.cols());
  gpu::internal::Norm op;
  op.x = reading(x);
  op.gain = reading(g);
  if (b) op.bias = reading(b);
  op.eps = eps;
  op.y = writing(y, context);
  op.inverse = newFloats(tape, x.cols());
  if (b) op.center = newFloats(tape, x.cols());
  gpu::internal::normForward(op, context);

  return tape.record(name, {x, g, b}, y, [=, &context](const auto& dy) {
    const GradientView dx = gradientOf(x);
    SecondGradient<Scalar> dgain(g, {x});
    gpu::internal::NormBackward back;
    back.x = op.x;
    back.gain = reading(g);
    back.dy = reading(dy, context);
    back.inverse = op.inverse;
    back.center = op.center;
    back.dx = dx.view;
    back.accumulateX = dx.accumulate;
    back.dgain = dgain->view;
    back.accumulateGain = dgain->accumulate;
    std::optional<SecondGradient<Scalar>> dbias;
    if (b) {
      dbias.emplace(b, std::initializer_list<Var<Scalar, Device>>{x, g});
      back.dbias = (*dbias)->view;
      back.accumulateBias = (*dbias)->accumulate;
    }
    gpu::internal::normBackward(back, context);
    if (dbias) dbias->finish();
    dgain.finish();
  });
}
}  // namespace internal

template <typename Scalar>
Var<Scalar, Device> rmsNorm(const Var<Scalar, Device>& x, OperandArg<Scalar, Device> gain, double eps = 1e-6) {
  const Var<Scalar, Device> g = gain.on(x.tape());
  eigen_assert(g.rows() == x.rows() && g.cols() == 1 && "rmsNorm: the gain is not dim x 1");
  return internal::norm("rmsNorm", x, g, {}, eps);
}

template <typename Scalar>
Var<Scalar, Device> layerNorm(const Var<Scalar, Device>& x, OperandArg<Scalar, Device> gain,
                              OperandArg<Scalar, Device> bias, double eps = 1e-5) {
  const Var<Scalar, Device> g = gain.on(x.tape()), b = bias.on(x.tape());
  eigen_assert(g.rows() == x.rows() && g.cols() == 1 && "layerNorm: the gain is not dim x 1");
  eigen_assert(b.rows() == x.rows() && b.cols() == 1 && "layerNorm: the bias is not dim x 1");
  return internal::norm("layerNorm", x, g, b, eps);
}

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPS_DEVICE_COLUMNS_H
