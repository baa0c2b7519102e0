// SPDX-License-Identifier: MPL-2.0
// How the next token is drawn from its scores.
#ifndef EIGENQ_LLM_SAMPLER_H
#define EIGENQ_LLM_SAMPLER_H

#include <cstdint>
#include <random>
#include <vector>

#include <Eigen/Core>

#include <eigen_q/Core>

namespace EigenQ {
namespace llm {

/** In transformers' order: temperature, then top-k, then top-p of what is left, then min-p. */
struct SamplingOptions {
  double temperature = 0;  // 0: the largest score (greedy)
  Index topK = 0;          // only the k most probable tokens; 0: all
  double topP = 1;         // only the most probable tokens that together reach this probability, one at least
  double minP = 0;         // only tokens at least this fraction as probable as the most probable one
  std::uint64_t seed = 0;
};

/** Draws tokens. One sequence of draws from one seed, on every machine: no distribution of the standard library, whose
 * results differ among implementations. */
class Sampler {
 public:
  /** Throws std::invalid_argument for a negative or NaN temperature, a negative topK, topP outside (0, 1], or minP
   * outside [0, 1]. */
  explicit Sampler(const SamplingOptions& options);

  /** A token, by the scores of all. Throws std::domain_error if a score is NaN or the largest is not finite: a model
   * that has diverged, or memory that was not initialised. */
  int operator()(const Eigen::Ref<const Eigen::VectorXf>& scores);

 private:
  struct Candidate {
    double weight;  // probability, up to a common factor
    int token;
  };
  void keepTopK();
  void keepTopP();
  void keepMinP();
  int draw();

  SamplingOptions m_options;
  std::mt19937_64 m_random;
  std::vector<Candidate> m_candidates;  // what is left to choose from; keeps its memory
};

}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_LLM_SAMPLER_H
