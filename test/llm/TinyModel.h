// SPDX-License-Identifier: MPL-2.0
// Small models with random weights, one a family, that differ in all in which families do.
#ifndef EIGENQ_TEST_LLM_TINY_MODEL_H
#define EIGENQ_TEST_LLM_TINY_MODEL_H

#include <cstdint>
#include <ostream>
#include <vector>

#include <unsupported/eigen_q/Llm>

namespace EigenQ {
namespace llm {
inline std::ostream& operator<<(std::ostream& os, LlamaFamily family) {
  return os << (family == LlamaFamily::kLlama ? "llama" : family == LlamaFamily::kMistral ? "mistral" : "qwen2");
}
}  // namespace llm

namespace test {

using Model = llm::Llama<float>;

const std::vector<llm::LlamaFamily> kFamilies = {llm::LlamaFamily::kLlama, llm::LlamaFamily::kMistral,
                                                 llm::LlamaFamily::kQwen2};

inline llm::LlamaConfig tinyConfig(llm::LlamaFamily family) {
  llm::LlamaConfig c;
  c.family = family;
  c.vocabSize = 32;
  c.hiddenSize = 24;
  c.intermediateSize = 20;
  c.numHiddenLayers = 3;
  c.numAttentionHeads = 4;
  c.numKeyValueHeads = 2;
  c.headDim = family == llm::LlamaFamily::kMistral ? 8 : 6;
  c.maxPositionEmbeddings = 40;
  c.rmsNormEps = 1e-5;
  c.ropeTheta = 300;
  c.tieWordEmbeddings = family == llm::LlamaFamily::kLlama;
  c.attentionBias = c.mlpBias = family == llm::LlamaFamily::kLlama;
  if (family == llm::LlamaFamily::kMistral) c.windows = {4, 4, 4};
  if (family == llm::LlamaFamily::kQwen2) c.windows = {0, 0, 5};
  return c;
}

/** Random in biases and norms too, and with sharper attention than training starts with. */
class TinyWeights : public llm::RandomWeights {
 public:
  TinyWeights(const llm::LlamaConfig& config, std::uint64_t seed, const llm::LoadOptions& options)
      : RandomWeights(config, seed, options), m_random(seed + 1) {}

  Eigen::VectorXf vector(const std::string& name, Index size) override {
    std::normal_distribution<float> draw(0, 0.3f);
    Eigen::VectorXf v = RandomWeights::vector(name, size);
    for (float& x : v) x += draw(m_random);
    return v;
  }

 private:
  std::mt19937_64 m_random;
};

template <typename M = Model>
M tinyModel(llm::LlamaFamily family, std::uint64_t seed = 1, const llm::LoadOptions& options = {}) {
  TinyWeights weights(tinyConfig(family), seed, options);
  return M(weights);
}

/** Vocabulary×tokens. */
template <typename M>
Eigen::MatrixXf logitsOf(M& model, const std::vector<int>& tokens) {
  typename M::Tape tape;
  const auto logits = model.logits(model.features(tape, llm::pack({tokens})));
  return llm::internal::DecodeStep<typename M::Scalar, typename M::Place>::hostValue(logits);
}

}  // namespace test
}  // namespace EigenQ

#endif  // EIGENQ_TEST_LLM_TINY_MODEL_H
