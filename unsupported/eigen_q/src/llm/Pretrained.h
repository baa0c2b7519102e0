// SPDX-License-Identifier: MPL-2.0
// Models in the folders of Hugging Face: config.json and safetensors.
#ifndef EIGENQ_LLM_PRETRAINED_H
#define EIGENQ_LLM_PRETRAINED_H

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

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
  std::string dtype;  // of dense tensors: float32, float16 or bfloat16; empty: the config's
  std::uint64_t maxShardBytes = 5'000'000'000;
};

namespace internal {
/** Collects the tensors of a model and writes them with its config.json. */
class PretrainedWriter {
 public:
  /** Gives a matrix when its turn to be written comes. */
  using Value = std::function<Eigen::MatrixXf()>;

  PretrainedWriter(LlamaConfig config, const SaveOptions& options);
  ~PretrainedWriter();
  PretrainedWriter(const PretrainedWriter&) = delete;
  PretrainedWriter& operator=(const PretrainedWriter&) = delete;

  /** A tensor of \a shape, whose entries in row-major order are those of \a value column by column. */
  void addDense(const std::string& name, std::vector<Index> shape, Value value);
  /** A dense projection. */
  void addProjection(const std::string& module, Index out, Index in, Value value);
  /** A quantised one. */
  void addProjection(const std::string& module, HostWeight weight);
  /** Throws FormatError where projections are quantised in ways that one quantization_config cannot describe. */
  void write(const std::string& directory);

 private:
  struct State;
  std::unique_ptr<State> m_state;
};

template <typename Scalar, typename Place>
void addVector(PretrainedWriter& writer, const DenseWeight<Scalar, Place>& v) {
  writer.addDense(v.name(), {v.rows()}, [&v] { return v.toHost(); });
}

template <typename Scalar, typename Place>
void addLinear(PretrainedWriter& writer, Linear<Scalar, Place>& linear) {
  if (const auto* dense = linear.denseWeight())
    writer.addProjection(linear.name(), linear.rows(), linear.cols(), [dense] { return dense->toHost(); });
  else
    writer.addProjection(linear.name(), linear.hostWeight());
  if (linear.bias()) addVector(writer, *linear.bias());
}
}  // namespace internal

/** Writes \a model to \a directory as transformers, and for quantised projections bitsandbytes, open it: config.json
 * with its quantization_config, and model.safetensors or shards. Adapters are not part of it. The folder's tensors
 * change at once, config.json last. An int8 weight becomes one of LLM.int8(), with threshold 6 where it had none.
 * From a device it waits for the current context. Throws FormatError for a dtype that is not listed and for formats
 * side by side that one quantization_config cannot describe, std::system_error where a file cannot be written. */
template <typename Scalar, typename Place>
void saveLlama(Llama<Scalar, Place>& model, const std::string& directory, const SaveOptions& options = {}) {
  internal::PretrainedWriter writer(model.config(), options);
  const auto& embedding = model.embedding();
  writer.addDense(embedding.name(), {embedding.cols(), embedding.rows()}, [&embedding] { return embedding.toHost(); });
  for (const auto& layer : model.layers()) {
    addVector(writer, layer.attentionNorm);
    addVector(writer, layer.ffnNorm);
  }
  addVector(writer, model.norm());
  model.forEachLinear([&writer](Linear<Scalar, Place>& linear) { addLinear(writer, linear); });
  writer.write(directory);
}

}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_LLM_PRETRAINED_H
