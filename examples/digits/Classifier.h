// SPDX-License-Identifier: MPL-2.0
// A multilayer perceptron whose hidden weights are trained, in float or through int8 codes of them, or frozen in one of
// EigenQ's formats under trained low-rank adapters (QLoRA).
#ifndef EIGENQ_DIGITS_CLASSIFIER_H
#define EIGENQ_DIGITS_CLASSIFIER_H

#include <cmath>
#include <memory>
#include <optional>
#include <random>
#include <stdexcept>
#include <utility>
#include <variant>
#include <vector>

#include <eigen_q/Core>
#include <unsupported/eigen_q/Autodiff>

#include "Digits.h"

namespace digits {

using Tape = EigenQ::ad::Tape<float>;
using Var = EigenQ::ad::Var<float>;
using Parameter = EigenQ::ad::Parameter<float>;

enum class Format { kFloat, kTrainedInt8, kTrainedLlmInt8, kFrozenFloat, kInt8, kLlmInt8, kNF4, kFP4 };

inline bool isFrozen(Format format) { return format >= Format::kFrozenFloat; }

/** int8 codes that multiply as LLM.int8() does: a view, and what it refers to. */
struct LlmInt8 {
  std::unique_ptr<EigenQ::Int8Matrix> codes;
  EigenQ::ThresholdedInt8 weight;

  LlmInt8(const Eigen::MatrixXf& w, float threshold)
      : codes(std::make_unique<EigenQ::Int8Matrix>(w)), weight(codes->withThreshold(threshold)) {}
};

/** A float weight that multiplies, forwards and backwards, through int8 codes. */
struct TrainedInt8 {
  Parameter weight;
  std::unique_ptr<EigenQ::MatmulLtState> state = std::make_unique<EigenQ::MatmulLtState>();

  TrainedInt8(const Eigen::MatrixXf& w, float threshold) : weight(w) { state->threshold = threshold; }
};

using Weight = std::variant<Parameter, TrainedInt8, EigenQ::Int8Matrix, LlmInt8, EigenQ::NF4Matrix, EigenQ::FP4Matrix>;

inline Weight store(const Eigen::MatrixXf& w, Format format, float threshold) {
  switch (format) {
    case Format::kFloat:
      return Parameter(w);
    case Format::kTrainedInt8:
      return TrainedInt8(w, 0);
    case Format::kTrainedLlmInt8:
      return TrainedInt8(w, threshold);
    case Format::kFrozenFloat:
      return Parameter(w, "", /*requiresGrad=*/false);
    case Format::kInt8:
      return EigenQ::Int8Matrix(w);
    case Format::kLlmInt8:
      return LlmInt8(w, threshold);
    case Format::kNF4:
      return EigenQ::NF4Matrix(w, 64, EigenQ::Statistics::kNested);
    case Format::kFP4:
      return EigenQ::FP4Matrix(w);
  }
  throw std::logic_error("store: no such format");
}

/** Normal entries of the given deviation. */
inline Eigen::MatrixXf gaussian(Index rows, Index cols, float deviation, std::mt19937_64& random) {
  std::normal_distribution<float> normal(0, deviation);
  return Eigen::MatrixXf::NullaryExpr(rows, cols, [&] { return normal(random); });
}

/** y = W x + b, with scale·B A x where the weight is frozen. */
class Layer {
 public:
  Layer(Index out, Index in, Format format, Index rank, float threshold, std::mt19937_64& random)
      : m_weight(store(gaussian(out, in, std::sqrt(2 / float(in)), random), format, threshold)),
        m_bias(Eigen::MatrixXf::Zero(out, 1)) {
    const Eigen::MatrixXf down =
        gaussian(rank, in, std::sqrt(1 / float(in)), random);  // so that all formats draw alike
    if (!isFrozen(format)) return;
    m_down.emplace(down);
    m_up.emplace(Eigen::MatrixXf::Zero(out, rank));
  }

  Var operator()(const Var& x) {
    return std::visit([&](auto& w) { return apply(w, x); }, m_weight);
  }

  void addTo(std::vector<Parameter*>& parameters) {
    if (auto* w = std::get_if<Parameter>(&m_weight); w && w->requiresGrad()) parameters.push_back(w);
    if (auto* w = std::get_if<TrainedInt8>(&m_weight)) parameters.push_back(&w->weight);
    if (m_down) parameters.insert(parameters.end(), {&*m_down, &*m_up});
    parameters.push_back(&m_bias);
  }

 private:
  template <typename W>
  Var apply(W& w, const Var& x) {
    if (!m_down) return EigenQ::ad::linear(w, x, m_bias);
    return EigenQ::ad::loraLinear(w, *m_down, *m_up, x, {/*scale=*/2, /*dropout=*/0}, m_bias);
  }
  Var apply(TrainedInt8& w, const Var& x) { return EigenQ::ad::linear8bit(w.weight, x, *w.state, m_bias); }
  Var apply(LlmInt8& w, const Var& x) { return apply(w.weight, x); }

  Weight m_weight;
  std::optional<Parameter> m_down, m_up;  // A, r×in, and B, out×r
  Parameter m_bias;
};

struct ModelOptions {
  Index hidden = 192;
  Index rank = 32;
  float threshold = 6;  // of LLM.int8()
};

/** Two hidden layers and a head; the head is always float and trained. */
class Classifier {
 public:
  Classifier(const ModelOptions& o, Format format, std::mt19937_64& random)
      : m_first(o.hidden, kPixels, format, o.rank, o.threshold, random),
        m_second(o.hidden, o.hidden, format, o.rank, o.threshold, random),
        m_head(kClasses, o.hidden, Format::kFloat, 0, 0, random) {}

  /** Logits, 10×n. */
  Var operator()(const Var& pixels) { return m_head(relu(m_second(relu(m_first(pixels))))); }

  std::vector<Parameter*> trainable() {
    std::vector<Parameter*> parameters;
    for (Layer* layer : {&m_first, &m_second, &m_head}) layer->addTo(parameters);
    return parameters;
  }

 private:
  Layer m_first, m_second, m_head;
};

}  // namespace digits

#endif  // EIGENQ_DIGITS_CLASSIFIER_H
