// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_OPS_LINEAR_8BIT_H
#define EIGENQ_OPS_LINEAR_8BIT_H

#include <eigen_q/Core>

#include "../Tape.h"
#include "helpers.h"

namespace EigenQ {
namespace ad {
namespace internal {

/** What linear8bit() needs of a place: its state, the passes' primitives, and views of matrices for them. */
template <typename Place>
class Int8LinearOn;

template <>
class Int8LinearOn<Host> {
 public:
  using State = MatmulLtState;
  using Ops = EigenQ::internal::HostInt8Linear;

  template <typename Scalar>
  explicit Int8LinearOn(const Tape<Scalar>&) {}

  Ops ops() const { return {}; }
  template <typename Matrix>
  EigenQ::internal::ConstDenseView reading(const Matrix& m) const {
    return EigenQ::internal::viewOf(m);
  }
  template <typename Matrix>
  EigenQ::internal::DenseView writing(const Matrix& m) const {
    return EigenQ::internal::mutableViewOf(m);
  }

  /** The outlier features of a forward pass, until clear(). */
  template <typename Scalar>
  static Host::Integers keepOutliers(Tape<Scalar>& tape, const State& state) {
    return tape.keep(state.outlierColumns.template cast<int>());
  }
  /** W̄(:, k) += Ȳ X(k, :)ᵀ for each of them. */
  template <typename Scalar>
  void addOutlierGradient(const Var<Scalar>& w, const Host::ConstMap<Scalar>& dy, const Var<Scalar>& x,
                          const Host::Integers& outliers) const {
    auto dw = w.grad();
    for (const int k : outliers) dw.col(k).noalias() += dy * x.value().row(k).transpose();
  }
};

/** What a kernel writes for one contribution to a gradient of tokens×features, from its features×tokens target. */
template <typename Place, typename Target, typename Run>
void writeTransposed(const Int8LinearOn<Place>& on, const Target& target, const Run& run) {
  const EigenQ::internal::DenseView view = on.writing(target.grad).transpose();
  EigenQ::internal::Epilogue epilogue;
  if (target.accumulate) epilogue.residual = EigenQ::internal::readOnly(view);
  run(view, epilogue);
}

}  // namespace internal

/** Y = W X + b 1ᵀ by LLM.int8() for a weight that is trained: bitsandbytes' MatMul8bitLt with float weights.
 * \param weight  out×in; its int8 codes live in \a state and are made again when its value has changed since. On a
 * 16-bit tape of a device it may be float: the codes are those of its rounded copy \param x       in×tokens; each token
 * is quantised by its own absolute maximum, but for outlier features \param state   how to multiply (MatmulLtState.h),
 * gpu::MatmulLtState on a device; belongs to this weight and outlives the tape's next clear(). With usePool, a device
 * is waited for in every forward pass \param bias    out×1, or left out Pullback: X̄ += Ŵᵀ Ȳ with the dequantised
 * weight, or in integers (state.memoryEfficientBackward). W̄ += Ȳ Xᵀ with both factors quantised over the tokens, in
 * full precision for the outlier features of this forward pass. b̄ += Ȳ 1. They are straight-through: rounding counts as
 * the identity. For a frozen weight, linear(w.withThreshold(t), x) needs no state. Source: Dettmers et al., LLM.int8(),
 * arXiv:2208.07339. */
template <typename WeightScalar, typename Scalar, typename Place>
Var<Scalar, Place> linear8bit(Parameter<WeightScalar, Place>& weight, const Var<Scalar, Place>& x,
                              typename internal::Int8LinearOn<Place>::State& state,
                              OperandArg<Scalar, Place> bias = {}) {
  namespace core = EigenQ::internal;
  Tape<Scalar, Place>& tape = x.tape();
  const Var<Scalar, Place> w = tape.parameter(weight), b = bias.on(tape);
  eigen_assert(w.cols() == x.rows() && "linear8bit: W x: inner dimensions differ");
  eigen_assert((!b || (b.rows() == w.rows() && b.cols() == 1)) && "linear8bit: the bias is not out x 1");

  const auto onContext = tape.scope();
  (void)onContext;
  if (state.weightVersion != weight.version()) state.resetGrads();
  state.weightVersion = weight.version();
  state.hasAccumulatedGradients = true;  // codes that are there are those of this value
  const internal::Int8LinearOn<Place> on(tape);
  core::Epilogue epilogue;
  if (b) {
    epilogue.biasAxis = core::BiasAxis::kPerCol;
    epilogue.bias = on.reading(b.value()).data;
  }
  ArenaMatrix<Scalar, Place> y = tape.newMatrix(w.rows(), x.cols());
  core::int8LinearForward(on.ops(), on.reading(x.value()).transpose(), on.reading(w.value()), state,
                          on.writing(y).transpose(), epilogue);
  const auto outliers = on.keepOutliers(tape, state);

  return tape.record("linear8bit", {x, w, b}, y, [=, &state](const auto& dy) {
    const core::ConstDenseView g = on.reading(dy).transpose();
    if (x.requiresGrad()) {
      internal::writeTransposed(on, x.gradTarget(), [&](const core::DenseView& dx, const core::Epilogue& add) {
        core::int8LinearInputGradient(on.ops(), g, state, dx, add);
      });
    }
    if (state.forceNoIgemmlt) {
      w.addGrad(dy * x.value().transpose());
    } else if (w.requiresGrad()) {
      internal::writeTransposed(on, w.gradTarget(), [&](const core::DenseView& dwt, const core::Epilogue& add) {
        core::int8LinearWeightGradient(on.ops(), g, on.reading(x.value()).transpose(), outliers, dwt.transpose(),
                                       add.transpose());
      });
      on.addOutlierGradient(w, dy, x, outliers);
    }
    if (b) internal::OpsOn<Place>::template addRowSums<Scalar>(b, dy);
  });
}

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPS_LINEAR_8BIT_H
