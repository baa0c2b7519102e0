// SPDX-License-Identifier: MPL-2.0
// What config.json says about a model of the Llama family.
#ifndef EIGENQ_LLM_LLAMA_CONFIG_H
#define EIGENQ_LLM_LLAMA_CONFIG_H

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <Eigen/Core>

#include <eigen_q/Core>

namespace EigenQ {
namespace llm {

/** Architectures that share one decoder: they differ in biases and in the defaults of their config.json. */
enum class LlamaFamily : std::uint8_t { kLlama, kMistral, kQwen2 };

/** How the frequencies of rotary position embeddings depart from theta^(-2i/headDim). */
struct RopeScaling {
  enum class Type : std::uint8_t { kDefault, kLinear, kLlama3 };
  Type type = Type::kDefault;
  double factor = 1;  // of the context's length; kLinear, kLlama3
  // kLlama3: wavelengths below original/highFreqFactor stay, those above original/lowFreqFactor are stretched by
  // factor.
  double lowFreqFactor = 1;
  double highFreqFactor = 4;
  Index originalMaxPositionEmbeddings = 8192;
};

/** What transformers' BitsAndBytesConfig says of a quantised checkpoint. */
struct QuantizationConfig {
  int bits = 4;  // 4 or 8
  FourBitType type = FourBitType::kNF4;
  bool doubleQuant = false;
  std::string computeDtype = "float32";
  std::string quantStorage = "uint8";
  float int8Threshold = 6;
  std::vector<std::string> skipModules;  // llm_int8_skip_modules: modules left dense, of 4-bit checkpoints too
};

/** Sizes and constants of a model, in transformers' words. Defaults are those of transformers' LlamaConfig.
 * Sources: transformers, models/{llama,mistral,qwen2}/configuration_*.py. */
struct LlamaConfig {
  LlamaFamily family = LlamaFamily::kLlama;
  Index vocabSize = 32000;
  Index hiddenSize = 4096;
  Index intermediateSize = 11008;
  Index numHiddenLayers = 32;
  Index numAttentionHeads = 32;
  Index numKeyValueHeads = 32;
  Index headDim = 128;
  Index maxPositionEmbeddings = 2048;
  double rmsNormEps = 1e-6;
  double ropeTheta = 10000;
  RopeScaling ropeScaling;
  bool tieWordEmbeddings = false;
  bool attentionBias = false;  // of kLlama alone: kQwen2 always has some, kMistral has none
  bool mlpBias = false;        // of kLlama alone
  /** How many tokens, itself included, each token of a layer sees; 0 for all. One a layer, or empty for none. */
  std::vector<Index> windows;
  std::optional<int> bosTokenId;
  std::optional<int> padTokenId;
  std::vector<int> eosTokenIds;   // any of them ends a text
  std::string dtype = "float32";  // of the dense tensors in the checkpoint
  std::optional<QuantizationConfig> quantization;

  bool hasQueryKeyValueBias() const {
    return family == LlamaFamily::kQwen2 || (family == LlamaFamily::kLlama && attentionBias);
  }
  bool hasOutputBias() const { return family == LlamaFamily::kLlama && attentionBias; }
  bool hasMlpBias() const { return family == LlamaFamily::kLlama && mlpBias; }
  Index window(Index layer) const { return windows.empty() ? 0 : windows[static_cast<std::size_t>(layer)]; }

  /** Angles a position, headDim/2 of them, scaled. */
  Eigen::VectorXd ropeFrequencies() const;

  /** Throws FormatError where sizes contradict each other; \a where names the source. Readers have called it. */
  void validate(const std::string& where = "LlamaConfig") const;

  /** Reads either spelling: rope_theta, rope_scaling and torch_dtype, or transformers 5's rope_parameters and dtype.
   * Throws FormatError, naming file and key, for what is missing, of the wrong type or inconsistent, and for every
   * architecture, activation, RoPE type and quantisation that is not supported. */
  static LlamaConfig fromFile(const std::string& path);
  static LlamaConfig fromJson(const std::string& text, const std::string& where = "config.json");

  /** In a form that transformers reads, 4.x and 5. */
  std::string toJson() const;
};

}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_LLM_LLAMA_CONFIG_H
