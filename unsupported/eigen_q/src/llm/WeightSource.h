// SPDX-License-Identifier: MPL-2.0
// Where a model's weights come from.
#ifndef EIGENQ_LLM_WEIGHT_SOURCE_H
#define EIGENQ_LLM_WEIGHT_SOURCE_H

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "LlamaConfig.h"
#include "Weight.h"

namespace EigenQ {
namespace llm {

/** Gives a model its weights one by one, so that no more than one of them is in memory twice. */
class WeightSource {
 public:
  virtual ~WeightSource() = default;

  virtual const LlamaConfig& config() const = 0;
  /** A norm's gain or a bias: \a name is that of the tensor. */
  virtual Eigen::VectorXf vector(const std::string& name, Index size) = 0;
  /** hidden×vocabulary, a token's vector a column. */
  virtual Eigen::MatrixXf embedding(const std::string& name, Index hidden, Index vocabulary) = 0;
  /** A projection's weight; \a module is the tensor's name without ".weight". */
  virtual HostWeight projection(const std::string& module, Index out, Index in) = 0;
  /** The model has all it asked for: throws FormatError if something is left over. */
  virtual void finish() {}
};

/** What projections are stored as. */
enum class WeightFormat : std::uint8_t {
  kAsStored,  // as the checkpoint has them: 8-bit ones multiply by LLM.int8(), as in bitsandbytes
  kDense,     // decoded where they are quantised
  kInt8,      // int8 weights, activations as they are
  kLlmInt8,   // int8 weights and activations, outlier features in full precision
  kNF4,
  kFP4
};

struct LoadOptions {
  WeightFormat format = WeightFormat::kAsStored;
  float int8Threshold = 6;                     // kLlmInt8
  Index blockSize = 64;                        // kNF4, kFP4: a power of two from 32 to 4096
  Statistics statistics = Statistics::kPlain;  // kNF4, kFP4: kNested for QLoRA's double quantisation
  std::vector<std::string> skipModules = {
      "lm_head"};  // left dense: a module of this name or path, as bitsandbytes has it
};

/** \a w in the format that \a options ask for; kAsStored and kDense leave it as it is. */
HostWeight quantized(Eigen::MatrixXf&& w, const LoadOptions& options);
/** Whether \a module, or one that holds it, is named by skipModules. */
bool isSkipped(const std::string& module, const std::vector<std::string>& skipModules);

/** Weights to start training from, or to measure with: normal, from one stream of random numbers. A projection maps
 * inputs of variance 1 to outputs of variance 1; those that add to the residual stream are smaller by √(2·layers), so
 * that its variance does not grow with depth. */
class RandomWeights : public WeightSource {
 public:
  /** Throws FormatError for a config that contradicts itself. */
  RandomWeights(LlamaConfig config, std::uint64_t seed, LoadOptions options = {});

  const LlamaConfig& config() const override { return m_config; }
  Eigen::VectorXf vector(const std::string& name, Index size) override;
  Eigen::MatrixXf embedding(const std::string& name, Index hidden, Index vocabulary) override;
  HostWeight projection(const std::string& module, Index out, Index in) override;

 private:
  Eigen::MatrixXf normal(Index rows, Index cols, double deviation);

  LlamaConfig m_config;
  LoadOptions m_options;
  std::mt19937_64 m_random;
};

}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_LLM_WEIGHT_SOURCE_H
