// SPDX-License-Identifier: MPL-2.0
// Sequences side by side.
#ifndef EIGENQ_LLM_BATCH_H
#define EIGENQ_LLM_BATCH_H

#include <algorithm>
#include <vector>

#include <Eigen/Core>

#include <eigen_q/Core>

namespace EigenQ {
namespace llm {

/** The target of a token whose successor is not to be predicted. */
constexpr int kIgnoredTarget = -100;

/** Packed sequences, one token a column, without padding. */
struct Batch {
  Eigen::VectorXi tokens;
  Eigen::VectorXi targets;    // the token to predict at each, or kIgnoredTarget; empty where nothing is
  Eigen::VectorXi positions;  // of each token in its own sequence
  Eigen::VectorXi offsets;    // sequence s is the columns offsets(s) to offsets(s + 1) - 1

  Index size() const { return tokens.size(); }
  Index sequences() const { return offsets.size() - 1; }
};

/** \a sequences, each from position 0 on, without targets. */
inline Batch pack(const std::vector<std::vector<int>>& sequences) {
  const auto count = static_cast<Index>(sequences.size());
  Batch batch;
  batch.offsets = Eigen::VectorXi::Zero(count + 1);
  for (Index s = 0; s < count; ++s)
    batch.offsets(s + 1) = batch.offsets(s) + static_cast<int>(sequences[static_cast<std::size_t>(s)].size());
  batch.tokens.resize(batch.offsets(count));
  batch.positions.resize(batch.offsets(count));
  for (Index s = 0; s < count; ++s) {
    const std::vector<int>& ids = sequences[static_cast<std::size_t>(s)];
    const auto n = static_cast<Index>(ids.size());
    batch.tokens.segment(batch.offsets(s), n) = Eigen::Map<const Eigen::VectorXi>(ids.data(), n);
    for (Index t = 0; t < n; ++t) batch.positions(batch.offsets(s) + t) = static_cast<int>(t);
  }
  return batch;
}

/** pack(), each token predicting the next of its sequence; the last predicts none. */
inline Batch packForTraining(const std::vector<std::vector<int>>& sequences) {
  Batch batch = pack(sequences);
  batch.targets = Eigen::VectorXi::Constant(batch.size(), kIgnoredTarget);
  for (Index s = 0; s < batch.sequences(); ++s) {
    const Index n = std::max<Index>(batch.offsets(s + 1) - batch.offsets(s) - 1, 0);
    batch.targets.segment(batch.offsets(s), n) = batch.tokens.segment(batch.offsets(s) + 1, n);
  }
  return batch;
}

}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_LLM_BATCH_H
