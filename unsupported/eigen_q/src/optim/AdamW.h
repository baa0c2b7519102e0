// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_OPTIM_ADAMW_H
#define EIGENQ_OPTIM_ADAMW_H

#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

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
}  // namespace internal

/** Adam with decoupled weight decay, as torch.optim.AdamW, in step t = 1, 2, … of each parameter:
 * w ← (1 - lr·decay)·w,  m ← β₁m + (1 - β₁)g,  v ← β₂v + (1 - β₂)g²,
 * w ← w - lr/(1 - β₁ᵗ) · m / (√v/√(1 - β₂ᵗ) + eps).
 * Source: Loshchilov and Hutter, arXiv:1711.05101. */
template <typename Scalar_>
class AdamW : public Optimizer<Scalar_> {
 public:
  using Scalar = Scalar_;
  using typename Optimizer<Scalar>::Matrix;

  /** What a resumed run needs beside the parameters, in their order. */
  struct State {
    std::vector<Matrix> firstMoment;
    std::vector<Matrix> secondMoment;
    std::vector<std::int64_t> steps;  // of each parameter: those without a gradient do not count a step
  };

  /** Throws std::invalid_argument for a negative option or a β outside [0, 1). */
  explicit AdamW(std::vector<Parameter<Scalar>*> parameters, const AdamWOptions& options = {})
      : Optimizer<Scalar>(std::move(parameters)), m_options(options) {
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
  void update(std::size_t i, Parameter<Scalar>& p, Scalar gradScale) override {
    const AdamWOptions& o = m_options;
    const auto t = static_cast<double>(++m_state.steps[i]);
    const auto beta1 = static_cast<Scalar>(o.beta1), beta2 = static_cast<Scalar>(o.beta2);
    const auto step = static_cast<Scalar>(o.learningRate / (1 - std::pow(o.beta1, t)));
    const auto unbias2 = static_cast<Scalar>(1 / std::sqrt(1 - std::pow(o.beta2, t)));
    const auto keep = static_cast<Scalar>(1 - o.learningRate * o.weightDecay);

    auto w = p.mutableValue().array();
    auto m = m_state.firstMoment[i].array();
    auto v = m_state.secondMoment[i].array();
    const auto g = gradScale * p.grad().array();
    m = beta1 * m + (1 - beta1) * g;
    v = beta2 * v + (1 - beta2) * g.square();
    w = keep * w - step * m / (v.sqrt() * unbias2 + static_cast<Scalar>(o.eps));
  }

  AdamWOptions m_options;
  State m_state;
};

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPTIM_ADAMW_H
