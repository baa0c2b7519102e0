// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_OPS_LINEAR_8BIT_H
#define EIGENQ_OPS_LINEAR_8BIT_H

#include <eigen_q/Core>

#include "../Tape.h"

namespace EigenQ {
namespace ad {
namespace internal {

/** What a kernel writes for one contribution to a gradient of tokens×features, from its features×tokens target. */
template <typename Target, typename Run>
void writeTransposed(const Target& target, const Run& run) {
  const EigenQ::internal::DenseView view = EigenQ::internal::mutableViewOf(target.grad).transpose();
  EigenQ::internal::Epilogue epilogue;
  if (target.accumulate) epilogue.residual = EigenQ::internal::readOnly(view);
  run(view, epilogue);
}

}  // namespace internal

/** Y = W X + b 1ᵀ by LLM.int8() for a weight that is trained: bitsandbytes' MatMul8bitLt with float weights.
 * \param weight  out×in; its int8 codes live in \a state and are made again when its value has changed since
 * \param x       in×tokens; each token is quantised by its own absolute maximum, but for outlier features
 * \param state   how to multiply (MatmulLtState.h); belongs to this weight and outlives the tape's next clear()
 * \param bias    out×1, or left out
 * Pullback: X̄ += Ŵᵀ Ȳ with the dequantised weight, or in integers (state.memoryEfficientBackward). W̄ += Ȳ Xᵀ with both
 * factors quantised over the tokens, in full precision for the outlier features of this forward pass. b̄ += Ȳ 1. They
 * are straight-through: rounding counts as the identity. For a frozen weight, linear(w.withThreshold(t), x) needs no
 * state. Source: Dettmers et al., LLM.int8(), arXiv:2208.07339. */
template <typename Scalar>
Var<Scalar> linear8bit(Parameter<Scalar>& weight, const Var<Scalar>& x, MatmulLtState& state,
                       OperandArg<Scalar> bias = {}) {
  namespace core = EigenQ::internal;
  Tape<Scalar>& tape = x.tape();
  const Var<Scalar> w = tape.parameter(weight), b = bias.on(tape);
  eigen_assert(w.cols() == x.rows() && "linear8bit: W x: inner dimensions differ");
  eigen_assert((!b || (b.rows() == w.rows() && b.cols() == 1)) && "linear8bit: the bias is not out x 1");

  if (state.weightVersion != weight.version()) state.resetGrads();
  state.weightVersion = weight.version();
  state.hasAccumulatedGradients = true;  // codes that are there are those of this value
  core::Epilogue epilogue;
  if (b) {
    epilogue.biasAxis = core::BiasAxis::kPerCol;
    epilogue.bias = b.value().data();
  }
  ArenaMatrix<Scalar> y = tape.newMatrix(w.rows(), x.cols());
  core::int8LinearForward(core::viewOf(x.value()).transpose(), core::viewOf(w.value()), state,
                          core::mutableViewOf(y).transpose(), epilogue);
  const Eigen::Map<const Eigen::VectorXi> outliers = tape.keep(state.outlierColumns.template cast<int>());

  return tape.record("linear8bit", {x, w, b}, y, [=, &state](const auto& dy) {
    const core::ConstDenseView g = core::viewOf(dy).transpose();
    if (x.requiresGrad()) {
      internal::writeTransposed(x.gradTarget(), [&](const core::DenseView& dx, const core::Epilogue& add) {
        core::int8LinearInputGradient(g, state, dx, add);
      });
    }
    if (state.forceNoIgemmlt) {
      w.addGrad(dy * x.value().transpose());
    } else if (w.requiresGrad()) {
      internal::writeTransposed(w.gradTarget(), [&](const core::DenseView& dwt, const core::Epilogue& add) {
        core::int8LinearWeightGradient(g, core::viewOf(x.value()).transpose(), outliers.template cast<Index>(),
                                       dwt.transpose(), add.transpose());
      });
      auto dw = w.grad();
      for (const int k : outliers) dw.col(k).noalias() += dy * x.value().row(k).transpose();
    }
    if (b) b.addGrad(dy.rowwise().sum());
  });
}

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPS_LINEAR_8BIT_H
