// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_OPTIM_ADAMW_8BIT_H
#define EIGENQ_OPTIM_ADAMW_8BIT_H

#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "AdamW.h"
#include "Moment8bit.h"

namespace EigenQ {
namespace ad {

/** AdamW with both moments in 8 bits: a quarter of the float state. In step t = 1, 2, … of each parameter, with the
 * moments decoded to float:
 * m ← β₁m + (1 - β₁)g,  v ← β₂v + (1 - β₂)g²,
 * w ← (w - lr·√(1 - β₂ᵗ)/(1 - β₁ᵗ) · m / (√v + eps·√(1 - β₂ᵗ))) · (1 - lr·decay),
 * then m and v are encoded anew. As AdamW, but for the order of update and decay, and the error of the codes.
 *
 * An element whose gradient, scaled, is NaN or infinite, or so large that v overflows, is left alone and its moments
 * restart at zero: one bad value does not spoil its block. Moments below FLT_MIN count as zero. Nothing is allocated
 * by step(), and its result does not depend on the number of threads.
 *
 * Codes and absmax are those of bitsandbytes' CUDA optimisers, bit for bit; parameters may differ from theirs by the
 * error of CUDA's approximate division, square root and power.
 * Source: Dettmers et al., 8-bit Optimizers via Block-wise Quantization, arXiv:2110.02861; bitsandbytes AdamW8bit. */
template <typename Place>
class AdamW8bitOn : public Optimizer<float, Place> {
 public:
  /** What a resumed run needs beside the parameters, in their order; where they are. */
  struct State {
    std::vector<Moment8bitOn<Place>> firstMoment;   // codes into dynamicMap(true)
    std::vector<Moment8bitOn<Place>> secondMoment;  // codes into dynamicMap(false)
    std::vector<std::int64_t> steps;                // of each parameter: those without a gradient do not count a step
  };

  /** \param min8bitSize  parameters of fewer elements keep float moments.
   * Throws std::invalid_argument for a negative option or a β outside [0, 1). */
  explicit AdamW8bitOn(std::vector<Parameter<float, Place>*> parameters, const AdamWOptions& options = {},
                       Eigen::Index min8bitSize = kMin8bitSize)
      : AdamW8bitOn("AdamW8bit", std::move(parameters), options, min8bitSize) {}

  const State& state() const { return m_state; }
  /** Throws std::invalid_argument if \a state does not fit the parameters, or holds what is not finite. */
  void setState(State state) {
    internal::checkMoments("AdamW8bit: firstMoment", state.firstMoment, m_state.firstMoment, this->parameters());
    internal::checkMoments("AdamW8bit: secondMoment", state.secondMoment, m_state.secondMoment, this->parameters());
    internal::checkSteps("AdamW8bit", state.steps, this->parameters().size());
    m_state = std::move(state);
  }

  /** Bytes of the moments, statistics included. */
  Eigen::Index stateBytes() const {
    return internal::sizeInBytes(m_state.firstMoment) + internal::sizeInBytes(m_state.secondMoment);
  }

  double learningRate() const override { return m_options.learningRate; }
  void setLearningRate(double learningRate) override { m_options.learningRate = learningRate; }

 protected:
  AdamW8bitOn(const char* name, std::vector<Parameter<float, Place>*> parameters, const AdamWOptions& options,
              Eigen::Index min8bitSize)
      : Optimizer<float, Place>(std::move(parameters)), m_options(options) {
    internal::checkAdamOptions(name, options);
    m_state.firstMoment = internal::zeroMoments(this->parameters(), min8bitSize);
    m_state.secondMoment = internal::zeroMoments(this->parameters(), min8bitSize);
    m_state.steps.assign(this->parameters().size(), 0);
  }

 private:
  void update(std::size_t i, Parameter<float, Place>& p, float gradScale) override {
    const internal::StepRates r = ratesOf(this->count(m_state.steps[i]));
    EigenQ::internal::AdamStep s;
    s.beta1 = static_cast<float>(m_options.beta1);
    s.beta2 = static_cast<float>(m_options.beta2);
    s.rate = r.rate;
    s.eps = r.correction;
    s.keep = r.keep;
    s.gradScale = gradScale;
    s.size = p.size();
    s.parameter = internal::Rules8bit<Place>::writing(p.mutableValue());
    s.gradient = internal::Rules8bit<Place>::reading(p.grad());
    s.m = m_state.firstMoment[i].view();
    s.v = m_state.secondMoment[i].view();
    internal::Rules8bit<Place>::run(s, this->replay(), i);
  }

  internal::StepRates countReplay(std::size_t i) override { return ratesOf(++m_state.steps[i]); }

  /** In float, step by step, as the original computes them: their roundings are part of its parameters. */
  internal::StepRates ratesOf(std::int64_t step) const {
    const auto t = static_cast<double>(step);
    const auto rate = static_cast<float>(m_options.learningRate), decay = static_cast<float>(m_options.weightDecay);
    const auto beta1 = static_cast<float>(m_options.beta1), beta2 = static_cast<float>(m_options.beta2);
    const float unbias1 = 1 - static_cast<float>(std::pow(static_cast<double>(beta1), t));
    const float unbias2 = std::sqrt(1 - static_cast<float>(std::pow(static_cast<double>(beta2), t)));
    return {rate * unbias2 / unbias1, std::fma(-rate, decay, 1.0f), static_cast<float>(m_options.eps) * unbias2};
  }

  AdamWOptions m_options;
  State m_state;
};

using AdamW8bit = AdamW8bitOn<Host>;

struct AdamOptions {
  double learningRate = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weightDecay = 0;
};

/** AdamW8bit with another default: no decay. What decay there is stays decoupled, as in bitsandbytes' Adam8bit. */
template <typename Place>
class Adam8bitOn : public AdamW8bitOn<Place> {
 public:
  explicit Adam8bitOn(std::vector<Parameter<float, Place>*> parameters, const AdamOptions& o = {},
                      Eigen::Index min8bitSize = kMin8bitSize)
      : AdamW8bitOn<Place>("Adam8bit", std::move(parameters), {o.learningRate, o.beta1, o.beta2, o.eps, o.weightDecay},
                           min8bitSize) {}
};
using Adam8bit = Adam8bitOn<Host>;

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPTIM_ADAMW_8BIT_H
