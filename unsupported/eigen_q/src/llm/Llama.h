// SPDX-License-Identifier: MPL-2.0
// The decoder of Llama, Mistral and Qwen2.
#ifndef EIGENQ_LLM_LLAMA_H
#define EIGENQ_LLM_LLAMA_H

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "Batch.h"
#include "KvCache.h"
#include "Linear.h"
#include "LlamaConfig.h"
#include "TiedHead.h"
#include "WeightSource.h"

namespace EigenQ {
namespace llm {

struct ForwardOptions {
  bool checkpointLayers = false;  // keep one matrix a layer and compute the rest again for its gradients
};

/** A causal language model of the Llama family, frozen until parts of it are made trainable or get adapters.
 *
 * Ops are recorded on a tape, which refers to the weights by address until its next clear().
 * \tparam Scalar_  of activations: float; on a device half and bfloat16 too
 * \tparam Place_   ad::Host, or ad::Device (unsupported/eigen_q/LlmCuda)
 * Sources: Touvron et al., arXiv:2302.13971 and 2307.09288; Jiang et al., Mistral 7B, arXiv:2310.06825. */
template <typename Scalar_ = float, typename Place_ = ad::Host>
class Llama {
 public:
  using Scalar = Scalar_;
  using Place = Place_;
  using Tape = ad::Tape<Scalar, Place>;
  using Var = ad::Var<Scalar, Place>;
  using Dense = DenseWeight<Scalar, Place>;
  using Projection = Linear<Scalar, Place>;
  using Cache = KvCache<Scalar, Place>;
  using Parameter = typename Dense::Master;

  /** One block: x += attention(norm(x)), then x += feed-forward(norm(x)). */
  struct Layer {
    Dense attentionNorm;
    Projection query, key, value, output;
    Dense ffnNorm;
    Projection gate, up, down;
  };

  /** Positions that nobody has to ask for: their angles take half a gigabyte for heads of 128. Configs name more, up to
   * 2³¹, where their authors set no limit. */
  static constexpr Index kUsualPositions = Index(1) << 20;

  /** Takes every weight from \a source, one after another; on a device to the current context. \param maxPositions  the
   * longest sequence to prepare for; 0: what the config says, but at most kUsualPositions. Throws what the source
   * throws. */
  explicit Llama(WeightSource& source, Index maxPositions = 0);

  const LlamaConfig& config() const { return m_config; }
  /** Tokens that a sequence may have. */
  Index maxPositions() const { return m_rope.maxPositions(); }

  /** The last layer before the vocabulary, hidden×tokens. Throws std::out_of_range for tokens and positions that the
   * model does not have, std::invalid_argument for sizes that do not fit. */
  Var features(Tape& tape, const Batch& batch, const ForwardOptions& options = {});

  /** As above for tokens that follow those in \a cache, whose keys and values it then holds; its lengths are the
   * caller's to set. Under a NoGradGuard. \tparam Integers  Eigen::VectorXi, or gpu::DeviceView<const int> */
  template <typename Integers>
  Var features(Tape& tape, const Integers& tokens, Cache& cache, const ad::CachedTokens<Integers>& where);

  /** Scores of the token after each, vocabulary×tokens. */
  Var logits(const Var& features);

  /** Cross-entropy of the batch's targets, in nats: 1×1. */
  Var loss(Tape& tape, const Batch& batch, ad::Reduction reduction = ad::Reduction::Mean,
           const ForwardOptions& options = {});

  Dense& embedding() { return m_embedding; }  // hidden×vocabulary
  std::vector<Layer>& layers() { return m_layers; }
  Dense& norm() { return m_norm; }
  const ad::RopeTable<Scalar, Place>& ropeTable() const { return m_rope; }
  /** Null where the embedding is tied: then the scores are those of its columns. */
  Projection* head() { return m_head ? &*m_head : nullptr; }

  /** Calls f(Projection&) for every projection in the order of the model; last the head, unless it is tied. */
  template <typename F>
  void forEachLinear(const F& f);
  /** Calls f(Dense&) for every matrix that is dense: embedding, norms, biases, dense projections. */
  template <typename F>
  void forEachDense(const F& f);
  /** The projection of that name, "model.layers.0.self_attn.q_proj", or null. */
  Projection* find(const std::string& name);

  /** What an optimiser steps: trainable dense matrices, then the matrices of adapters, in a fixed order. */
  std::vector<Parameter*> trainable();

  /** Bytes of all weights as they are stored, without adapters. */
  Index sizeInBytes();

  /** By which a base model is known again: a hash of a sample of each frozen weight, about a thousand codes or values
   * and as many statistics, as they were before they went to their place. Nothing is read for it on a device. What
   * config() says beside them, rope_theta for example, is not in it. */
  std::uint64_t checksum();

 private:
  Layer makeLayer(WeightSource& source, Index i) const;
  Dense makeNorm(WeightSource& source, const std::string& module) const;
  Projection makeLinear(WeightSource& source, const std::string& module, Index out, Index in, bool bias) const;

  /** The residual stream: x + update, or x where there is no update yet. The sum is left to the norm that reads it. */
  struct Stream {
    Var x, update;
  };

  template <typename Tokens>
  Var embedded(Tape& tape, const Tokens& tokens);
  /** \returns f(the embedding, transposed, as linear() takes it). */
  template <typename F>
  Var withTiedHead(Tape& tape, const F& f);
  template <typename Tokens, typename Attend>
  Var run(Tape& tape, const Tokens& tokens, const Attend& attend, const ForwardOptions& options);
  template <typename Attend>
  Stream block(Layer& layer, Index i, const Stream& in, const Attend& attend) const;
  /** \returns the stream and its norm. */
  std::pair<Var, Var> normed(const Stream& in, Dense& gain) const;

  LlamaConfig m_config;
  ad::RopeTable<Scalar, Place> m_rope;
  Dense m_embedding;
  std::vector<Layer> m_layers;
  Dense m_norm;
  std::optional<Projection> m_head;
};

}  // namespace llm
}  // namespace EigenQ

#include "LlamaImpl.h"

#endif  // EIGENQ_LLM_LLAMA_H
