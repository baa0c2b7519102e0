// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_OPTIM_LION_8BIT_H
#define EIGENQ_OPTIM_LION_8BIT_H

#include <cmath>
#include <utility>
#include <vector>

#include "Lion.h"
#include "Moment8bit.h"

namespace EigenQ {
namespace ad {

/** Lion with its momentum in 8 bits: one byte of state a weight. Otherwise as AdamW8bit: the momentum is decoded,
 * updated and encoded anew; an element whose gradient is not finite is left alone and its momentum restarts at zero.
 * Source: Dettmers et al., 8-bit Optimizers via Block-wise Quantization, arXiv:2110.02861; bitsandbytes Lion8bit. */
template <typename Place>
class Lion8bitOn : public Optimizer<float, Place> {
 public:
  /** What a resumed run needs beside the parameters, in their order; where they are. */
  struct State {
    std::vector<Moment8bitOn<Place>> momentum;  // codes into dynamicMap(true)
  };

  /** \param min8bitSize  parameters of fewer elements keep a float momentum.
   * Throws std::invalid_argument for a negative option or a β outside [0, 1). */
  explicit Lion8bitOn(std::vector<Parameter<float, Place>*> parameters, const LionOptions& options = {},
                      Eigen::Index min8bitSize = kMin8bitSize)
      : Optimizer<float, Place>(std::move(parameters)), m_options(options) {
    internal::checkLionOptions("Lion8bit", options);
    m_state.momentum = internal::zeroMoments(this->parameters(), min8bitSize);
  }

  const State& state() const { return m_state; }
  /** Throws std::invalid_argument if \a state does not fit the parameters, or holds what is not finite. */
  void setState(State state) {
    internal::checkMoments("Lion8bit: momentum", state.momentum, m_state.momentum, this->parameters());
    m_state = std::move(state);
  }

  /** Bytes of the momentum, statistics included. */
  Eigen::Index stateBytes() const { return internal::sizeInBytes(m_state.momentum); }

  double learningRate() const override { return m_options.learningRate; }
  void setLearningRate(double learningRate) override { m_options.learningRate = learningRate; }

 private:
  void update(std::size_t i, Parameter<float, Place>& p, float gradScale) override {
    EigenQ::internal::LionStep s;
    s.beta1 = static_cast<float>(m_options.beta1);
    s.beta2 = static_cast<float>(m_options.beta2);
    const internal::StepRates r = rates();
    s.rate = r.rate;
    s.keep = r.keep;
    s.gradScale = gradScale;
    s.size = p.size();
    s.parameter = internal::Rules8bit<Place>::writing(p.mutableValue());
    s.gradient = internal::Rules8bit<Place>::reading(p.grad());
    s.m = m_state.momentum[i].view();
    internal::Rules8bit<Place>::run(s, this->replay(), i);
  }
  internal::StepRates countReplay(std::size_t) override { return rates(); }
  internal::StepRates rates() const {
    const auto rate = static_cast<float>(m_options.learningRate);
    return {rate, std::fma(-rate, static_cast<float>(m_options.weightDecay), 1.0f), 0};
  }

  LionOptions m_options;
  State m_state;
};

using Lion8bit = Lion8bitOn<Host>;

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPTIM_LION_8BIT_H
