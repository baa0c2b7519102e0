// SPDX-License-Identifier: MPL-2.0
// Windows of a text as columns of tokens.
#ifndef EIGENQ_FINETUNE_BATCH_H
#define EIGENQ_FINETUNE_BATCH_H

#include <random>
#include <string>
#include <vector>

#include <Eigen/Core>

#include "ModelOptions.h"

namespace finetune {

/** Sequences side by side, one token a column. */
struct Batch {
  Eigen::VectorXi tokens;     // bytes, 0 to 255
  Eigen::VectorXi targets;    // the byte after each; empty where nothing is to be predicted
  Eigen::VectorXi positions;  // of each token in its own sequence
  Eigen::VectorXi offsets;    // sequence s is the columns offsets(s) to offsets(s + 1) - 1
};

inline int byteAt(const std::string& text, Index i) {
  return static_cast<unsigned char>(text[static_cast<std::size_t>(i)]);
}

/** The windows of \a length tokens that begin at \a starts, each with one more byte behind it. */
inline Batch windows(const std::string& text, const std::vector<Index>& starts, Index length) {
  const auto count = static_cast<Index>(starts.size());
  Batch batch;
  batch.tokens.resize(count * length);
  batch.targets.resize(count * length);
  batch.positions = Eigen::VectorXi::LinSpaced(length, 0, static_cast<int>(length) - 1).replicate(count, 1);
  batch.offsets = static_cast<int>(length) * Eigen::VectorXi::LinSpaced(count + 1, 0, static_cast<int>(count));
  for (Index s = 0; s < count; ++s)
    for (Index t = 0; t < length; ++t) {
      const Index i = starts[static_cast<std::size_t>(s)] + t;
      batch.tokens(s * length + t) = byteAt(text, i);
      batch.targets(s * length + t) = byteAt(text, i + 1);
    }
  return batch;
}

/** One sequence, to be continued, in \a length columns: zeros stand behind the text, which does not attend to them. */
inline Batch prompt(const std::string& text, Index length) {
  const auto given = static_cast<Index>(text.size());
  Batch batch;
  batch.tokens = Eigen::VectorXi::NullaryExpr(length, [&](Index i) { return i < given ? byteAt(text, i) : 0; });
  batch.positions = Eigen::VectorXi::LinSpaced(length, 0, static_cast<int>(length) - 1);
  batch.offsets = Eigen::Vector2i(0, static_cast<int>(length));
  return batch;
}

/** Random starts of windows of \a length tokens. */
inline std::vector<Index> randomStarts(const std::string& text, Index count, Index length, std::mt19937_64& random) {
  std::uniform_int_distribution<Index> start(0, static_cast<Index>(text.size()) - length - 1);
  std::vector<Index> starts(static_cast<std::size_t>(count));
  for (Index& s : starts) s = start(random);
  return starts;
}

/** Starts of windows that follow each other through the text; at most \a limit of them, evenly spread. */
inline std::vector<Index> consecutiveStarts(const std::string& text, Index length, Index limit) {
  const Index available = (static_cast<Index>(text.size()) - 1) / length;
  const Index count = std::min(available, limit);
  std::vector<Index> starts;
  for (Index i = 0; i < count; ++i) starts.push_back(i * available / count * length);
  return starts;
}

}  // namespace finetune

#endif  // EIGENQ_FINETUNE_BATCH_H
