// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_FINETUNE_SAMPLE_H
#define EIGENQ_FINETUNE_SAMPLE_H

#include <algorithm>
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
template <typename Place>
std::string generate(Model<Place>& model, std::string text, Index count, double temperature, std::uint64_t seed) {
  using Traits = PlaceTraits<Place>;
  const Index context = model.options().context;
  std::mt19937_64 random(seed);
  EigenQ::ad::Tape<float, Place> tape;
  const EigenQ::ad::NoGradGuard<float, Place> guard(tape);
  for (Index i = 0; i < count; ++i) {
    tape.clear();
    const Index length = std::min(context, static_cast<Index>(text.size()));
    const std::string seen = text.substr(text.size() - static_cast<std::size_t>(length));
    const auto features = model.features(tape, prompt(seen, Traits::kPadPrompts ? context : length));
    const auto logits = model.logits(middleCols(features, length - 1, 1));
    text += static_cast<char>(draw(Traits::toHost(logits.value()).col(0), temperature, random));
  }
  return text;
}

}  // namespace finetune

#endif  // EIGENQ_FINETUNE_SAMPLE_H
