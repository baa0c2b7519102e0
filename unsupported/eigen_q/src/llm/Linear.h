// SPDX-License-Identifier: MPL-2.0
// One projection of the decoder, whatever its weight is stored as.
#ifndef EIGENQ_LLM_LINEAR_H
#define EIGENQ_LLM_LINEAR_H

#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>

#include "Weight.h"

namespace EigenQ {
namespace llm {

/** A low-rank update scale·B A beside a weight. */
template <typename Scalar, typename Place = ad::Host>
struct Adapter {
  using Parameter = ad::Parameter<internal::MasterOf<Scalar>, Place>;

  Parameter a;  // r×in
  Parameter b;  // out×r
  ad::LoraOptions options;
};

/** y = W x + c, or W x + c + scale·B A dropout(x) where an adapter is attached. W is out×in.
 * A tape refers to it by address until its next clear(). */
template <typename Scalar_, typename Place_ = ad::Host>
class Linear {
 public:
  using Scalar = Scalar_;
  using Place = Place_;
  using Var = ad::Var<Scalar, Place>;
  using Dense = DenseWeight<Scalar, Place>;

  Linear() = default;
  /** \param name  the module's path, "model.layers.0.self_attn.q_proj"
   *  \param bias  out×1, or 0×0 for none */
  Linear(std::string name, HostWeight&& weight, const Eigen::Ref<const Eigen::MatrixXf>& bias = Eigen::MatrixXf())
      : m_name(std::move(name)) {
    setWeight(std::move(weight));
    if (bias.size() > 0) m_bias.emplace(bias, m_name + ".bias");
  }

  Var operator()(const Var& x) {
    return withOperand(x.tape(), [&](auto&& w) { return multiply(std::forward<decltype(w)>(w), x); });
  }

  /** crossEntropy((*this)(h), targets), without the scores of all tokens in memory. Without adapter and bias. */
  Var loss(const Var& h, const Eigen::Ref<const Eigen::VectorXi>& targets, int ignoreIndex, ad::Reduction reduction) {
    eigen_assert(!m_adapter && !m_bias && "Linear::loss: neither an adapter nor a bias is supported");
    return withOperand(h.tape(), [&](auto&& w) {
      return ad::linearCrossEntropy(std::forward<decltype(w)>(w), h, targets, ignoreIndex, reduction);
    });
  }

  const std::string& name() const { return m_name; }
  /** The last part of the name, "q_proj": what adapters name as their target. */
  std::string shortName() const { return m_name.substr(m_name.rfind('.') + 1); }
  Index rows() const {
    return std::visit([](const auto& w) { return static_cast<Index>(w.rows()); }, m_weight);
  }
  Index cols() const {
    return std::visit([](const auto& w) { return static_cast<Index>(w.cols()); }, m_weight);
  }

  const Weight<Scalar, Place>& weight() const { return m_weight; }
  void setWeight(HostWeight&& weight) {
    const std::uint64_t checksum = internal::checksumOf(weight);
    m_weight = placed(std::move(weight));
    m_checksum = checksum;
  }
  /** Of the weight as it was given. */
  std::uint64_t checksum() const { return m_checksum; }
  bool isQuantized() const { return !std::holds_alternative<Dense>(m_weight); }
  /** The weight on the host, quantised as it is. From a device it waits for the current context. */
  HostWeight hostWeight() const {
    return std::visit([](const auto& w) { return onHost(w); }, m_weight);
  }

  Dense* denseWeight() { return std::get_if<Dense>(&m_weight); }
  Dense* bias() { return m_bias ? &*m_bias : nullptr; }
  const Dense* bias() const { return m_bias ? &*m_bias : nullptr; }

  std::optional<Adapter<Scalar, Place>>& adapter() { return m_adapter; }
  const std::optional<Adapter<Scalar, Place>>& adapter() const { return m_adapter; }

  /** Bytes of weight and bias as they are stored, statistics included. */
  Index sizeInBytes() const {
    return std::visit([](const auto& w) { return bytesOf(w); }, m_weight) + (m_bias ? m_bias->sizeInBytes() : 0);
  }

 private:
  using Quantized = internal::QuantizedIn<Place>;
  using Int8 = typename Quantized::Int8;

  /** \returns f(the weight as linear() takes it). */
  template <typename F>
  Var withOperand(ad::Tape<Scalar, Place>& tape, const F& f) {
    return std::visit(
        [&](auto& w) {
          using W = std::decay_t<decltype(w)>;
          if constexpr (std::is_same_v<W, Dense>) {
            if constexpr (Dense::kNarrows)
              if (const ad::NarrowMatrix* const narrow = w.narrow()) return f(narrow->operand());
            return f(w.on(tape));
          } else if constexpr (std::is_same_v<W, LlmInt8Weight<Int8>>)
            return f(w.codes.withThreshold(w.threshold));
          else
            return f(w);
        },
        m_weight);
  }
  template <typename W>
  Var multiply(W&& w, const Var& x) {
    const Var c = m_bias ? m_bias->on(x.tape()) : Var();
    if (!m_adapter) return ad::linear(std::forward<W>(w), x, c);
    ad::LoraOptions options = m_adapter->options;
    if (!x.tape().gradEnabled()) options.dropout = 0;  // under a NoGradGuard nobody trains
    return ad::loraLinear(std::forward<W>(w), m_adapter->a, m_adapter->b, x, options, c);
  }

  Weight<Scalar, Place> placed(HostWeight&& weight) const {
    return std::visit([this](auto& w) -> Weight<Scalar, Place> { return this->place(std::move(w)); }, weight);
  }
  Dense place(Eigen::MatrixXf&& w) const { return Dense(w, m_name + ".weight"); }
  LlmInt8Weight<Int8> place(LlmInt8Weight<Int8Matrix>&& w) const {
    return {Quantized::fromHost(std::move(w.codes)), w.threshold};
  }
  template <typename W>
  auto place(W&& w) const {
    return Quantized::fromHost(std::move(w));
  }

  static HostWeight onHost(const Dense& w) { return w.toHost(); }
  static HostWeight onHost(const LlmInt8Weight<Int8>& w) {
    return LlmInt8Weight<Int8Matrix>{Quantized::toHost(w.codes), w.threshold};
  }
  template <typename W>
  static HostWeight onHost(const W& w) {
    return Quantized::toHost(w);
  }

  static Index bytesOf(const Dense& w) { return w.sizeInBytes(); }
  static Index bytesOf(const LlmInt8Weight<Int8>& w) { return Quantized::sizeInBytes(w.codes); }
  template <typename W>
  static Index bytesOf(const W& w) {
    return Quantized::sizeInBytes(w);
  }

  std::string m_name;
  Weight<Scalar, Place> m_weight;
  std::uint64_t m_checksum = internal::kNoChecksum;
  std::optional<Dense> m_bias;
  std::optional<Adapter<Scalar, Place>> m_adapter;
};

}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_LLM_LINEAR_H
