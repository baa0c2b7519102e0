// SPDX-License-Identifier: MPL-2.0
// What generation keeps of the tokens so far.
#ifndef EIGENQ_LLM_KV_CACHE_H
#define EIGENQ_LLM_KV_CACHE_H

#include <vector>

#include "LlamaConfig.h"

#include "../../Autodiff"

namespace EigenQ {
namespace llm {

/** The sizes of a layer's attention. */
inline ad::AttentionHeads attentionHeads(const LlamaConfig& config, Index layer) {
  return {config.numAttentionHeads, config.numKeyValueHeads, config.headDim, config.window(layer)};
}

/** Keys and values of every layer, for some sequences of at most \a capacity tokens each, and how many each has. */
template <typename Scalar_, typename Place_ = ad::Host>
class KvCache {
 public:
  using Scalar = Scalar_;
  using Place = Place_;
  using Layer = ad::AttentionCache<Scalar, Place>;

  /** On a device: in memory of the current context. */
  KvCache(const LlamaConfig& config, Index sequences, Index capacity)
      : m_capacity(capacity), m_lengths(Eigen::VectorXi::Zero(sequences)) {
    m_layers.reserve(static_cast<std::size_t>(config.numHiddenLayers));
    for (Index i = 0; i < config.numHiddenLayers; ++i)
      m_layers.emplace_back(attentionHeads(config, i), sequences, capacity);
  }

  Index sequences() const { return m_lengths.size(); }
  Index capacity() const { return m_capacity; }
  Layer& layer(Index i) { return m_layers[static_cast<std::size_t>(i)]; }

  /** Tokens of each sequence that have been written. */
  const Eigen::VectorXi& lengths() const { return m_lengths; }
  /** To begin anew, or to take back tokens: what lies behind the lengths is never read. */
  void setLengths(const Eigen::Ref<const Eigen::VectorXi>& lengths) {
    eigen_assert(lengths.size() == m_lengths.size() && "KvCache: expected one length a sequence");
    m_lengths = lengths;
  }
  void clear() { m_lengths.setZero(); }

 private:
  Index m_capacity;
  Eigen::VectorXi m_lengths;
  std::vector<Layer> m_layers;
};

}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_LLM_KV_CACHE_H
