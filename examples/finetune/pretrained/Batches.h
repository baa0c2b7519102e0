// SPDX-License-Identifier: MPL-2.0
// How many sequences go into a batch, and how many batches into an update; the program eigenq has them too.
#ifndef EIGENQ_FINETUNE_PRETRAINED_BATCHES_H
#define EIGENQ_FINETUNE_PRETRAINED_BATCHES_H

#include <algorithm>
#include <stdexcept>
#include <string>

#include <unsupported/eigen_q/Llm>

namespace finetune {

/** Where no batch was asked for, microBatch = 0, it becomes \a usual or all \a sequences if they are fewer. Throws
 * std::runtime_error, naming --batch or \a accumulation, where they cannot fill what was asked for. */
inline void fitBatches(EigenQ::llm::TrainOptions& train, std::size_t sequences, const char* accumulation,
                       EigenQ::Index usual) {
  const auto requireAtMost = [](const char* option, EigenQ::Index most, const std::string& what, EigenQ::Index found) {
    if (found > most)
      throw std::runtime_error(std::string(option) + ": expected at most " + std::to_string(most) + ", " + what +
                               ", found " + std::to_string(found));
  };
  const auto count = static_cast<EigenQ::Index>(sequences);
  if (train.microBatch == 0) train.microBatch = std::min(usual, count);
  requireAtMost("--batch", count, "the sequences to learn", train.microBatch);
  requireAtMost(accumulation, EigenQ::llm::mostAccumulation(count, train.microBatch),
                "the batches that " + std::to_string(count) + " sequences fill", train.accumulation);
}

}  // namespace finetune

#endif  // EIGENQ_FINETUNE_PRETRAINED_BATCHES_H
