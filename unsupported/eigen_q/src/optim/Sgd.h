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

/** Stochastic gradient descent, as torch.optim.SGD without dampening and Nesterov:
 * g ← gradScale·∇ + weightDecay·w,  b ← momentum·b + g (b ← g at first),  w ← w - learningRate·b. */
template <typename Scalar_>
class Sgd : public Optimizer<Scalar_> {
 public:
  using Scalar = Scalar_;
  using typename Optimizer<Scalar>::Matrix;

  /** What a resumed run needs beside the parameters, in their order. */
  struct State {
    std::vector<Matrix> momentum;  // empty without momentum
  };

  /** Throws std::invalid_argument for a negative option. */
  explicit Sgd(std::vector<Parameter<Scalar>*> parameters, const SgdOptions& options = {})
      : Optimizer<Scalar>(std::move(parameters)), m_options(options) {
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
  void update(std::size_t i, Parameter<Scalar>& p, Scalar gradScale) override {
    const auto rate = static_cast<Scalar>(m_options.learningRate);
    const auto decay = static_cast<Scalar>(m_options.weightDecay);
    auto w = p.mutableValue();
    const auto g = gradScale * p.grad() + decay * w;
    if (m_options.momentum == 0) {
      w -= rate * g;
      return;
    }
    Matrix& b = m_state.momentum[i];
    b = static_cast<Scalar>(m_options.momentum) * b + g;
    w -= rate * b;
  }

  SgdOptions m_options;
  State m_state;
};

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPTIM_SGD_H
