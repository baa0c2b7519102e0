// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_LLM_TRAINER_OPTIMIZER_H
#define EIGENQ_LLM_TRAINER_OPTIMIZER_H

#include <cstddef>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "TrainOptions.h"
#include "TrainerState.h"

namespace EigenQ {
namespace llm {
namespace internal {

/** A moment of the host where parameters are. */
template <typename Place>
ad::Moment8bitOn<Place> placed(const ad::Moment8bit& moment) {
  if constexpr (std::is_same_v<Place, ad::Host>)
    return moment;
  else
    return ad::Moment8bitOn<Place>::fromHost(moment);
}

/** AdamW or AdamW8bit, as the options say, with a state that is the same struct for both, on the host. */
template <typename Parameter_>
class TrainerOptimizer {
 public:
  using Parameter = Parameter_;
  using Place = typename Parameter::Place;
  using Scalar = typename Parameter::Scalar;
  using Parameters = std::vector<Parameter*>;
  static_assert(std::is_same_v<Scalar, float>, "EigenQ::llm: a trainer's parameters are float");

  TrainerOptimizer(Parameters parameters, const TrainOptions& options) {
    if (options.optimizer8bit)
      m_adamw8bit.emplace(std::move(parameters), options.adamw);
    else
      m_adamw.emplace(std::move(parameters), options.adamw);
  }

  ad::Optimizer<float, Place>& operator*() {
    if (m_adamw) return *m_adamw;
    return *m_adamw8bit;
  }
  ad::Optimizer<float, Place>* operator->() { return &**this; }

  /** \param state  one entry a parameter. From a device it waits for the current context. */
  void store(std::vector<TrainerState::Parameter>& state) const {
    for (std::size_t i = 0; i < state.size(); ++i) {
      if (m_adamw) {
        state[i].firstMoment.values = flat(m_adamw->state().firstMoment[i]);
        state[i].secondMoment.values = flat(m_adamw->state().secondMoment[i]);
        state[i].steps = m_adamw->state().steps[i];
      } else {
        state[i].firstMoment = m_adamw8bit->state().firstMoment[i].toHost();
        state[i].secondMoment = m_adamw8bit->state().secondMoment[i].toHost();
        state[i].steps = m_adamw8bit->state().steps[i];
      }
    }
  }

  /** Throws std::invalid_argument where the moments do not fit the parameters. */
  void load(const std::vector<TrainerState::Parameter>& state) {
    if (m_adamw)
      m_adamw->setState(stateOf<typename ad::AdamW<float, Place>::State>(
          state, [](const TrainerState::Parameter& p, const ad::Moment8bit& moment) {
            ad::internal::checkMomentSize(p.name + ": ", "values", moment.values.size(), p.value.size());
            const Eigen::Map<const Eigen::MatrixXf> values(moment.values.data(), p.value.rows(), p.value.cols());
            return Place::template fromHost<float>(values);
          }));
    else
      m_adamw8bit->setState(stateOf<typename ad::AdamW8bitOn<Place>::State>(
          state, [](const TrainerState::Parameter&, const ad::Moment8bit& moment) { return placed<Place>(moment); }));
  }

 private:
  template <typename Matrix>
  static Eigen::VectorXf flat(const Matrix& m) {
    return Place::toHost(m).reshaped();
  }

  template <typename State, typename Make>
  static State stateOf(const std::vector<TrainerState::Parameter>& parameters, const Make& make) {
    State state;
    for (const TrainerState::Parameter& p : parameters) {
      state.firstMoment.push_back(make(p, p.firstMoment));
      state.secondMoment.push_back(make(p, p.secondMoment));
      state.steps.push_back(p.steps);
    }
    return state;
  }

  std::optional<ad::AdamW<float, Place>> m_adamw;
  std::optional<ad::AdamW8bitOn<Place>> m_adamw8bit;
};

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_LLM_TRAINER_OPTIMIZER_H
