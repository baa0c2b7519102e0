// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_LLM_DEVICE_DECODE_STEP_H
#define EIGENQ_LLM_DEVICE_DECODE_STEP_H

#include <memory>
#include <vector>

#include "../DecodeStep.h"
#include "FusedBlocks.h"

namespace EigenQ {
namespace llm {
namespace internal {

/** A step on the device, recorded as a CUDA graph the second time it runs: the first makes all memory and plans.
 *
 * The blocks of a model run as one kernel where that is for them (FusedBlocks.h), or else op by op.
 *
 * Tokens and positions lie on the device. Greedy steps choose the next tokens there, so that the host sends nothing and
 * waits for one integer a sequence. All sequences of the cache take part; those that have ended compute what nobody
 * reads, and beyond the capacity nothing is written. */
template <typename Scalar>
class DecodeStep<Scalar, ad::Device> {
 public:
  using Model = Llama<Scalar, ad::Device>;
  using Cache = KvCache<Scalar, ad::Device>;

  /** \param fuseBlocks  false: op by op, whatever the model. */
  DecodeStep(Model& model, Cache& cache, bool fuseBlocks = true)
      : m_model(model),
        m_cache(cache),
        m_fuseBlocks(fuseBlocks),
        m_context(gpu::Context::current()),
        m_tape(m_context),
        m_tokens(cache.sequences(), 1, m_context),
        m_positions(cache.sequences(), 1, m_context) {}

  ad::Tape<Scalar, ad::Device> newTape() const { return ad::Tape<Scalar, ad::Device>(m_context); }
  static Eigen::MatrixXf hostValue(const ad::Var<Scalar, ad::Device>& x) {
    return x.value().toHost(x.tape().context()).template cast<float>();
  }

  void restart() {
    m_positions.view().copyFromHost(m_cache.lengths(), m_context);
    m_knowsTokens = false;
  }

  const Eigen::MatrixXf& scores(const Eigen::VectorXi& tokens, const std::vector<bool>& active) {
    m_tokens.view().copyFromHost(tokens, m_context);
    m_knowsTokens = false;
    run(m_scoring, /*greedy=*/false);
    m_raw.resize(m_model.config().vocabSize, m_cache.sequences());
    download(m_raw, m_logits);
    m_scores = m_raw.template cast<float>();
    countOn(active);
    return m_scores;
  }

  const Eigen::VectorXi& greedy(const Eigen::VectorXi& tokens, const std::vector<bool>& active) {
    if (!m_knowsTokens) m_tokens.view().copyFromHost(tokens, m_context);
    m_knowsTokens = true;
    run(m_choosing, /*greedy=*/true);
    m_best.resize(m_cache.sequences());
    download(m_best, m_tokens.data());
    countOn(active);
    return m_best;
  }

  /** Why the blocks do not run as one kernel; null where they do. Known behind the first step. */
  const char* refusal() const { return m_refusal; }

 private:
  /** A kind of step: first run as it is, then recorded. */
  struct Recorded {
    bool warm = false;
    gpu::Graph graph;
  };

  void run(Recorded& step, bool greedy) {
    if (m_fuseBlocks && !m_scoring.warm && !m_choosing.warm)
      m_blocks = FusedBlocks<Scalar>::make(m_model, m_cache, m_context, m_refusal);
    if (step.warm && !step.graph) step.graph = gpu::Graph(m_context, [&] { queue(greedy); });
    if (step.graph)
      step.graph.launch();
    else
      queue(greedy);
    step.warm = true;
  }

  void queue(bool greedy) {
    const gpu::ContextGuard onContext(m_context);
    m_tape.clear();
    const ad::NoGradGuard<Scalar, ad::Device> guard(m_tape);
    const auto logits = m_model.logits(features());
    if (greedy) ad::argmax(logits, m_tokens.view());
    ad::advance(m_positions, 1, m_context);
    m_logits = logits.value().data();
  }

  ad::Var<Scalar, ad::Device> features() {
    const Integers tokens = std::as_const(m_tokens).view(), positions = std::as_const(m_positions).view();
    if (!m_blocks) return m_model.features(m_tape, tokens, m_cache, ad::CachedTokens<Integers>{positions, {}});
    const auto x = ad::embedding(m_tape, m_model.embedding().on(m_tape), tokens);
    const auto y = (*m_blocks)(x, m_positions.data());
    return ad::rmsNorm(y, m_model.norm().on(m_tape), m_model.config().rmsNormEps);
  }

  template <typename Host, typename T>
  void download(Host& host, const T* device) {
    gpu::internal::download(host.data(), device, static_cast<std::size_t>(host.size()) * sizeof(T), m_context);
  }

  void countOn(const std::vector<bool>& active) {
    Eigen::VectorXi lengths = m_cache.lengths();
    for (Index s = 0; s < lengths.size(); ++s) lengths(s) += active[static_cast<std::size_t>(s)] ? 1 : 0;
    m_cache.setLengths(lengths);
  }

  using Integers = gpu::DeviceView<const int>;

  Model& m_model;
  Cache& m_cache;
  bool m_fuseBlocks;
  gpu::Context& m_context;
  ad::Tape<Scalar, ad::Device> m_tape;
  gpu::DeviceMatrix<int> m_tokens, m_positions;  // one a sequence
  bool m_knowsTokens = false;                    // whether m_tokens holds what the last greedy step chose
  std::unique_ptr<FusedBlocks<Scalar>> m_blocks;
  const char* m_refusal = m_fuseBlocks ? "no step has been made yet" : "op by op was asked for";
  Recorded m_scoring, m_choosing;
  const Scalar* m_logits = nullptr;  // in the tape's memory, where every step writes them
  Eigen::MatrixX<Scalar> m_raw;
  Eigen::MatrixXf m_scores;
  Eigen::VectorXi m_best;
};

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_LLM_DEVICE_DECODE_STEP_H
