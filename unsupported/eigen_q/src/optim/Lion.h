// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_OPTIM_LION_H
#define EIGENQ_OPTIM_LION_H

#include <utility>
#include <vector>

#include "Optimizer.h"

namespace EigenQ {
namespace ad {

struct LionOptions {
  double learningRate = 1e-4;
  double beta1 = 0.9;      // weighs the momentum in the step
  double beta2 = 0.99;     // weighs the momentum in its update
  double weightDecay = 0;  // decoupled
};

namespace internal {
/** A β that float rounds to 1 would never learn. */
inline void checkLionOptions(const char* name, const LionOptions& o) {
  checkOption(o.learningRate >= 0, name, "learningRate", o.learningRate);
  checkOption(o.beta1 >= 0 && static_cast<float>(o.beta1) < 1, name, "beta1", o.beta1);
  checkOption(o.beta2 >= 0 && static_cast<float>(o.beta2) < 1, name, "beta2", o.beta2);
  checkOption(o.weightDecay >= 0, name, "weightDecay", o.weightDecay);
}

/** As the device's step takes them. */
inline StepRates lionRates(const LionOptions& o) {
  return {static_cast<float>(o.learningRate), static_cast<float>(1 - o.learningRate * o.weightDecay), 0};
}

/** One parameter's step. */
template <typename Place>
struct LionRule;
template <>
struct LionRule<Host> {
  template <typename Scalar>
  static void step(const LionOptions& o, OptimizerReplay<Host>&, std::size_t, Scalar gradScale,
                   const Host::Matrix<Scalar>& gradient, Host::Map<Scalar> value, Host::Matrix<Scalar>& momentum) {
    const auto beta1 = static_cast<Scalar>(o.beta1), beta2 = static_cast<Scalar>(o.beta2);
    const auto rate = static_cast<Scalar>(o.learningRate);
    const auto keep = static_cast<Scalar>(1 - o.learningRate * o.weightDecay);
    auto w = value.array();
    auto m = momentum.array();
    const auto g = gradScale * gradient.array();
    w = keep * w - rate * (beta1 * m + (1 - beta1) * g).sign();
    m = beta2 * m + (1 - beta2) * g;
  }
};
}  // namespace internal

/** Steps of one size in every element, in the direction of an average:
 * w ← (1 - lr·decay)·w - lr·sign(β₁m + (1 - β₁)g),  m ← β₂m + (1 - β₂)g;  sign(0) = 0.
 * Source: Chen et al., Symbolic Discovery of Optimization Algorithms, arXiv:2302.06675. */
template <typename Scalar_, typename Place_ = Host>
class Lion : public Optimizer<Scalar_, Place_> {
 public:
  using Scalar = Scalar_;
  using Place = Place_;
  using typename Optimizer<Scalar, Place>::Matrix;

  /** What a resumed run needs beside the parameters, in their order; where they are. */
  struct State {
    std::vector<Matrix> momentum;
  };

  /** Throws std::invalid_argument for a negative option or a β outside [0, 1). */
  explicit Lion(std::vector<Parameter<Scalar, Place>*> parameters, const LionOptions& options = {})
      : Optimizer<Scalar, Place>(std::move(parameters)), m_options(options) {
    internal::checkLionOptions("Lion", options);
    m_state.momentum = internal::zerosLike(this->parameters());
  }

  const State& state() const { return m_state; }
  /** Throws std::invalid_argument if \a state does not fit the parameters. */
  void setState(State state) {
    internal::checkState("Lion: momentum", state.momentum, this->parameters());
    m_state = std::move(state);
  }

  double learningRate() const override { return m_options.learningRate; }
  void setLearningRate(double learningRate) override { m_options.learningRate = learningRate; }

 private:
  void update(std::size_t i, Parameter<Scalar, Place>& p, Scalar gradScale) override {
    internal::LionRule<Place>::template step<Scalar>(m_options, this->replay(), i, gradScale, p.grad(),
                                                     p.mutableValue(), m_state.momentum[i]);
  }
  internal::StepRates countReplay(std::size_t) override { return internal::lionRates(m_options); }

  LionOptions m_options;
  State m_state;
};

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPTIM_LION_H
