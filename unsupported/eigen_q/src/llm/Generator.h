// SPDX-License-Identifier: MPL-2.0
// Continues prompts.
#ifndef EIGENQ_LLM_GENERATOR_H
#define EIGENQ_LLM_GENERATOR_H

#include <functional>
#include <vector>

#include "Llama.h"
#include "Sampler.h"

namespace EigenQ {
namespace llm {

struct GenerateOptions {
  Index maxNewTokens = 100;
  SamplingOptions sampling;
  std::vector<int> stopTokens;  // each ends its sequence and is its last token; usually config().eosTokenIds
};

/** Called for each token as it is drawn, with the number of its prompt. False ends that sequence. */
using OnToken = std::function<bool(Index sequence, int token)>;

/** Generates tokens behind prompts, several at once, from a cache of keys and values: prompts are packed into one pass,
 * then each step is one token a sequence. Steps reuse their memory.
 * \tparam Model  a Llama, which outlives the generator */
template <typename Model_>
class Generator {
 public:
  using Model = Model_;
  using Scalar = typename Model::Scalar;
  using Place = typename Model::Place;

  /** \param sequences  prompts at a time. \param capacity  tokens of each, prompt included; 0: all the model has.
   * On a device: on \a tape arguments' context, or the current one. */
  Generator(Model& model, Index sequences, Index capacity = 0);

  /** \returns the new tokens of each prompt. Sequence s draws from its own random numbers, seeded with seed + s, so
   * that a prompt's continuation does not depend on its neighbours but by rounding. Throws std::invalid_argument for an
   * empty prompt, or more or longer ones than there is room for; sequences that run out of room end. */
  std::vector<std::vector<int>> operator()(const std::vector<std::vector<int>>& prompts, const GenerateOptions& options,
                                           const OnToken& onToken = {});

  /** Bytes of the cache and of the tape. */
  const KvCache<Scalar, Place>& cache() const { return m_cache; }

 private:
  Model& m_model;
  KvCache<Scalar, Place> m_cache;
  ad::Tape<Scalar, Place> m_tape;
};

}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_LLM_GENERATOR_H
