// SPDX-License-Identifier: MPL-2.0
// Continues prompts.
#ifndef EIGENQ_LLM_GENERATOR_H
#define EIGENQ_LLM_GENERATOR_H

#include <algorithm>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "DecodeStep.h"
#include "Llama.h"
#include "Sampler.h"

namespace EigenQ {
namespace llm {

struct GenerateOptions {
  Index maxNewTokens = 100;
  SamplingOptions sampling;
  std::vector<int> stopTokens;  // each ends its sequence and is its last token; usually config().eosTokenIds
};

/** Called for each token as it is drawn, with the number of its prompt. False ends that sequence, whose last token this
 * is: StreamDecoder::stopAt says when a text has come to a stop string. */
using OnToken = std::function<bool(Index sequence, int token)>;

/** Generates tokens behind prompts, several at once, from a cache of keys and values: prompts are packed into one pass,
 * then each step is one token a sequence. Steps reuse their memory; on a device they are one CUDA graph, captured once.
 *
 * The model outlives the generator; what its weights and adapters hold may change between calls, but not what they are.
 * \tparam Model_  a Llama */
template <typename Model_>
class Generator {
 public:
  using Model = Model_;
  using Scalar = typename Model::Scalar;
  using Place = typename Model::Place;

  /** \param sequences  prompts at a time. \param capacity  tokens of each, prompt included; 0, and more than the model
   * has positions for: as many as those. On a device: in memory and on the stream of the current context, which
   * outlives the generator; what other contexts do to the model has to be waited for. */
  explicit Generator(Model& model, Index sequences = 1, Index capacity = 0)
      : m_model(model),
        m_cache(model.config(), sequences,
                capacity > 0 ? std::min(capacity, model.maxPositions()) : model.maxPositions()),
        m_step(model, m_cache),
        m_tokens(Eigen::VectorXi::Zero(sequences)) {}
  Generator(const Generator&) = delete;
  Generator& operator=(const Generator&) = delete;

  /** \returns the new tokens of each prompt. Sequence s draws with the seed sampling.seed + s, whatever its neighbours.
   * A sequence that runs out of capacity ends.
   * Throws std::invalid_argument for more prompts than there is room for, or one that is empty or too long,
   * std::out_of_range for tokens that the model does not have, std::domain_error for scores that are NaN. */
  std::vector<std::vector<int>> operator()(const std::vector<std::vector<int>>& prompts, const GenerateOptions& options,
                                           const OnToken& onToken = {}) {
    checkPrompts(prompts);
    begin(prompts, options);
    if (prompts.empty() || options.maxNewTokens <= 0) return m_generated;
    takeFrom(prefill(prompts), options, onToken);
    while (std::find(m_active.begin(), m_active.end(), true) != m_active.end()) {
      if (largestScoreDecides(options.sampling))
        takeGreedy(m_step.greedy(m_tokens, m_active), options, onToken);
      else
        takeFrom(m_step.scores(m_tokens, m_active), options, onToken);
    }
    return m_generated;
  }

  const KvCache<Scalar, Place>& cache() const { return m_cache; }

 private:
  using Step = internal::DecodeStep<Scalar, Place>;

  void checkPrompts(const std::vector<std::vector<int>>& prompts) const {
    const auto fail = [](const std::string& message) { throw std::invalid_argument("Generator: " + message); };
    if (static_cast<Index>(prompts.size()) > m_cache.sequences())
      fail("expected up to " + std::to_string(m_cache.sequences()) + " prompts, found " +
           std::to_string(prompts.size()));
    for (std::size_t s = 0; s < prompts.size(); ++s)
      if (prompts[s].empty() || static_cast<Index>(prompts[s].size()) > m_cache.capacity())
        fail("prompt " + std::to_string(s) + ": expected 1 to " + std::to_string(m_cache.capacity()) +
             " tokens, found " + std::to_string(prompts[s].size()));
  }

  /** Whether a step finds the token by itself, without handing out the scores. */
  static bool largestScoreDecides(const SamplingOptions& sampling) {
    return sampling.temperature == 0 && sampling.repetitionPenalty == 1;
  }

  void begin(const std::vector<std::vector<int>>& prompts, const GenerateOptions& options) {
    m_generated.assign(prompts.size(), {});
    m_active.assign(static_cast<std::size_t>(m_cache.sequences()), false);
    std::fill_n(m_active.begin(), prompts.size(), true);
    m_samplers.clear();
    for (std::size_t s = 0; s < prompts.size(); ++s) {
      SamplingOptions sampling = options.sampling;
      sampling.seed += s;
      m_samplers.emplace_back(sampling);
      for (const int token : prompts[s]) m_samplers[s].see(token);
    }
  }

  /** One pass over all prompts. \returns the scores behind each, vocabulary×prompts. */
  Eigen::MatrixXf prefill(const std::vector<std::vector<int>>& prompts) {
    const Batch batch = pack(prompts);
    const auto count = static_cast<Index>(prompts.size());
    ad::CachedTokens<> where{batch.positions, Eigen::VectorXi::Constant(m_cache.sequences() + 1, batch.offsets(count))};
    where.offsets.head(count + 1) = batch.offsets;
    auto tape = m_step.newTape();  // much larger than a step's: its memory goes
    const ad::NoGradGuard<Scalar, Place> guard(tape);
    const auto features = m_model.features(tape, batch.tokens, m_cache, where);
    const Eigen::VectorXi last = batch.offsets.tail(count).array() - 1;
    const auto scores = Step::hostValue(m_model.logits(ad::embedding(tape, features, last)));
    m_cache.setLengths(where.offsets.tail(m_cache.sequences()) - where.offsets.head(m_cache.sequences()));
    m_step.restart();
    return scores;
  }

  template <typename Scores>
  void takeFrom(const Scores& scores, const GenerateOptions& options, const OnToken& onToken) {
    for (std::size_t s = 0; s < m_generated.size(); ++s)
      if (m_active[s]) take(s, m_samplers[s](scores.col(static_cast<Index>(s))), options, onToken);
  }
  void takeGreedy(const Eigen::VectorXi& tokens, const GenerateOptions& options, const OnToken& onToken) {
    for (std::size_t s = 0; s < m_generated.size(); ++s) {
      if (!m_active[s]) continue;
      const int token = tokens(static_cast<Index>(s));
      if (token < 0) throw std::domain_error("Generator: a score of sequence " + std::to_string(s) + " is NaN");
      take(s, token, options, onToken);
    }
  }

  void take(std::size_t s, int token, const GenerateOptions& options, const OnToken& onToken) {
    const auto at = static_cast<Index>(s);
    std::vector<int>& tokens = m_generated[s];
    tokens.push_back(token);
    m_samplers[s].see(token);
    m_tokens(at) = token;
    const bool goOn = !onToken || onToken(at, token);
    const bool stops =
        std::find(options.stopTokens.begin(), options.stopTokens.end(), token) != options.stopTokens.end();
    m_active[s] = goOn && !stops && static_cast<Index>(tokens.size()) < options.maxNewTokens &&
                  m_cache.lengths()(at) < m_cache.capacity();
  }

  Model& m_model;
  KvCache<Scalar, Place> m_cache;
  Step m_step;
  std::vector<Sampler> m_samplers;
  std::vector<bool> m_active;
  Eigen::VectorXi m_tokens;  // the last of each sequence
  std::vector<std::vector<int>> m_generated;
};

extern template class Generator<Llama<float, ad::Host>>;  // compiled in EigenQ::Llm

}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_LLM_GENERATOR_H
