// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_OPS_LINEAR_CROSS_ENTROPY_H
#define EIGENQ_OPS_LINEAR_CROSS_ENTROPY_H

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <utility>

#include "cross_entropy.h"
#include "linear.h"

namespace EigenQ {
namespace ad {

namespace internal {

/** Cross-entropy of logits that come a few columns at a time, each turned into its gradient on the spot.
 *
 * The weight of a mean is split into mantissa·2ᵏ: the gradients are scaled by the mantissa when they are computed and
 * by 2ᵏ·ȳ when ȳ, the gradient of the loss, is known. So a 16-bit tape rounds them as crossEntropy() does, and half
 * does not underflow where ȳ is a loss scale. */
template <typename Scalar, typename Place>
class ChunkedCrossEntropy;

template <typename Scalar>
class ChunkedCrossEntropy<Scalar, Host> {
 public:
  using Map = Host::Map<Scalar>;
  using ConstMap = Host::ConstMap<Scalar>;
  /** What sums over chunks add up in. */
  using Accumulator = Map;

  ChunkedCrossEntropy(Tape<Scalar>& tape, const Host::Integers& targets, int ignoreIndex, Reduction reduction)
      : m_tape(&tape), m_targets(targets), m_ignoreIndex(ignoreIndex) {
    const Eigen::Index counted = countedTargets(targets, ignoreIndex);
    if (reduction == Reduction::Mean && counted > 0) m_weight = Scalar(1) / static_cast<Scalar>(counted);
    int exponent = 0;
    m_mantissa = std::frexp(m_weight, &exponent);
    m_power = std::ldexp(Scalar(1), exponent);
  }

  template <typename M>
  static Eigen::Map<M> columns(Eigen::Map<M> m, Eigen::Index first, Eigen::Index n) {
    return {m.data() + first * m.rows(), m.rows(), n};
  }
  Accumulator newAccumulator(Eigen::Index rows, Eigen::Index cols) const { return m_tape->newMatrix(rows, cols); }

  /** Logits of the tokens from \a first on; replaced by their gradients if \a gradient. */
  void add(Map logits, Eigen::Index first, bool gradient) {
    for (Eigen::Index j = 0; j < logits.cols(); ++j) {
      const int target = m_targets(first + j);
      auto x = logits.col(j);
      if (target == m_ignoreIndex) {
        if (gradient) x.setZero();
        continue;
      }
      const Scalar lse = logSumExp(x);
      m_total += static_cast<double>(lse - x(target));
      if (!gradient) continue;
      scaledExp(x, lse, m_mantissa, x, /*accumulate=*/false);
      x(target) -= m_mantissa;
    }
  }
  /** sum (+)= dlogits xᵀ */
  void accumulate(Accumulator sum, const ConstMap& dlogits, const ConstMap& x, bool first) const {
    if (first) sum.setZero();
    m_tape->store(sum, dlogits * x.transpose(), /*accumulate=*/true);
  }

  ArenaMatrix<Scalar> loss() const {
    ArenaMatrix<Scalar> y = m_tape->newMatrix(1, 1);
    y(0, 0) = static_cast<Scalar>(m_total * static_cast<double>(m_weight));
    return y;
  }
  /** Adds a gradient, from \a gradients of add(), now that that of the loss is known. */
  void pull(const Var<Scalar>& x, const Map& gradients, const ConstMap& dloss) const {
    x.addGrad((dloss(0, 0) * m_power) * gradients);
  }

