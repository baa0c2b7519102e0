// SPDX-License-Identifier: MPL-2.0
// Fine-tuning: updates, evaluation, early stop, and a state to resume from.
#ifndef EIGENQ_LLM_TRAINER_H
#define EIGENQ_LLM_TRAINER_H

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "Llama.h"
#include "TrainOptions.h"
#include "TrainerOptimizer.h"
#include "TrainerState.h"
#include "TrainingData.h"

namespace EigenQ {
namespace llm {

/** Mean cross-entropy of \a examples, in nats a target, without dropout, \a atOnce sequences at a time. */
template <typename Scalar, typename Place>
double meanLoss(Llama<Scalar, Place>& model, const std::vector<Example>& examples, Index atOnce = 8);

/** Trains what is trainable in a model, adapters or dense matrices. Runs repeat to the bit, and a run resumed from a
 * state has the losses and ends with the parameters that it would have had without a break, on the same machine.
 * \tparam Model  Llama<Scalar, Place> */
template <typename Model_>
class Trainer {
 public:
  using Model = Model_;
  using Scalar = typename Model::Scalar;
  using Place = typename Model::Place;
  using Parameter = typename Model::Parameter;

  /** \param model  outlives the trainer and keeps its address; it has adapters or other trainable parts by now.
   * \param heldOut  may be empty: then nothing is evaluated.
   * Throws std::invalid_argument, before anything is allocated, where options contradict each other or ask for batches
   * that \a train cannot fill, nothing is trainable or there are no examples. */
  Trainer(Model& model, std::vector<Example> train, std::vector<Example> heldOut, const TrainOptions& options);

  const TrainOptions& options() const { return m_options; }
  /** Updates so far. */
  Index step() const { return m_step; }
  /** Tokens that went through those updates of this process. */
  Index tokens() const { return m_tokens; }
  bool done() const { return m_stoppedEarly || m_step >= m_options.steps; }
  bool stoppedEarly() const { return m_stoppedEarly; }
  /** Losses up to now. Waits for a device. Throws std::runtime_error once a loss is not finite though its gradient is,
   * and once more updates in a row than options().mostSkipped were skipped. */
  const TrainHistory& history();

  /** One update, and an evaluation where one is due behind it or, for the first update, before it. When the last is
   * over and options().patience is not 0, the model gets the parameters of the least held-out loss.
   * An update whose gradient is not finite is skipped: it uses up its examples and its place in the schedule and counts
   * as a step of the optimiser, whose moments and parameters stay as they are. Throws as history() does. */
  void advance();

  /** Waits for a device. */
  TrainerState state();
  /** Goes on from \a state. Throws FormatError, naming \a where, if it belongs to another run: other settings, data,
   * base model, scalar of activations or parameters. */
  void setState(const TrainerState& state, const std::string& where = "TrainerState");

 private:
  using Tape = ad::Tape<Scalar, Place>;
  using Optimizer = internal::TrainerOptimizer<Parameter>;
  using Norm = decltype(clipGradNorm(std::declval<const std::vector<Parameter*>&>(), 1.0));

  Batch microBatch(Index k);
  void backward(const Batch& batch, Index i, double share);
  void update();
  void lookAtLosses();
  void evaluate();
  void keepBest();
  void restoreBest();
  TrainerState::Settings settings() const;

  static constexpr Index kStepsPerLook = std::is_same_v<Place, ad::Host> ? 1 : 20;  // a look waits for the device

  Model& m_model;
  std::vector<Example> m_train, m_heldOut;
  TrainOptions m_options;
  ad::Schedule m_schedule;
  Optimizer m_optimizer;
  ShuffledOrder m_order;
  std::uint64_t m_dataChecksum;
  Tape m_tape;
  typename Place::template Matrix<Scalar> m_losses;  // micro-batches × updates that nobody has looked at
  Eigen::MatrixXd m_shares;                          // of each in the mean of its update
  std::vector<Norm> m_norms;                         // of the gradients in those updates
  Index m_pending = 0;
  Index m_step = 0;
  Index m_tokens = 0;
  bool m_stoppedEarly = false;
  std::vector<Eigen::MatrixXf> m_best;
  TrainHistory m_history;
};

/** Where a run keeps its state, and how often it is written. */
struct RunFiles {
  std::string state;    // path; empty: nothing is written
  Index saveEvery = 0;  // updates; 0: at the end alone
  bool resume = false;  // from the state, where there is one
};

/** Goes on from the state in \a files where that is asked for and there is one. */
template <typename Model>
void resumeTraining(Trainer<Model>& trainer, const RunFiles& files) {
  if (files.resume && std::filesystem::exists(files.state))
    trainer.setState(readTrainerState(files.state), files.state);
}

/** Advances \a trainer to its end, from the state in \a files unless it has begun, and calls \a observe(trainer) after
 * each update. A process that is killed at any moment loses the updates since the last save, and no file. */
template <typename Model, typename Observe>
void runTraining(Trainer<Model>& trainer, const RunFiles& files, const Observe& observe) {
  if (trainer.step() == 0) resumeTraining(trainer, files);
  while (!trainer.done()) {
    trainer.advance();
    observe(trainer);
    const bool due = trainer.done() || (files.saveEvery > 0 && trainer.step() % files.saveEvery == 0);
    if (due && !files.state.empty()) writeTrainerState(trainer.state(), files.state);
  }
}

}  // namespace llm
}  // namespace EigenQ

#include "TrainerImpl.h"

#endif  // EIGENQ_LLM_TRAINER_H
