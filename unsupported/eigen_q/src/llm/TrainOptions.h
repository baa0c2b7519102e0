// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_LLM_TRAIN_OPTIONS_H
#define EIGENQ_LLM_TRAIN_OPTIONS_H

#include <cstdint>

#include "../../Autodiff"
#include "TrainerState.h"

namespace EigenQ {
namespace llm {

/** How a model learns. An update is a step of the optimiser, after accumulation micro-batches of microBatch sequences,
 * whose gradients are divided by the targets of all of them. */
struct TrainOptions {
  enum class Decay : std::uint8_t { kConstant, kLinear, kCosine };

  static constexpr Index kMostSteps = 1'000'000'000;  // what happened in each of them is kept

  Index steps = 1000;      // updates
  Index microBatch = 4;    // sequences that are computed at once: at most as many as there are, or 4
  Index accumulation = 1;  // micro-batches in an update, at most mostAccumulation()
  bool shuffle = true;     // otherwise in the order of the data
  std::uint64_t seed = 1;  // of the order and of dropout

  ad::AdamWOptions adamw = {2e-4, 0.9, 0.999, 1e-8, 0.0};  // the learning rate is the peak of the schedule
  bool optimizer8bit = false;                              // AdamW8bit: moments of large parameters in 8 bits
  Decay decay = Decay::kCosine;
  Index warmup = 0;               // updates in which the learning rate rises
  double minLearningRate = 0;     // where the decay ends, after all steps
  double clip = 1;                // largest norm of the gradient; 0: any
  double lossScale = 1;           // half on a device underflows without one of 1024 or so
  Index mostSkipped = 10;         // updates in a row that may be skipped, their gradient not finite; 0: none
  bool checkpointLayers = false;  // less memory for one forward pass more, with the same gradients

  Index evaluateEvery = 0;  // updates between two evaluations; 0: before the first and after the last alone
  Index patience = 0;       // evaluations without a new best before the run stops, at the best; 0: it does not

  /** Throws std::invalid_argument, naming the option. */
  void validate() const;
  ad::Schedule schedule() const;
  /** Names and values of all options that losses depend on. */
  TrainerState::Settings settings() const;
};

/** Micro-batches that \a examples, one or more, fill: more in an update would only repeat some. */
Index mostAccumulation(Index examples, Index microBatch);

}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_LLM_TRAIN_OPTIONS_H
