// SPDX-License-Identifier: MPL-2.0
// sampler.cpp: scores of repeated tokens lowered, softmax(scores / temperature), cut to the most probable tokens, and a
// draw from what is left.
#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include <unsupported/eigen_q/src/llm/Sampler.h>

namespace EigenQ {
namespace llm {

void internal::penaliseRepetition(Eigen::VectorXf& scores, const std::unordered_set<int>& tokens, float penalty) {
  for (const int token : tokens) {
    if (token < 0 || token >= scores.size())
      throw std::out_of_range("Sampler: expected seen tokens from 0 to " + std::to_string(scores.size() - 1) +
                              ", found " + std::to_string(token));
    float& score = scores(token);
    score = score < 0 ? score * penalty : score / penalty;
  }
}

Sampler::Sampler(const SamplingOptions& options) : m_options(options), m_random(options.seed) {
  if (!(options.temperature >= 0) || !std::isfinite(options.temperature))
    throw std::invalid_argument("Sampler: expected a temperature of 0 or more, found " +
                                std::to_string(options.temperature));
  if (options.topK < 0)
    throw std::invalid_argument("Sampler: expected topK of 0 or more, found " + std::to_string(options.topK));
  if (!(options.topP > 0 && options.topP <= 1))
    throw std::invalid_argument("Sampler: expected topP above 0 and up to 1, found " + std::to_string(options.topP));
  if (!(options.minP >= 0 && options.minP <= 1))
    throw std::invalid_argument("Sampler: expected minP from 0 to 1, found " + std::to_string(options.minP));
  const auto penalty = static_cast<float>(options.repetitionPenalty);  // what the scores meet
  if (!(penalty > 0) || !std::isfinite(penalty))
    throw std::invalid_argument("Sampler: expected a repetitionPenalty above 0 and finite, found " +
                                std::to_string(options.repetitionPenalty));
}

void Sampler::see(int token) {
  if (m_options.repetitionPenalty != 1) m_seen.insert(token);
}

int Sampler::operator()(const Eigen::Ref<const Eigen::VectorXf>& scores) {
  if (m_seen.empty()) return choose(scores);
  m_penalised = scores;
  internal::penaliseRepetition(m_penalised, m_seen, static_cast<float>(m_options.repetitionPenalty));
  return choose(m_penalised);
}

int Sampler::choose(const Eigen::Ref<const Eigen::VectorXf>& scores) {
  Index best = 0;
  for (Index i = 0; i < scores.size(); ++i) {
    if (std::isnan(scores(i))) throw std::domain_error("Sampler: the score of token " + std::to_string(i) + " is NaN");
    if (scores(i) > scores(best)) best = i;
  }
  if (scores.size() == 0 || !std::isfinite(scores(best)))
    throw std::domain_error("Sampler: expected a largest score that is finite");
  if (m_options.temperature == 0) return static_cast<int>(best);

  // Weights relative to the best: the largest is 1, whatever the scores.
  m_candidates.clear();
  for (Index i = 0; i < scores.size(); ++i) {
    const double distance = static_cast<double>(scores(i)) - static_cast<double>(scores(best));
    const double weight = std::exp(distance / m_options.temperature);
    if (weight > 0) m_candidates.push_back({weight, static_cast<int>(i)});
  }
  keepTopK();
  keepTopP();
  keepMinP();
  return draw();
}

namespace {
/** The more probable first, of equals the smaller token. */
struct MoreProbable {
  template <typename C>
  bool operator()(const C& a, const C& b) const {
    return a.weight != b.weight ? a.weight > b.weight : a.token < b.token;
  }
};
}  // namespace

void Sampler::keepTopK() {
  const auto k = static_cast<std::size_t>(m_options.topK);
  if (k == 0 || k >= m_candidates.size()) return;
  const auto end = m_candidates.begin() + m_options.topK;
  // Sorted: std::nth_element leaves an order of the library's own, and the draw goes by the order.
  std::partial_sort(m_candidates.begin(), end, m_candidates.end(), MoreProbable());
  m_candidates.erase(end, m_candidates.end());
}

void Sampler::keepTopP() {
  if (m_options.topP >= 1) return;
  double total = 0;
  for (const Candidate& c : m_candidates) total += c.weight;
  // All that lie below this sum to less than 1 - p, so that the others reach p without them: sorting a vocabulary is
  // dear.
  const double least = (1 - m_options.topP) * total / static_cast<double>(m_candidates.size());
  const auto end = std::partition(m_candidates.begin(), m_candidates.end(),
                                  [least](const Candidate& c) { return c.weight >= least; });
  std::sort(m_candidates.begin(), end, MoreProbable());
  double reached = 0;
  auto last = m_candidates.begin();
  while (last != end && reached < m_options.topP * total) reached += (last++)->weight;
  m_candidates.erase(std::max(last, m_candidates.begin() + 1), m_candidates.end());
}

void Sampler::keepMinP() {
  // Weights are relative to the best, which no cut takes away.
  const auto isLess = [least = m_options.minP](const Candidate& c) { return c.weight < least; };
  m_candidates.erase(std::remove_if(m_candidates.begin(), m_candidates.end(), isLess), m_candidates.end());
}

int Sampler::draw() {
  double total = 0;
  for (const Candidate& c : m_candidates) total += c.weight;
  double left = static_cast<double>(m_random() >> 11) * 0x1p-53 * total;
  for (const Candidate& c : m_candidates) {
    if (left < c.weight) return c.token;
    left -= c.weight;
  }
  return m_candidates.back().token;  // rounding used up what was left
}

}  // namespace llm
}  // namespace EigenQ
