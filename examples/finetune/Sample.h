// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_FINETUNE_SAMPLE_H
#define EIGENQ_FINETUNE_SAMPLE_H

#include <random>
#include <string>

#include "Model.h"

namespace finetune {

/** Draws an index with the probabilities softmax(scores / temperature); temperature 0 takes the largest. */
inline Index draw(const Eigen::VectorXf& scores, double temperature, std::mt19937_64& random) {
  Index best = 0;
  const float top = scores.maxCoeff(&best);
  if (temperature == 0) return best;
  const Eigen::ArrayXd weights = ((scores.array() - top).cast<double>() / temperature).exp();
  double left = std::uniform_real_distribution<double>(0, weights.sum())(random);
  Index i = 0;
  while (i + 1 < weights.size() && left >= weights(i)) left -= weights(i++);
  return i;
}

/** Continues \a text by \a count bytes, each drawn from the model's prediction after the last context of them. */
inline std::string generate(Model& model, std::string text, Index count, double temperature, std::uint64_t seed) {
  const auto context = static_cast<std::size_t>(model.options().context);
  std::mt19937_64 random(seed);
  Tape tape;
  const EigenQ::ad::NoGradGuard<float> guard(tape);
  for (Index i = 0; i < count; ++i) {
    tape.clear();
    const Batch batch = prompt(text.size() > context ? text.substr(text.size() - context) : text);
    const Var last = middleCols(model.features(tape, batch), batch.tokens.size() - 1, 1);
    text += static_cast<char>(draw(model.logits(last).value().col(0), temperature, random));
  }
  return text;
}

}  // namespace finetune

#endif  // EIGENQ_FINETUNE_SAMPLE_H
