// SPDX-License-Identifier: MPL-2.0
// How the next token is drawn from its scores.
#ifndef EIGENQ_LLM_SAMPLER_H
#define EIGENQ_LLM_SAMPLER_H

#include <cstdint>
#include <random>
#include <unordered_set>
#include <vector>

#include <Eigen/Core>

#include <eigen_q/Core>

namespace EigenQ {
namespace llm {

/** In transformers' order: repetition penalty, then temperature, then top-k, then top-p of what is left, then min-p. */
struct SamplingOptions {
  double temperature = 0;  // 0: the largest score (greedy)
  Index topK = 0;          // only the k most probable tokens; 0: all
  double topP = 1;         // only the most probable tokens that together reach this probability, one at least
  double minP = 0;         // only tokens at least this fraction as probable as the most probable one
  std::uint64_t seed = 0;
  /** Makes tokens that prompt or text have already less likely, or with less than 1 likelier; 1: off. Their scores are
   * divided by it, and negative ones multiplied, each token's once. Source: Keskar et al., CTRL, arXiv:1909.05858,
   * section 4.1, as in transformers: the paper divides negative scores too, which makes those tokens likelier. */
  double repetitionPenalty = 1;
};

namespace internal {
/** Applies the penalty to the scores of \a tokens. Throws std::out_of_range for one that has no score. */
void penaliseRepetition(Eigen::VectorXf& scores, const std::unordered_set<int>& tokens, float penalty);
}  // namespace internal

/** Draws tokens. One sequence of draws from one seed, on every machine: no distribution of the standard library, whose
 * results differ among implementations. */
class Sampler {
 public:
  /** Throws std::invalid_argument for a negative or NaN temperature, a negative topK, topP outside (0, 1], minP outside
   * [0, 1], or a repetitionPenalty that is not above 0 and finite as a float. */
  explicit Sampler(const SamplingOptions& options);

  /** Says that prompt or text have \a token: the repetition penalty is for those, and a Sampler does not count what it
   * draws itself. */
  void see(int token);

  /** A token, by the scores of all. Throws std::domain_error if a score is NaN or the largest is not finite: a model
   * that has diverged, or memory that was not initialised; std::out_of_range for seen tokens without a score. */
  int operator()(const Eigen::Ref<const Eigen::VectorXf>& scores);

 private:
  struct Candidate {
    double weight;  // probability, up to a common factor
    int token;
  };
  int choose(const Eigen::Ref<const Eigen::VectorXf>& scores);
  void keepTopK();
  void keepTopP();
  void keepMinP();
  int draw();

  SamplingOptions m_options;
  std::mt19937_64 m_random;
  std::unordered_set<int> m_seen;       // empty without a penalty
  Eigen::VectorXf m_penalised;          // both keep their memory
  std::vector<Candidate> m_candidates;  // what is left to choose from
};

}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_LLM_SAMPLER_H
