// SPDX-License-Identifier: MPL-2.0
// One step of generation: a token of each sequence in, the scores of its successors out.
#ifndef EIGENQ_LLM_DECODE_STEP_H
#define EIGENQ_LLM_DECODE_STEP_H

#include <algorithm>
#include <vector>

#include "Llama.h"

namespace EigenQ {
namespace llm {
namespace internal {

/** Runs the model on the last token of each sequence, writes the cache and counts its lengths on. Repeated steps reuse
 * their memory. Each place has its own way; this is the host's: sequences that have ended cost nothing. */
template <typename Scalar, typename Place>
class DecodeStep {
 public:
  using Model = Llama<Scalar, Place>;
  using Cache = KvCache<Scalar, Place>;

  DecodeStep(Model& model, Cache& cache)
      : m_model(model), m_cache(cache), m_scores(model.config().vocabSize, cache.sequences()) {}

  /** Where steps run. */
  ad::Tape<Scalar, Place> newTape() const { return ad::Tape<Scalar, Place>(); }
  /** The values of a Var on the host. */
  static Eigen::MatrixXf hostValue(const ad::Var<Scalar, Place>& x) { return x.value().template cast<float>(); }

  /** To be called when the cache's lengths have been set otherwise than by a step. */
  void restart() {}

  /** \param tokens  one a sequence. \param active  whose scores are wanted; the others stay as they are.
   * \returns vocabulary×sequences, valid until the next step. */
  const Eigen::MatrixXf& scores(const Eigen::VectorXi& tokens, const std::vector<bool>& active) {
    gather(tokens, active);
    m_tape.clear();
    const ad::NoGradGuard<Scalar, Place> guard(m_tape);
    const auto logits = m_model.logits(m_model.features(m_tape, m_tokens, m_cache, m_where));
    for (Index s = 0; s < m_cache.sequences(); ++s)
      if (active[static_cast<std::size_t>(s)]) m_scores.col(s) = logits.value().col(m_where.offsets(s));
    m_cache.setLengths(m_cache.lengths() + m_where.offsets.tail(m_cache.sequences()) -
                       m_where.offsets.head(m_cache.sequences()));
    return m_scores;
  }

  /** The token of the largest score of each sequence, -1 where a score is NaN. */
  const Eigen::VectorXi& greedy(const Eigen::VectorXi& tokens, const std::vector<bool>& active) {
    scores(tokens, active);
    m_best.resize(m_cache.sequences());
    for (Index s = 0; s < m_cache.sequences(); ++s) {
      Index best = 0;
      const float top = m_scores.col(s).template maxCoeff<Eigen::PropagateNaN>(&best);
      m_best(s) = top == top ? static_cast<int>(best) : -1;
    }
    return m_best;
  }

 private:
  void gather(const Eigen::VectorXi& tokens, const std::vector<bool>& active) {
    const Index count = std::count(active.begin(), active.end(), true);
    m_tokens.resize(count);
    m_where.positions.resize(count);
    m_where.offsets.resize(m_cache.sequences() + 1);
    m_where.offsets(0) = 0;
    for (Index s = 0; s < m_cache.sequences(); ++s) {
      const int at = m_where.offsets(s);
      m_where.offsets(s + 1) = at + (active[static_cast<std::size_t>(s)] ? 1 : 0);
      if (!active[static_cast<std::size_t>(s)]) continue;
      m_tokens(at) = tokens(s);
      m_where.positions(at) = m_cache.lengths()(s);
    }
  }

  Model& m_model;
  Cache& m_cache;
  ad::Tape<Scalar, Place> m_tape;
  Eigen::VectorXi m_tokens, m_best;
  ad::CachedTokens<> m_where;
  Eigen::MatrixXf m_scores;
};

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_LLM_DECODE_STEP_H
