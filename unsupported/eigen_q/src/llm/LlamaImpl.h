// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_LLM_LLAMA_IMPL_H
#define EIGENQ_LLM_LLAMA_IMPL_H

#include <algorithm>

#include "Llama.h"

namespace EigenQ {
namespace llm {

template <typename Scalar, typename Place>
Llama<Scalar, Place>::Llama(WeightSource& source, Index maxPositions)
    : m_config(source.config()),
      m_rope(m_config.ropeFrequencies(),
             maxPositions > 0 ? maxPositions : std::min(m_config.maxPositionEmbeddings, kUsualPositions)),
      m_embedding(source.embedding("model.embed_tokens.weight", m_config.hiddenSize, m_config.vocabSize),
                  "model.embed_tokens.weight") {
  m_layers.reserve(static_cast<std::size_t>(m_config.numHiddenLayers));
  for (Index i = 0; i < m_config.numHiddenLayers; ++i) m_layers.push_back(makeLayer(source, i));
  m_norm = makeNorm(source, "model.norm");
  if (!m_config.tieWordEmbeddings)
    m_head = makeLinear(source, "lm_head", m_config.vocabSize, m_config.hiddenSize, /*bias=*/false);
  source.finish();
}

template <typename Scalar, typename Place>
auto Llama<Scalar, Place>::makeLayer(WeightSource& source, Index i) const -> Layer {
  const LlamaConfig& c = m_config;
  const std::string at = "model.layers." + std::to_string(i) + ".";
  const std::string attention = at + "self_attn.", mlp = at + "mlp.";
  const Index hidden = c.hiddenSize, ffn = c.intermediateSize;
  const Index queries = c.numAttentionHeads * c.headDim, keys = c.numKeyValueHeads * c.headDim;
  Layer layer;
  layer.attentionNorm = makeNorm(source, at + "input_layernorm");
  layer.query = makeLinear(source, attention + "q_proj", queries, hidden, c.hasQueryKeyValueBias());
  layer.key = makeLinear(source, attention + "k_proj", keys, hidden, c.hasQueryKeyValueBias());
  layer.value = makeLinear(source, attention + "v_proj", keys, hidden, c.hasQueryKeyValueBias());
  layer.output = makeLinear(source, attention + "o_proj", hidden, queries, c.hasOutputBias());
  layer.ffnNorm = makeNorm(source, at + "post_attention_layernorm");
  layer.gate = makeLinear(source, mlp + "gate_proj", ffn, hidden, c.hasMlpBias());
  layer.up = makeLinear(source, mlp + "up_proj", ffn, hidden, c.hasMlpBias());
  layer.down = makeLinear(source, mlp + "down_proj", hidden, ffn, c.hasMlpBias());
  return layer;
}

template <typename Scalar, typename Place>
auto Llama<Scalar, Place>::makeNorm(WeightSource& source, const std::string& module) const -> Dense {
  return Dense(source.vector(module + ".weight", m_config.hiddenSize), module + ".weight");
}

template <typename Scalar, typename Place>
auto Llama<Scalar, Place>::makeLinear(WeightSource& source, const std::string& module, Index out, Index in,
                                      bool bias) const -> Projection {
  Eigen::MatrixXf b;
  if (bias) b = source.vector(module + ".bias", out);
  return Projection(module, source.projection(module, out, in), b);
}

template <typename Scalar, typename Place>
template <typename Attend>
auto Llama<Scalar, Place>::block(Layer& layer, Index i, const Stream& in, const Attend& attend) const -> Stream {
  const auto [x, h] = normed(in, layer.attentionNorm);
  const Var attention = attend(i, layer.query(h), layer.key(h), layer.value(h));
  const auto [y, g] = normed({x, layer.output(attention)}, layer.ffnNorm);
  return {y, layer.down(swiglu(layer.gate(g), layer.up(g)))};
}

template <typename Scalar, typename Place>
auto Llama<Scalar, Place>::normed(const Stream& in, Dense& gain) const -> std::pair<Var, Var> {
  const Var g = gain.on(in.x.tape());
  if (!in.update) return {in.x, rmsNorm(in.x, g, m_config.rmsNormEps)};
  const auto both = addRmsNorm(in.x, in.update, g, m_config.rmsNormEps);
  return {both.sum, both.norm};
}

template <typename Scalar, typename Place>
template <typename Tokens, typename Attend>
auto Llama<Scalar, Place>::run(Tape& tape, const Tokens& tokens, const Attend& attend, const ForwardOptions& options)
    -> Var {
  Stream stream{embedded(tape, tokens), {}};
  for (Layer& layer : m_layers) {
    const Index i = &layer - m_layers.data();
    if (!options.checkpointLayers) {
      stream = block(layer, i, stream, attend);
      continue;
    }
    const auto whole = [=, &layer](const Var& in) {  // by value: backward() runs the layer again when this is over
      const Stream out = block(layer, i, {in, {}}, attend);
      return out.x + out.update;
    };
    stream = {ad::checkpoint(tape, whole, stream.x), {}};
  }
  return normed(stream, m_norm).second;
}

template <typename Scalar, typename Place>
template <typename Tokens>
auto Llama<Scalar, Place>::embedded(Tape& tape, const Tokens& tokens) -> Var {
  if constexpr (Dense::kNarrows)
    if (const ad::NarrowMatrix* const narrow = m_embedding.narrow()) return ad::embedding(tape, *narrow, tokens);
  return ad::embedding(tape, m_embedding.on(tape), tokens);
}

template <typename Scalar, typename Place>
template <typename F>
auto Llama<Scalar, Place>::withTiedHead(Tape& tape, const F& f) -> Var {
  if constexpr (Dense::kNarrows)
    if (const ad::NarrowMatrix* const narrow = m_embedding.narrow()) return f(narrow->operand().transpose());
  return f(internal::TiedHead<Scalar, Place>{m_embedding.on(tape)});
}

template <typename Scalar, typename Place>
auto Llama<Scalar, Place>::features(Tape& tape, const Batch& batch, const ForwardOptions& options) -> Var {
  ad::internal::checkPositions(batch.positions, batch.size(), maxPositions());
  ad::internal::checkOffsets("Llama::features", batch.offsets, batch.size());
  const auto positions = tape.keep(batch.positions), offsets = tape.keep(batch.offsets);
  const auto attend = [this, positions, offsets](Index layer, const Var& q, const Var& k, const Var& v) {
    return causalAttention(rope(q, m_rope, positions), rope(k, m_rope, positions), v, attentionHeads(m_config, layer),
                           offsets);
  };
  return run(tape, batch.tokens, attend, options);
}

template <typename Scalar, typename Place>
template <typename Integers>
auto Llama<Scalar, Place>::features(Tape& tape, const Integers& tokens, Cache& cache,
                                    const ad::CachedTokens<Integers>& where) -> Var {
  const auto attend = [&](Index layer, const Var& q, const Var& k, const Var& v) {
    return cachedAttention(ropeAndAppend(cache.layer(layer), q, k, v, m_rope, where), cache.layer(layer), where);
  };
  return run(tape, tokens, attend, {});
}

template <typename Scalar, typename Place>
auto Llama<Scalar, Place>::logits(const Var& features) -> Var {
  if (m_head) return (*m_head)(features);
  return withTiedHead(features.tape(),
                      [&](auto&& head) { return ad::linear(std::forward<decltype(head)>(head), features); });
}

template <typename Scalar, typename Place>
auto Llama<Scalar, Place>::loss(Tape& tape, const Batch& batch, ad::Reduction reduction, const ForwardOptions& options)
    -> Var {
  const Var h = features(tape, batch, options);
  // The scores of all tokens are the largest matrix of a step: in chunks, where no gradient needs them in another form.
  if (m_head && !m_head->adapter()) return m_head->loss(h, batch.targets, kIgnoredTarget, reduction);
  if (!m_head && !m_embedding.trainable())
    return withTiedHead(tape, [&](auto&& head) {
      return linearCrossEntropy(std::forward<decltype(head)>(head), h, batch.targets, kIgnoredTarget, reduction);
    });
  return crossEntropy(logits(h), batch.targets, kIgnoredTarget, reduction);
}

template <typename Scalar, typename Place>
template <typename F>
void Llama<Scalar, Place>::forEachLinear(const F& f) {
  for (Layer& l : m_layers)
    for (Projection* linear : {&l.query, &l.key, &l.value, &l.output, &l.gate, &l.up, &l.down}) f(*linear);
  if (m_head) f(*m_head);
}

template <typename Scalar, typename Place>
template <typename F>
void Llama<Scalar, Place>::forEachDense(const F& f) {
  f(m_embedding);
  for (Layer& l : m_layers) {
    f(l.attentionNorm);
    f(l.ffnNorm);
  }
  f(m_norm);
  forEachLinear([&f](Projection& linear) {
    if (Dense* weight = linear.denseWeight()) f(*weight);
    if (Dense* bias = linear.bias()) f(*bias);
  });
}

template <typename Scalar, typename Place>
auto Llama<Scalar, Place>::find(const std::string& name) -> Projection* {
  Projection* found = nullptr;
  forEachLinear([&](Projection& linear) {
    if (linear.name() == name) found = &linear;
  });
  return found;
}

template <typename Scalar, typename Place>
auto Llama<Scalar, Place>::trainable() -> std::vector<Parameter*> {
  std::vector<Parameter*> parameters;
  forEachDense([&parameters](Dense& dense) {
    if (Parameter* p = dense.parameter()) parameters.push_back(p);
  });
  forEachLinear([&parameters](Projection& linear) {
    if (!linear.adapter()) return;
    parameters.push_back(&linear.adapter()->a);
    parameters.push_back(&linear.adapter()->b);
  });
  return parameters;
}

template <typename Scalar, typename Place>
Index Llama<Scalar, Place>::sizeInBytes() {
  Index bytes = m_embedding.sizeInBytes() + m_norm.sizeInBytes();
  for (const Layer& l : m_layers) bytes += l.attentionNorm.sizeInBytes() + l.ffnNorm.sizeInBytes();
  forEachLinear([&bytes](const Projection& linear) { bytes += linear.sizeInBytes(); });
  return bytes;
}

template <typename Scalar, typename Place>
std::uint64_t Llama<Scalar, Place>::checksum() {
  std::uint64_t hash = internal::kNoChecksum;
  forEachDense([&hash](const Dense& dense) {
    if (!dense.trainable()) hash = internal::mixed(hash, dense.checksum());
  });
  forEachLinear([&hash](const Projection& linear) {
    if (linear.isQuantized()) hash = internal::mixed(hash, linear.checksum());
  });
  return hash;
}

// The host's is compiled in EigenQ::Llm.
extern template class DenseWeight<float, ad::Host>;
extern template class Linear<float, ad::Host>;
extern template class Llama<float, ad::Host>;
extern template ad::Var<float> Llama<float, ad::Host>::features(ad::Tape<float>&, const Eigen::VectorXi&,
                                                                KvCache<float>&, const ad::CachedTokens<>&);

}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_LLM_LLAMA_IMPL_H