 private:
  Tape<Scalar>* m_tape;
  Host::Integers m_targets;
  int m_ignoreIndex;
  Scalar m_weight = 1, m_mantissa = 1, m_power = 1;
  double m_total = 0;
};

/** Tokens whose logits take 64 MiB, or as \a chunk says: enough for products to run at full speed. */
inline Eigen::Index tokensAtATime(Eigen::Index chunk, Eigen::Index classes, std::size_t bytesPerLogit) {
  if (chunk > 0) return chunk;
  const auto fit =
      static_cast<Eigen::Index>((std::size_t(1) << 26) / bytesPerLogit) / std::max<Eigen::Index>(classes, 1);
  return std::max<Eigen::Index>(fit / 64 * 64, 64);
}

template <typename Weight, typename Scalar, typename Place>
Var<Scalar, Place> linearCrossEntropy(Weight&& weight, const Var<Scalar, Place>& h,
                                      ChunkedCrossEntropy<Scalar, Place> loss, Eigen::Index chunk) {
  using Chunks = ChunkedCrossEntropy<Scalar, Place>;
  using ConstMap = typename Place::template ConstMap<Scalar>;
  Tape<Scalar, Place>& tape = h.tape();
  const WeightOperandOf<Weight, Scalar, Place> w(tape, weight);
  eigen_assert(w.cols() == h.rows() && "linearCrossEntropy: W h: inner dimensions differ");
  const bool gradient = h.cols() > 0 && tape.needsGrad({h, w.var()});
  const bool wantsH = gradient && h.requiresGrad(), wantsW = gradient && w.var() && w.var().requiresGrad();
  const ArenaMatrix<Scalar, Place> dh = wantsH ? tape.newMatrix(h.rows(), h.cols()) : tape.newMatrix(0, 0);
  const auto dw = wantsW ? loss.newAccumulator(w.rows(), w.cols()) : loss.newAccumulator(0, 0);
  {
    const auto onContext = tape.scope();
    (void)onContext;
    Scratch<Scalar, Place> scratch(tape);
    const Eigen::Index step = std::min(tokensAtATime(chunk, w.rows(), sizeof(Scalar)), h.cols());
    const auto memory = scratch.matrix(w.rows(), step);
    for (Eigen::Index first = 0; first < h.cols(); first += step) {
      const Eigen::Index n = std::min(step, h.cols() - first);
      const ConstMap x = Chunks::columns(h.value(), first, n);
      auto logits = Chunks::columns(memory, 0, n);
      w.apply(x, {}, logits);
      loss.add(logits, first, gradient);
      const ConstMap dlogits = Place::readOnly(logits);
      if (wantsW) loss.accumulate(dw, dlogits, x, first == 0);
      if (!wantsH) continue;
      auto dx = Chunks::columns(dh, first, n);
      w.applyTransposed(dlogits, dx);
    }
  }
  return tape.record("linearCrossEntropy", {h, w.var()}, loss.loss(), [=](const auto& dloss) {
    if (wantsH) loss.pull(h, dh, dloss);
    if (wantsW) loss.pull(w.var(), dw, dloss);
  });
}

}  // namespace internal

/** crossEntropy(linear(W, h), targets) without the logits of all tokens in memory: the head of a language model.
 * \param weight  classes×dim: a Parameter, a Var, or a frozen quantised matrix; see linear().
 * \param h  dim×tokens. \param targets, ignoreIndex, reduction, errors  as for crossEntropy().
 * \param chunk  tokens whose logits are computed at a time; 0: as many as take 64 MiB.
 *
 * The gradients of h, and of a W that is trained, are computed at once, while the logits of a chunk are there, and are
 * scaled by backward(): dim×tokens and classes×dim are saved where they are wanted. To save a log-sum-exp per token and
 * compute the logits again would take one product more, and dim×tokens less; the head of a small model is a tenth of
 * its work. Logits have the tape's scalar, as those of linear() have; 16-bit tapes sum losses, and the gradient of W
 * over the chunks, in float. Source: Hsu et al., Liger Kernel, arXiv:2410.10989. */
template <typename Weight, typename Scalar, typename Place>
Var<Scalar, Place> linearCrossEntropy(Weight&& weight, const Var<Scalar, Place>& h,
                                      const Eigen::Ref<const Eigen::VectorXi>& targets, int ignoreIndex = -100,
                                      Reduction reduction = Reduction::Mean, Eigen::Index chunk = 0) {
  Tape<Scalar, Place>& tape = h.tape();
  internal::checkTargets(targets, ignoreIndex, weight.rows(), h.cols());
  return internal::linearCrossEntropy(
      std::forward<Weight>(weight), h,
      internal::ChunkedCrossEntropy<Scalar, Place>(tape, tape.keep(targets), ignoreIndex, reduction), chunk);
}

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPS_LINEAR_CROSS_ENTROPY_H
