// SPDX-License-Identifier: MPL-2.0
// The course of a run as files and lines show it; the program eigenq has them too.
#ifndef EIGENQ_FINETUNE_PRETRAINED_HISTORY_H
#define EIGENQ_FINETUNE_PRETRAINED_HISTORY_H

#include <cstdio>
#include <limits>
#include <string>
#include <utility>

#include <unsupported/eigen_q/Llm>

#include "../Curve.h"

namespace finetune {

/** A skipped update has no learning rate. */
inline Phase phaseOf(const EigenQ::llm::TrainHistory& history, std::string name) {
  Phase phase{std::move(name), "fine-tuning", history.learningRate, history.trainLoss, {}};
  for (const EigenQ::Index step : history.skipped)
    phase.learningRate[static_cast<std::size_t>(step - 1)] = std::numeric_limits<double>::quiet_NaN();
  for (const auto& [step, loss] : history.heldOut) phase.heldOut[static_cast<long>(step)] = loss;
  return phase;
}

/** Says how many updates were skipped, if any was. */
inline void printSkipped(const EigenQ::llm::TrainHistory& history) {
  if (history.skipped.empty()) return;
  std::printf("skipped     %zu of %zu updates, whose gradient was not finite; the first is %td\n",
              history.skipped.size(), history.trainLoss.size(), history.skipped.front());
}

}  // namespace finetune

#endif  // EIGENQ_FINETUNE_PRETRAINED_HISTORY_H
