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
template <typename Place>
struct Layer {
  Parameter<Place> attentionNorm;
  Linear<Place> query, key, value, output;
  Parameter<Place> ffnNorm;
  Linear<Place> gate, up, down;
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
  Eigen::MatrixXf linear(Index out, Index in, double gain = 1) {
    return normal(out, in, gain / std::sqrt(static_cast<double>(in)));
  }

 private:
  std::mt19937_64 m_random;
};

template <typename Place>
class Model {
 public:
  using Tape = EigenQ::ad::Tape<float, Place>;
  using Var = EigenQ::ad::Var<float, Place>;

  /** A model that knows nothing yet. */
  Model(const ModelOptions& options, std::uint64_t seed) : Model(options) {
    Initializer init(seed);
    m_embedding = Parameter<Place>(init.normal(options.hidden, options.vocabulary, 1), "embedding");
    for (Index i = 0; i < options.layers; ++i) m_layers.push_back(makeLayer(i, init));
    m_norm = makeNorm("norm");
    m_head = {Parameter<Place>(init.linear(options.vocabulary, options.hidden), "head"), {}};
  }

  /** The last layer before the vocabulary, hidden×tokens. \param batch  a Batch, or what has its members on a device.
   */
  template <typename Batch>
  Var features(Tape& tape, const Batch& batch) {
    Var x = embedding(tape, m_embedding, batch.tokens);
    for (Layer<Place>& layer : m_layers) {
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
  template <typename Batch>
  Var loss(Tape& tape, const Batch& batch) {
    return crossEntropy(logits(features(tape, batch)), batch.targets);
  }

  /** A second model whose weights are \a convert(const Weight<Place>&) of this one's; all else is copied. */
  template <typename Convert>
  Model withWeights(const Convert& convert) const {
    const auto linear = [&convert](const Linear<Place>& l) {
      Linear<Place> copy{convert(l.weight), {}};
      if (l.adapter) copy.adapter = Adapter<Place>{clone(l.adapter->a), clone(l.adapter->b), l.adapter->options};
      return copy;
    };
    Model copy(m_options);
    copy.m_embedding = clone(m_embedding);
    for (const Layer<Place>& l : m_layers)
      copy.m_layers.push_back(Layer<Place>{clone(l.attentionNorm), linear(l.query), linear(l.key), linear(l.value),
                                           linear(l.output), clone(l.ffnNorm), linear(l.gate), linear(l.up),
                                           linear(l.down)});
    copy.m_norm = clone(m_norm);
    copy.m_head = linear(m_head);
    return copy;
  }

  Model replica() const {
    return withWeights([](const Weight<Place>& w) { return clone(w); });
  }

  const ModelOptions& options() const { return m_options; }

  /** Calls f for every projection and the head, in a fixed order. */
  template <typename F>
  void forEachLinear(const F& f) {
    for (Layer<Place>& l : m_layers)
      for (Linear<Place>* linear : {&l.query, &l.key, &l.value, &l.output, &l.gate, &l.up, &l.down}) f(*linear);
    f(m_head);
  }

  /** Calls f for every parameter, in a fixed order: embedding, norms, dense weights, adapters. */
  template <typename F>
  void forEachParameter(const F& f) {
    f(m_embedding);
    for (Layer<Place>& l : m_layers) {
      f(l.attentionNorm);
      f(l.ffnNorm);
    }
    f(m_norm);
    forEachLinear([&f](Linear<Place>& linear) {
      if (auto* p = std::get_if<Parameter<Place>>(&linear.weight)) f(*p);
      if (!linear.adapter) return;
      f(linear.adapter->a);
      f(linear.adapter->b);
    });
  }

  /** Those that take gradients. */
  std::vector<Parameter<Place>*> trainable() {
    std::vector<Parameter<Place>*> parameters;
    forEachParameter([&parameters](Parameter<Place>& p) {
      if (p.requiresGrad()) parameters.push_back(&p);
    });
    return parameters;
  }

 private:
  explicit Model(const ModelOptions& o)
      : m_options(o), m_heads{o.heads, o.kvHeads, o.headDim()}, m_rope(o.headDim(), o.context) {}

  Parameter<Place> makeNorm(const std::string& name) const {
    return Parameter<Place>(Eigen::VectorXf::Ones(m_options.hidden), name);
  }

  Layer<Place> makeLayer(Index i, Initializer& init) const {
    const std::string at = "layers." + std::to_string(i) + ".";
    const Index hidden = m_options.hidden, ffn = m_options.ffn, kv = m_options.kvHeads * m_options.headDim();
    // 2·layers projections add to the residual stream; so scaled, its variance does not grow with depth.
    const double residual = 1 / std::sqrt(2 * static_cast<double>(m_options.layers));
    const auto linear = [&](const char* name, Index out, Index in, double gain) {
      return Linear<Place>{Parameter<Place>(init.linear(out, in, gain), at + name), {}};
    };
    return {makeNorm(at + "attention_norm"),
            linear("query", hidden, hidden, 1),
            linear("key", kv, hidden, 1),
            linear("value", kv, hidden, 1),
            linear("output", hidden, hidden, residual),
            makeNorm(at + "ffn_norm"),
            linear("gate", ffn, hidden, 1),
            linear("up", ffn, hidden, 1),
            linear("down", hidden, ffn, residual)};
  }

  ModelOptions m_options;
  EigenQ::ad::AttentionHeads m_heads;
  EigenQ::ad::RopeTable<float, Place> m_rope;
  Parameter<Place> m_embedding;  // hidden×vocabulary
  std::vector<Layer<Place>> m_layers;
  Parameter<Place> m_norm;
  Linear<Place> m_head;
};

/** Freezes what there is and puts an adapter beside every projection and the head. B starts at zero, so that the model
 * computes what it did before (Hu et al., arXiv:2106.09685). */
template <typename Place>
void attachAdapters(Model<Place>& model, const AdapterOptions& options, std::uint64_t seed) {
  Initializer init(seed);
  model.forEachParameter([](Parameter<Place>& p) { p.setRequiresGrad(false); });
  model.forEachLinear([&](Linear<Place>& linear) {
    const double deviation = 1 / std::sqrt(static_cast<double>(linear.cols()));
    linear.adapter = Adapter<Place>{Parameter<Place>(init.normal(options.rank, linear.cols(), deviation), "lora_a"),
                                    Parameter<Place>(Eigen::MatrixXf::Zero(linear.rows(), options.rank), "lora_b"),
                                    {options.alpha / static_cast<double>(options.rank), options.dropout}};
  });
}

}  // namespace finetune

#endif  // EIGENQ_FINETUNE_MODEL_H
