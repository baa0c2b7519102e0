// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_OPTIM_ADAMW_H
#define EIGENQ_OPTIM_ADAMW_H

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

#include <eigen_q/src/FloatKernels.h>

#include "Optimizer.h"

namespace EigenQ {
namespace ad {

struct AdamWOptions {
  double learningRate = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weightDecay = 1e-2;  // decoupled: w shrinks by learningRate·weightDecay, outside the moments
};

namespace internal {
/** A β that float rounds to 1 would never learn. */
inline void checkAdamOptions(const char* name, const AdamWOptions& o) {
  checkOption(o.learningRate >= 0, name, "learningRate", o.learningRate);
  checkOption(o.beta1 >= 0 && static_cast<float>(o.beta1) < 1, name, "beta1", o.beta1);
  checkOption(o.beta2 >= 0 && static_cast<float>(o.beta2) < 1, name, "beta2", o.beta2);
  checkOption(o.eps >= 0, name, "eps", o.eps);
  checkOption(o.weightDecay >= 0, name, "weightDecay", o.weightDecay);
}

/** The options in step t, rounded as the step takes them. */
template <typename Scalar>
struct AdamWRates {
  AdamWRates(const AdamWOptions& o, double t)
      : beta1(static_cast<Scalar>(o.beta1)),
        beta2(static_cast<Scalar>(o.beta2)),
        step(static_cast<Scalar>(o.learningRate / (1 - std::pow(o.beta1, t)))),
        unbias2(static_cast<Scalar>(1 / std::sqrt(1 - std::pow(o.beta2, t)))),
        keep(static_cast<Scalar>(1 - o.learningRate * o.weightDecay)),
        eps(static_cast<Scalar>(o.eps)) {}

  Scalar beta1, beta2, step, unbias2, keep, eps;
};

/** One parameter's step. */
template <typename Place>
struct AdamWRule;
template <>
struct AdamWRule<Host> {
  template <typename Scalar>
  static void step(const AdamWRates<Scalar>& r, OptimizerReplay<Host>&, std::size_t, Scalar gradScale,
                   const Eigen::MatrixX<Scalar>& gradient, Eigen::Map<Eigen::MatrixX<Scalar>> value,
                   Eigen::MatrixX<Scalar>& first, Eigen::MatrixX<Scalar>& second) {
    if constexpr (std::is_same_v<Scalar, float>)
      return EigenQ::internal::floatKernels().adamW({value.size(), value.data(), gradient.data(), first.data(),
                                                     second.data(), gradScale, r.beta1, r.beta2, r.step, r.unbias2,
                                                     r.keep, r.eps});
    auto w = value.array();
    auto m = first.array();
    auto v = second.array();
    const auto g = gradScale * gradient.array();
    m = r.beta1 * m + (1 - r.beta1) * g;
    v = r.beta2 * v + (1 - r.beta2) * g.square();
    w = r.keep * w - r.step * m / (v.sqrt() * r.unbias2 + r.eps);
  }
};
}  // namespace internal

/** Adam with decoupled weight decay, as torch.optim.AdamW, in step t = 1, 2, … of each parameter:
 * w ← (1 - lr·decay)·w,  m ← β₁m + (1 - β₁)g,  v ← β₂v + (1 - β₂)g²,
 * w ← w - lr/(1 - β₁ᵗ) · m / (√v/√(1 - β₂ᵗ) + eps).
 * Source: Loshchilov and Hutter, arXiv:1711.05101. */
template <typename Scalar_, typename Place_ = Host>
class AdamW : public Optimizer<Scalar_, Place_> {
 public:
  using Scalar = Scalar_;
  using Place = Place_;
  using typename Optimizer<Scalar, Place>::Matrix;

  /** What a resumed run needs beside the parameters, in their order; where they are. */
  struct State {
    std::vector<Matrix> firstMoment;
    std::vector<Matrix> secondMoment;
    std::vector<std::int64_t> steps;  // of each parameter: those without a gradient do not count a step
  };

  /** Throws std::invalid_argument for a negative option or a β outside [0, 1). */
  explicit AdamW(std::vector<Parameter<Scalar, Place>*> parameters, const AdamWOptions& options = {})
      : Optimizer<Scalar, Place>(std::move(parameters)), m_options(options) {
    internal::checkAdamOptions("AdamW", options);
    m_state.firstMoment = internal::zerosLike(this->parameters());
    m_state.secondMoment = internal::zerosLike(this->parameters());
    m_state.steps.assign(this->parameters().size(), 0);
  }

  const State& state() const { return m_state; }
  /** Throws std::invalid_argument if \a state does not fit the parameters. */
  void setState(State state) {
    internal::checkState("AdamW: firstMoment", state.firstMoment, this->parameters());
    internal::checkState("AdamW: secondMoment", state.secondMoment, this->parameters());
    internal::checkSteps("AdamW", state.steps, this->parameters().size());
    m_state = std::move(state);
  }

  double learningRate() const override { return m_options.learningRate; }
  void setLearningRate(double learningRate) override { m_options.learningRate = learningRate; }

 private:
  void update(std::size_t i, Parameter<Scalar, Place>& p, Scalar gradScale) override {
    internal::AdamWRule<Place>::step(ratesOf(this->count(m_state.steps[i])), this->replay(), i, gradScale, p.grad(),
                                     p.mutableValue(), m_state.firstMoment[i], m_state.secondMoment[i]);
  }
  internal::StepRates countReplay(std::size_t i) override {
    const auto r = ratesOf(++m_state.steps[i]);
    return {static_cast<float>(r.step), static_cast<float>(r.keep), static_cast<float>(r.unbias2)};
  }
  internal::AdamWRates<Scalar> ratesOf(std::int64_t t) const { return {m_options, static_cast<double>(t)}; }

  AdamWOptions m_options;
  State m_state;
};

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPTIM_ADAMW_H
