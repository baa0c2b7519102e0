// SPDX-License-Identifier: MPL-2.0
// Models in the folders of Hugging Face: config.json and safetensors.
#ifndef EIGENQ_LLM_PRETRAINED_H
#define EIGENQ_LLM_PRETRAINED_H

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <utility>

#include "Llama.h"
#include "WeightSource.h"

namespace EigenQ {
namespace llm {

/** The weights of the model in \a directory: config.json, and model.safetensors or its shards. Dense tensors in F32,
 * F16, BF16 or F64, and bitsandbytes' 4-bit and 8-bit ones. Each is read, quantised and given back to the system before
 * the next, so that the peak of memory is the model plus one tensor. Throws FormatError for a tensor that is missing,
 * of the wrong shape or not of this architecture, and where \a options would quantise what is quantised. Buffers that
 * older versions stored (rotary_emb.inv_freq) are ignored. */
std::unique_ptr<WeightSource> openPretrained(const std::string& directory, const LoadOptions& options = {});

/** The model in \a directory, quantised on the way as \a options say. \param maxPositions  as in Llama's constructor.
 */
template <typename Scalar = float, typename Place = ad::Host>
Llama<Scalar, Place> loadLlama(const std::string& directory, const LoadOptions& options = {}, Index maxPositions = 0) {
  return Llama<Scalar, Place>(*openPretrained(directory, options), maxPositions);
}

struct SaveOptions {
  std::string dtype = "float32";  // of dense tensors: float32, float16 or bfloat16
  std::uint64_t maxShardBytes = 5'000'000'000;
};

namespace internal {
/** Collects the tensors of a model and writes them with its config.json. */
class PretrainedWriter {
 public:
  PretrainedWriter(LlamaConfig config, const SaveOptions& options);
  ~PretrainedWriter();
  PretrainedWriter(const PretrainedWriter&) = delete;
  PretrainedWriter& operator=(const PretrainedWriter&) = delete;

  void addVector(const std::string& name, const Eigen::MatrixXf& v);
  /** \a table  hidden×vocabulary, a token's vector a column. */
  void addEmbedding(const std::string& name, Eigen::MatrixXf table);
  void addProjection(const std::string& module, HostWeight weight);
  /** Throws FormatError where projections are stored in ways that one quantization_config cannot describe. */
  void write(const std::string& directory);

 private:
  struct State;
  std::unique_ptr<State> m_state;
};
}  // namespace internal

/** Writes \a model to \a directory as transformers, and for quantised projections bitsandbytes, open it: config.json
 * with its quantization_config, and model.safetensors or shards. Adapters are not part of it. config.json is written
 * last; every file appears whole or not at all. From a device it waits for the current context. */
template <typename Scalar, typename Place>
void saveLlama(Llama<Scalar, Place>& model, const std::string& directory, const SaveOptions& options = {}) {
  internal::PretrainedWriter writer(model.config(), options);
  writer.addEmbedding(model.embedding().name(), model.embedding().toHost());
  for (auto& layer : model.layers()) {
    writer.addVector(layer.attentionNorm.name(), layer.attentionNorm.toHost());
    writer.addVector(layer.ffnNorm.name(), layer.ffnNorm.toHost());
  }
  writer.addVector(model.norm().name(), model.norm().toHost());
  model.forEachLinear([&writer](Linear<Scalar, Place>& linear) {
    writer.addProjection(linear.name(), linear.hostWeight());
    if (linear.bias()) writer.addVector(linear.bias()->name(), linear.bias()->toHost());
  });
  writer.write(directory);
}

}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_LLM_PRETRAINED_H
