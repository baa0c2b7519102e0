// SPDX-License-Identifier: MPL-2.0
// What a training run needs to go on as if it had never stopped.
#ifndef EIGENQ_LLM_TRAINER_STATE_H
#define EIGENQ_LLM_TRAINER_STATE_H

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "../../Autodiff"

namespace EigenQ {
namespace io {
class SafetensorsFile;
}

namespace llm {

/** The course of a run. Losses in nats a target. */
struct TrainHistory {
  struct HeldOut {
    Index step;  // updates before it was measured
    double loss;
  };
  std::vector<double> learningRate;  // of updates 1, 2, …
  std::vector<double> trainLoss;     // of each update's batch, before it
  std::vector<HeldOut> heldOut;
  std::vector<Index> skipped;  // of those updates, in order: not made, as their gradient was not finite
};

/** On the host, between two updates. Data order and random numbers are functions of seed and step. */
struct TrainerState {
  /** What the run was started with, as names and values: losses depend on all of it. */
  using Settings = std::vector<std::pair<std::string, std::string>>;

  struct Parameter {
    std::string name;
    Eigen::MatrixXf value;
    Eigen::MatrixXf best;  // where the held-out loss was least; 0×0 while nobody asked
    ad::Moment8bit firstMoment, secondMoment;
    std::int64_t steps = 0;
  };

  Index step = 0;
  bool stoppedEarly = false;
  std::vector<Parameter> parameters;
  TrainHistory history;
  Settings settings;
};

/** One safetensors file, which appears whole in place of the one before it, or not at all; leftovers of writers that
 * were killed are removed. Throws std::system_error where it cannot be written. */
void writeTrainerState(const TrainerState& state, const std::string& path);
/** Throws FormatError, naming file and tensor, where it is no such file. */
TrainerState readTrainerState(const std::string& path);
TrainerState readTrainerState(const io::SafetensorsFile& file);

/** Throws FormatError, naming the first setting in which \a found, of the file \a path, differs from \a expected. Files
 * of versions that did not look at the base model, the scalar of activations or config.json may end without theirs. */
void requireSameSettings(const TrainerState::Settings& expected, const TrainerState::Settings& found,
                         const std::string& path);

}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_LLM_TRAINER_STATE_H
