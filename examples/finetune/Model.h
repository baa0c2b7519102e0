// SPDX-License-Identifier: MPL-2.0
// A Llama-style decoder over bytes.
#ifndef EIGENQ_FINETUNE_MODEL_H
#define EIGENQ_FINETUNE_MODEL_H

#include <cmath>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "Batch.h"
#include "Linear.h"
#include "ModelOptions.h"

namespace finetune {

/** One block: x += attention(norm(x)), then x += feed-forward(norm(x)). */
struct Layer {
  Parameter attentionNorm;
  Linear query, key, value, output;
  Parameter ffnNorm;
  Linear gate, up, down;
};

/** Makes weights for the start of training: normal, from one stream of random numbers. */
class Initializer {
 public:
  explicit Initializer(std::uint64_t seed) : m_random(seed) {}

  Eigen::MatrixXf normal(Index rows, Index cols, double deviation) {
    std::normal_distribution<float> draw(0, static_cast<float>(deviation));
    Eigen::MatrixXf m(rows, cols);
    for (float& entry : m.reshaped()) entry = draw(m_random);
    return m;
  }

  /** out×in, of variance gain²/in: it maps inputs of variance 1 to outputs of variance gain². */
  Linear linear(const std::string& name, Index out, Index in, double gain = 1) {
    return {Parameter(normal(out, in, gain / std::sqrt(static_cast<double>(in))), name), {}};
  }

 private:
  std::mt19937_64 m_random;
};

class Model {
 public:
  /** A model that knows nothing yet. */
  Model(const ModelOptions& options, std::uint64_t seed) : Model(options) {
    Initializer init(seed);
    m_embedding = Parameter(init.normal(options.hidden, options.vocabulary, 1), "embedding");
    for (Index i = 0; i < options.layers; ++i) m_layers.push_back(makeLayer(i, init));
    m_norm = makeNorm("norm");
    m_head = init.linear("head", options.vocabulary, options.hidden);
  }

  /** The last layer before the vocabulary, hidden×tokens. */
  Var features(Tape& tape, const Batch& batch) {
    Var x = EigenQ::ad::embedding(tape, m_embedding, batch.tokens);
    for (Layer& layer : m_layers) {
      const Var h = rmsNorm(x, layer.attentionNorm);
      const Var q = rope(layer.query(h), m_rope, batch.positions);
      const Var k = rope(layer.key(h), m_rope, batch.positions);
      x = x + layer.output(causalAttention(q, k, layer.value(h), m_heads, batch.offsets));
      const Var g = rmsNorm(x, layer.ffnNorm);
      x = x + layer.down(swiglu(layer.gate(g), layer.up(g)));
    }
    return rmsNorm(x, m_norm);
  }

  /** Scores of the byte after each token, vocabulary×tokens. */
  Var logits(const Var& features) { return m_head(features); }

  /** Mean cross-entropy of the batch's targets, in nats per byte. */
  Var loss(Tape& tape, const Batch& batch) { return crossEntropy(logits(features(tape, batch)), batch.targets); }

  /** A second model whose weights are \a convert(const Weight&) of this one's; all else is copied. */
  template <typename Convert>
  Model withWeights(const Convert& convert) const {
    const auto linear = [&convert](const Linear& l) {
      Linear copy{convert(l.weight), {}};
      if (l.adapter) copy.adapter = Adapter{clone(l.adapter->a), clone(l.adapter->b), l.adapter->options};
      return copy;
    };
    Model copy(m_options);
    copy.m_embedding = clone(m_embedding);
    for (const Layer& l : m_layers)
      copy.m_layers.push_back(Layer{clone(l.attentionNorm), linear(l.query), linear(l.key), linear(l.value),
                                    linear(l.output), clone(l.ffnNorm), linear(l.gate), linear(l.up), linear(l.down)});
    copy.m_norm = clone(m_norm);
    copy.m_head = linear(m_head);
    return copy;
  }

  Model replica() const {
    return withWeights([](const Weight& w) { return clone(w); });
  }

  const ModelOptions& options() const { return m_options; }

  /** Calls f for every projection and the head, in a fixed order. */
  template <typename F>
  void forEachLinear(const F& f) {
    for (Layer& l : m_layers)
      for (Linear* linear : {&l.query, &l.key, &l.value, &l.output, &l.gate, &l.up, &l.down}) f(*linear);
    f(m_head);
  }

  /** Calls f for every parameter, in a fixed order: embedding, norms, dense weights, adapters. */
  template <typename F>
  void forEachParameter(const F& f) {
    f(m_embedding);
    for (Layer& l : m_layers) {
      f(l.attentionNorm);
      f(l.ffnNorm);
    }
    f(m_norm);
    forEachLinear([&f](Linear& linear) {
      if (auto* p = std::get_if<Parameter>(&linear.weight)) f(*p);
      if (!linear.adapter) return;
      f(linear.adapter->a);
      f(linear.adapter->b);
    });
  }

  /** Those that take gradients. */
  std::vector<Parameter*> trainable() {
    std::vector<Parameter*> parameters;
    forEachParameter([&parameters](Parameter& p) {
      if (p.requiresGrad()) parameters.push_back(&p);
    });
    return parameters;
  }

 private:
  explicit Model(const ModelOptions& o)
      : m_options(o), m_heads{o.heads, o.kvHeads, o.headDim()}, m_rope(o.headDim(), o.context) {}

  Parameter makeNorm(const std::string& name) const { return Parameter(Eigen::VectorXf::Ones(m_options.hidden), name); }

  Layer makeLayer(Index i, Initializer& init) const {
    const std::string at = "layers." + std::to_string(i) + ".";
    const Index hidden = m_options.hidden, ffn = m_options.ffn, kv = m_options.kvHeads * m_options.headDim();
    // 2·layers projections add to the residual stream; so scaled, its variance does not grow with depth.
    const double residual = 1 / std::sqrt(2 * static_cast<double>(m_options.layers));
    return Layer{makeNorm(at + "attention_norm"),
                 init.linear(at + "query", hidden, hidden),
                 init.linear(at + "key", kv, hidden),
                 init.linear(at + "value", kv, hidden),
                 init.linear(at + "output", hidden, hidden, residual),
                 makeNorm(at + "ffn_norm"),
                 init.linear(at + "gate", ffn, hidden),
                 init.linear(at + "up", ffn, hidden),
                 init.linear(at + "down", hidden, ffn, residual)};
  }

  ModelOptions m_options;
  EigenQ::ad::AttentionHeads m_heads;
  EigenQ::ad::RopeTable<float> m_rope;
  Parameter m_embedding;  // hidden×vocabulary
  std::vector<Layer> m_layers;
  Parameter m_norm;
  Linear m_head;
};

/** Freezes what there is and puts an adapter beside every projection and the head. B starts at zero, so that the model
 * computes what it did before (Hu et al., arXiv:2106.09685). */
inline void attachAdapters(Model& model, const AdapterOptions& options, std::uint64_t seed) {
  Initializer init(seed);
  model.forEachParameter([](Parameter& p) { p.setRequiresGrad(false); });
  model.forEachLinear([&](Linear& linear) {
    const double deviation = 1 / std::sqrt(static_cast<double>(linear.cols()));
    linear.adapter = Adapter{Parameter(init.normal(options.rank, linear.cols(), deviation), "lora_a"),
                             Parameter(Eigen::MatrixXf::Zero(linear.rows(), options.rank), "lora_b"),
                             {options.alpha / static_cast<double>(options.rank), options.dropout}};
  });
}

}  // namespace finetune

#endif  // EIGENQ_FINETUNE_MODEL_H
