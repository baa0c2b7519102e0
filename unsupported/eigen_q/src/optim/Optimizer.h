// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_OPTIM_OPTIMIZER_H
#define EIGENQ_OPTIM_OPTIMIZER_H

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <Eigen/Core>

#include <eigen_q/src/OptimizerKernels.h>

#include "../Parameter.h"

namespace EigenQ {
namespace ad {

namespace internal {
using EigenQ::internal::StepRates;

/** What steps leave to the device: the rates that replays of a graph have, whether a gradient is finite. On the host
 * there are no graphs, and a norm is known. */
template <typename Place>
struct OptimizerReplay {
  struct Condition {
    Condition(OptimizerReplay&, double) {}
  };
  static bool isKnownNotFinite(double norm) { return !std::isfinite(norm); }

  explicit OptimizerReplay(std::size_t) {}
  static bool isCapturing() { return false; }
  static std::vector<std::size_t> captured() { return {}; }
  template <typename Value>
  static void set(std::size_t, const StepRates&, const Value&) {}
  static void send() {}
};
}  // namespace internal

/** Updates parameters from their gradients. The parameters outlive the optimiser and keep their addresses. */
template <typename Scalar_, typename Place_ = Host>
class Optimizer {
 public:
  using Scalar = Scalar_;
  using Place = Place_;
  using Matrix = typename Place::template Matrix<Scalar>;

  /** \param parameters  none null, none twice: it would take two steps at once. Those without a gradient at step() are
   * left alone, as in PyTorch. */
  explicit Optimizer(std::vector<Parameter<Scalar, Place>*> parameters)
      : m_parameters(std::move(parameters)), m_replay(m_parameters.size()) {
    std::set<const Parameter<Scalar, Place>*> seen;
    for (std::size_t i = 0; i < m_parameters.size(); ++i) {
      if (!m_parameters[i]) throw std::invalid_argument("Optimizer: a parameter is null");
      if (!seen.insert(m_parameters[i]).second)
        throw std::invalid_argument("Optimizer: parameter " + std::to_string(i) + " is given twice");
    }
  }
  virtual ~Optimizer() = default;
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  /** One update. \param gradScale  multiplies every gradient: 1/count for losses that were summed. */
  void step(Scalar gradScale = Scalar(1)) {
    for (std::size_t i = 0; i < m_parameters.size(); ++i)
      if (m_parameters[i]->hasGrad()) update(i, *m_parameters[i], gradScale);
  }

  /** As step() where \a norm, which clipGradNorm() returned, is finite. Otherwise parameters and moments stay as they
   * are, as under torch's GradScaler, but the step counts: on a device nobody waits to know. Adam's bias corrections
   * are then those of a step more, which only the first few notice. */
  template <typename Norm>
  void stepIfFinite(const Norm& norm, Scalar gradScale = Scalar(1)) {
    if (Replay::isKnownNotFinite(norm)) {
      for (std::size_t i = 0; i < m_parameters.size(); ++i)
        if (m_parameters[i]->hasGrad()) (void)countReplay(i);
      return;
    }
    const typename Replay::Condition condition(m_replay, norm);
    step(gradScale);
  }

  /** On a device, before each replay of a graph in which step() was captured: counts a step and sends its rates, the
   * learning rate among them. The capture itself counts none. The graph keeps gradScale. */
  void prepareReplay() {
    for (const std::size_t i : m_replay.captured()) m_replay.set(i, countReplay(i), m_parameters[i]->mutableValue());
    m_replay.send();
  }

  void zeroGrad() {
    for (Parameter<Scalar, Place>* p : m_parameters) p->zeroGrad();
  }

  const std::vector<Parameter<Scalar, Place>*>& parameters() const { return m_parameters; }

  virtual double learningRate() const = 0;
  virtual void setLearningRate(double learningRate) = 0;

 protected:
  using Replay = internal::OptimizerReplay<Place>;
  Replay& replay() { return m_replay; }
  /** \returns the number of the step that update() makes, which \a steps counts unless a replay will. */
  std::int64_t count(std::int64_t& steps) const {
    const std::int64_t t = steps + 1;
    if (!m_replay.isCapturing()) steps = t;
    return t;
  }

 private:
  /** \param i  position of \a p in parameters(), and of its state. */
  virtual void update(std::size_t i, Parameter<Scalar, Place>& p, Scalar gradScale) = 0;
  /** \returns the rates of the next step of parameter \a i, and counts it. */
  virtual internal::StepRates countReplay(std::size_t i) = 0;

  std::vector<Parameter<Scalar, Place>*> m_parameters;
  Replay m_replay;
};

namespace internal {
/** Zeros in the shapes of the parameters. */
template <typename Scalar, typename Place>
auto zerosLike(const std::vector<Parameter<Scalar, Place>*>& parameters) {
  std::vector<typename Place::template Matrix<Scalar>> zeros;
  zeros.reserve(parameters.size());
  for (const Parameter<Scalar, Place>* p : parameters) {
    zeros.emplace_back(p->rows(), p->cols());
    zeros.back().setZero();
  }
  return zeros;
}

/** Throws std::invalid_argument where stored state does not fit the parameters. */
template <typename Matrix, typename Scalar, typename Place>
void checkState(const char* what, const std::vector<Matrix>& state,
                const std::vector<Parameter<Scalar, Place>*>& parameters) {
  if (state.size() != parameters.size())
    throw std::invalid_argument(std::string(what) + ": expected state of " + std::to_string(parameters.size()) +
                                " parameters, found " + std::to_string(state.size()));
  for (std::size_t i = 0; i < state.size(); ++i)
    if (state[i].rows() != parameters[i]->rows() || state[i].cols() != parameters[i]->cols())
      throw std::invalid_argument(std::string(what) + ": parameter " + std::to_string(i) + " '" +
                                  parameters[i]->name() + "': expected " + std::to_string(parameters[i]->rows()) + "x" +
                                  std::to_string(parameters[i]->cols()) + ", found " + std::to_string(state[i].rows()) +
                                  "x" + std::to_string(state[i].cols()));
}

/** Throws std::invalid_argument unless there is one count of steps a parameter. */
inline void checkSteps(const char* optimizer, const std::vector<std::int64_t>& steps, std::size_t parameters) {
  if (steps.size() != parameters)
    throw std::invalid_argument(std::string(optimizer) + ": steps: expected one per parameter, " +
                                std::to_string(parameters) + ", found " + std::to_string(steps.size()));
}

/** Throws std::invalid_argument, naming the option. */
inline void checkOption(bool valid, const char* where, const char* option, double found) {
  if (!valid)
    throw std::invalid_argument(std::string(where) + ": " + option + ": out of range: " + std::to_string(found));
}
}  // namespace internal

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPTIM_OPTIMIZER_H
