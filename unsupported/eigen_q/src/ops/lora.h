// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_OPS_LORA_H
#define EIGENQ_OPS_LORA_H

#include "../Tape.h"
#include "dropout.h"
#include "linear.h"

namespace EigenQ {
namespace ad {

struct LoraOptions {
  double scale = 1;    // alpha / r, or alpha / √r for rank-stabilised adapters
  double dropout = 0;  // of the adapter's input
};

/** Y = W X + b 1ᵀ + scale · B (A dropout(X)): a weight with a low-rank adapter. B A is never formed.
 * \param weight  out×in, usually frozen and quantised; see linear().
 * \param a  r×in. \param b  out×r. \param x  in×tokens.
 * Saves A dropout(X), r×tokens; the mask is recomputed. Throws std::invalid_argument unless 0 ≤ dropout < 1.
 * Source: Hu et al., LoRA, arXiv:2106.09685. */
template <typename Weight, typename Scalar, typename Place>
Var<Scalar, Place> loraLinear(Weight&& weight, OperandArg<Scalar, Place> a, OperandArg<Scalar, Place> b,
                              const Var<Scalar, Place>& x, const LoraOptions& options = {},
                              OperandArg<Scalar, Place> bias = {}) {
  using Ops = internal::OpsOn<Place>;
  using ConstMap = typename Place::template ConstMap<Scalar>;
  internal::checkDropout("loraLinear", options.dropout);
  Tape<Scalar, Place>& tape = x.tape();
  const internal::WeightOperandOf<Weight, Scalar, Place> w(tape, weight);
  const Var<Scalar, Place> down = a.on(tape), up = b.on(tape), c = bias.on(tape);
  eigen_assert(w.cols() == x.rows() && down.cols() == x.rows() && "loraLinear: inner dimensions differ");
  eigen_assert(up.cols() == down.rows() && up.rows() == w.rows() && "loraLinear: B A does not fit W");
  eigen_assert((!c || (c.rows() == w.rows() && c.cols() == 1)) && "loraLinear: the bias is not out x 1");
  const auto s = static_cast<typename Place::template Factor<Scalar>>(options.scale);
  const double p = options.dropout;
  const RandomStream stream = p > 0 ? tape.nextRandomStream() : RandomStream{};

  // x as the adapter sees it, in scratch memory where dropout changes it.
  const auto adapterInput = [=](Scratch<Scalar, Place>& scratch) -> ConstMap {
    if (p == 0) return x.value();
    auto dropped = scratch.matrix(x.rows(), x.cols());
    Ops::template dropout<Scalar>(x.tape(), x.value(), p, stream, dropped);
    return Place::readOnly(dropped);
  };

  ArenaMatrix<Scalar, Place> y = tape.newMatrix(w.rows(), x.cols());
  ArenaMatrix<Scalar, Place> u = tape.newMatrix(down.rows(), x.cols());
  {
    const auto onContext = tape.scope();
    (void)onContext;
    Scratch<Scalar, Place> scratch(tape);
    tape.store(u, down.value() * adapterInput(scratch));
    w.apply(x.value(), c, y);
    tape.store(y, s * (up.value() * u), /*accumulate=*/true);
  }

  return tape.record("loraLinear", {x, w.var(), down, up, c}, y, [=](const auto& dy) {
    Scratch<Scalar, Place> scratch(x.tape());
    auto du = scratch.matrix(u.rows(), u.cols());
    x.tape().store(du, s * (up.value().transpose() * dy));
    up.addGrad(s * (dy * u.transpose()));
    if (down.requiresGrad()) down.addGrad(du * adapterInput(scratch).transpose());
    w.pullback(dy, x);
    if (c) Ops::template addRowSums<Scalar>(c, dy);
    if (!x.requiresGrad()) return;
    if (p == 0) return x.addGrad(down.value().transpose() * du);
    auto dx = scratch.matrix(x.rows(), x.cols());
    x.tape().store(dx, down.value().transpose() * du);
    Ops::template addDropout<Scalar>(x, Place::readOnly(dx), p, stream);
  });
}

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPS_LORA_H
