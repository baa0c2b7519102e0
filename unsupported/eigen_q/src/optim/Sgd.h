// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_OPTIM_SGD_H
#define EIGENQ_OPTIM_SGD_H

#include <cstdint>
#include <utility>
#include <vector>

#include "Optimizer.h"

namespace EigenQ {
namespace ad {

struct SgdOptions {
  double learningRate = 1e-3;
  double momentum = 0;
  double weightDecay = 0;  // added to the gradient
};

namespace internal {
/** One parameter's step. \a momentum is null where it is 0. */
template <typename Place>
struct SgdRule;
template <>
struct SgdRule<Host> {
  template <typename Scalar>
  static void step(const SgdOptions& o, OptimizerReplay<Host>&, std::size_t, Scalar gradScale,
                   const Host::Matrix<Scalar>& gradient, Host::Map<Scalar> w, Host::Matrix<Scalar>* momentum) {
    const auto rate = static_cast<Scalar>(o.learningRate), decay = static_cast<Scalar>(o.weightDecay);
    const auto g = gradScale * gradient + decay * w;
    if (!momentum) {
      w -= rate * g;
      return;
    }
    Host::Matrix<Scalar>& b = *momentum;
    b = static_cast<Scalar>(o.momentum) * b + g;
    w -= rate * b;
  }
};
}  // namespace internal

/** Stochastic gradient descent, as torch.optim.SGD without dampening and Nesterov:
 * g ← gradScale·∇ + weightDecay·w,  b ← momentum·b + g (b ← g at first),  w ← w - learningRate·b. */
template <typename Scalar_, typename Place_ = Host>
class Sgd : public Optimizer<Scalar_, Place_> {
 public:
  using Scalar = Scalar_;
  using Place = Place_;
  using typename Optimizer<Scalar, Place>::Matrix;

  /** What a resumed run needs beside the parameters, in their order; where they are. */
  struct State {
    std::vector<Matrix> momentum;  // empty without momentum
  };

  /** Throws std::invalid_argument for a negative option. */
  explicit Sgd(std::vector<Parameter<Scalar, Place>*> parameters, const SgdOptions& options = {})
      : Optimizer<Scalar, Place>(std::move(parameters)), m_options(options) {
    internal::checkOption(options.learningRate >= 0, "Sgd", "learningRate", options.learningRate);
    internal::checkOption(options.momentum >= 0, "Sgd", "momentum", options.momentum);
    internal::checkOption(options.weightDecay >= 0, "Sgd", "weightDecay", options.weightDecay);
    // Zeros serve for the first step too: momentum·0 + g = g.
    if (options.momentum != 0) m_state.momentum = internal::zerosLike(this->parameters());
  }

  const State& state() const { return m_state; }
  /** Throws std::invalid_argument if \a state does not fit the parameters. */
  void setState(State state) {
    if (m_options.momentum != 0) internal::checkState("Sgd: momentum", state.momentum, this->parameters());
    m_state = std::move(state);
  }

  double learningRate() const override { return m_options.learningRate; }
  void setLearningRate(double learningRate) override { m_options.learningRate = learningRate; }

 private:
  void update(std::size_t i, Parameter<Scalar, Place>& p, Scalar gradScale) override {
    Matrix* const momentum = m_options.momentum == 0 ? nullptr : &m_state.momentum[i];
    internal::SgdRule<Place>::template step<Scalar>(m_options, this->replay(), i, gradScale, p.grad(), p.mutableValue(),
                                                    momentum);
  }
  internal::StepRates countReplay(std::size_t) override { return {static_cast<float>(m_options.learningRate), 1, 0}; }

  SgdOptions m_options;
  State m_state;
};

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPTIM_SGD_H
