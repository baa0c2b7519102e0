// SPDX-License-Identifier: MPL-2.0
// weight_source.cpp: what weights are stored as, and random ones.
#include <algorithm>
#include <cmath>
#include <utility>

#include <unsupported/eigen_q/src/llm/WeightSource.h>

#include "quantize_weight.h"

namespace EigenQ {
namespace llm {

bool isSkipped(const std::string& module, const std::vector<std::string>& skipModules) {
  const std::string path = "." + module + ".";
  return std::any_of(skipModules.begin(), skipModules.end(),
                     [&path](const std::string& name) { return path.find("." + name + ".") != std::string::npos; });
}

HostWeight quantized(Eigen::MatrixXf&& w, const LoadOptions& options) {
  if (internal::isQuantizing(options.format)) return internal::quantizeWeight(w, options);
  return std::move(w);
}

RandomWeights::RandomWeights(LlamaConfig config, std::uint64_t seed, LoadOptions options)
    : m_config(std::move(config)), m_options(std::move(options)), m_random(seed) {
  m_config.validate();
}

Eigen::MatrixXf RandomWeights::normal(Index rows, Index cols, double deviation) {
  std::normal_distribution<float> draw(0, static_cast<float>(deviation));
  Eigen::MatrixXf m(rows, cols);
  for (Index i = 0; i < m.size(); ++i) m.data()[i] = draw(m_random);
  return m;
}

Eigen::VectorXf RandomWeights::vector(const std::string& name, Index size) {
  const bool bias = name.size() > 5 && name.compare(name.size() - 5, 5, ".bias") == 0;
  return Eigen::VectorXf::Constant(size, bias ? 0.0f : 1.0f);
}

Eigen::MatrixXf RandomWeights::embedding(const std::string&, Index hidden, Index vocabulary) {
  // Tied to the head, it has the head's deviation, or scores would start √hidden times too large.
  return normal(hidden, vocabulary, m_config.tieWordEmbeddings ? 1 / std::sqrt(static_cast<double>(hidden)) : 1);
}

HostWeight RandomWeights::projection(const std::string& module, Index out, Index in) {
  const std::string name = module.substr(module.rfind('.') + 1);
  double deviation = 1 / std::sqrt(static_cast<double>(in));
  if (name == "o_proj" || name == "down_proj")
    deviation /= std::sqrt(2 * static_cast<double>(m_config.numHiddenLayers));
  Eigen::MatrixXf w = normal(out, in, deviation);
  if (isSkipped(module, m_options.skipModules)) return w;
  return quantized(std::move(w), m_options);
}

}  // namespace llm
}  // namespace EigenQ
