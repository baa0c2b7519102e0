// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_OPS_ATTENTION_H
#define EIGENQ_OPS_ATTENTION_H

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include <type_traits>

#include <eigen_q/src/FloatKernels.h>

#include "../Tape.h"

namespace EigenQ {
namespace ad {

/** Heads of an attention layer. Query head h reads key/value head h / (heads / kvHeads): grouped-query attention. */
struct AttentionHeads {
  Eigen::Index heads = 1;
  Eigen::Index kvHeads = 1;
  Eigen::Index headDim = 1;
  /** 0: a token sees all earlier ones. w: itself and the w - 1 before it, key position > query position - w, which is
   * what transformers' sliding_window_overlay says of a config's sliding_window. */
  Eigen::Index window = 0;
};

namespace internal {

// Queries per block. The score block is keys×64 floats: 64 KiB at 256 keys, so it stays in the L2 cache between the
// product that fills it, the softmax and the product that consumes it.
constexpr Eigen::Index kAttentionBlock = 64;

/** Some consecutive queries of one head, and the keys that they see. */
struct AttentionBlock {
  Eigen::Index head, kvHead;
  Eigen::Index key, keys;  // first column and count
  Eigen::Index query, queries;
  Eigen::Index position;  // of the first query, counted from the first key
  Eigen::Index window;

  /** Query j sees the block's keys begin(j) … end(j) - 1. */
  Eigen::Index end(Eigen::Index j) const { return position + j + 1; }
  Eigen::Index begin(Eigen::Index j) const { return window > 0 ? std::max<Eigen::Index>(0, end(j) - window) : 0; }
};

/** Queries from token \a position on, of a sequence whose keys start at column \a firstKey. */
inline AttentionBlock attentionBlock(const AttentionHeads& heads, Eigen::Index head, Eigen::Index firstKey,
                                     Eigen::Index position, Eigen::Index query, Eigen::Index queries) {
  const Eigen::Index hidden = heads.window > 0 ? std::max<Eigen::Index>(0, position + 1 - heads.window) : 0;
  return {head,
          head / (heads.heads / heads.kvHeads),
          firstKey + hidden,
          position + queries - hidden,
          query,
          queries,
          position - hidden,
          heads.window};
}

/** Most keys that a block sees of a sequence of \a tokens. */
inline Eigen::Index mostKeys(const AttentionHeads& heads, Eigen::Index tokens) {
  return heads.window > 0 ? std::min(tokens, heads.window + kAttentionBlock - 1) : tokens;
}

/** The softmax of a column of scores in place. \returns the log-sum-exp */
template <typename Column>
auto softmaxInPlace(Column&& scores) {
  const auto top = scores.maxCoeff();
  scores = (scores.array() - top).exp();
  const auto total = scores.sum();
  scores /= total;
  return top + std::log(total);
}

template <typename Scalar>
class CausalAttention {
 public:
  using Matrix = Eigen::MatrixX<Scalar>;
  using In = Eigen::Map<const Matrix>;
  using Out = Eigen::Map<Matrix>;
  using Block = AttentionBlock;

  explicit CausalAttention(const AttentionHeads& heads)
      : m_heads(heads), m_scale(static_cast<Scalar>(1 / std::sqrt(static_cast<double>(heads.headDim)))) {}

  /** o of one block. \param buffer  keys×queries \param lse  null, or heads×tokens: the log-sum-exp of each query's
   * scores. */
  void attend(const In& q, const In& k, const In& v, const Block& b, Scalar* buffer, Out& o, Out* lse) const {
    Out p(buffer, b.keys, b.queries);
    scores(q, k, b, p);
    for (Eigen::Index j = 0; j < b.queries; ++j) {
      const Scalar norm = softmaxInPlace(visible(p, b, j));
      hideOthers(p, b, j);
      if (lse) (*lse)(b.head, b.query + j) = norm;
    }
    part(o, b.head, b.query, b.queries).noalias() = part(v, b.kvHead, b.key, b.keys) * p;
  }

  /** o of one query of every head; \a b is the block of any of them. The heads of a group share their keys, so that
   * they are the columns of one product. \param buffer  keys×(heads / kvHeads) */
  void attendOne(const In& q, const In& k, const In& v, const Block& b, Scalar* buffer, Out& o) const {
    const Eigen::Index group = m_heads.heads / m_heads.kvHeads;
    for (Eigen::Index h = 0; h < m_heads.kvHeads; ++h) {
      const Eigen::Index first = b.query * q.rows() + h * group * m_heads.headDim;
      Out p(buffer, b.keys, group);
      p.noalias() = part(k, h, b.key, b.keys).transpose() * (m_scale * In(q.data() + first, m_heads.headDim, group));
      for (Eigen::Index j = 0; j < group; ++j) softmaxInPlace(p.col(j));
      Out(o.data() + first, m_heads.headDim, group).noalias() = part(v, h, b.key, b.keys) * p;
    }
  }

  /** o = attention(q, k, v) of packed sequences. */
  void forward(const In& q, const In& k, const In& v, const Eigen::Map<const Eigen::VectorXi>& offsets,
               Scratch<Scalar>& scratch, Out o, Out lse) const {
    Scalar* const buffer = scratch.matrix(mostKeys(m_heads, longest(offsets)), kAttentionBlock).data();
    forEachBlock(offsets, [&](const Block& b) { attend(q, k, v, b, buffer, o, &lse); });
  }

  /** Adds to dq, dk, dv where they are not null. P is recomputed from lse. With D = Σ ō ∘ o for each query:
   * v̄ += ō Pᵀ,  S̄ = P ∘ (vᵀ ō - D),  q̄ += k S̄·scale,  k̄ += q S̄ᵀ·scale. */
  void backward(const In& q, const In& k, const In& v, const In& o, const In& lse, const In& d_o,
                const Eigen::Map<const Eigen::VectorXi>& offsets, Scratch<Scalar>& scratch, Out* dq, Out* dk,
                Out* dv) const {
    const Eigen::Index most = mostKeys(m_heads, longest(offsets));
    Scalar* const buffer = scratch.matrix(most, kAttentionBlock).data();
    Scalar* const dBuffer = scratch.matrix(most, kAttentionBlock).data();
    forEachBlock(offsets, [&](const Block& b) {
      Out p(buffer, b.keys, b.queries);
      Out ds(dBuffer, b.keys, b.queries);
      scores(q, k, b, p);
      for (Eigen::Index j = 0; j < b.queries; ++j) {
        auto column = visible(p, b, j).array();
        column = (column - lse(b.head, b.query + j)).exp();
        hideOthers(p, b, j);
      }
      const auto dOut = part(d_o, b.head, b.query, b.queries);
      if (dv) part(*dv, b.kvHead, b.key, b.keys).noalias() += dOut * p.transpose();
      if (!dq && !dk) return;
      ds.noalias() = part(v, b.kvHead, b.key, b.keys).transpose() * dOut;
      const auto out = part(o, b.head, b.query, b.queries);
      for (Eigen::Index j = 0; j < b.queries; ++j)
        ds.col(j).array() = m_scale * p.col(j).array() * (ds.col(j).array() - dOut.col(j).dot(out.col(j)));
      if (dq) part(*dq, b.head, b.query, b.queries).noalias() += part(k, b.kvHead, b.key, b.keys) * ds;
      if (dk) part(*dk, b.kvHead, b.key, b.keys).noalias() += part(q, b.head, b.query, b.queries) * ds.transpose();
    });
  }

 private:
  template <typename F>
  void forEachBlock(const Eigen::Map<const Eigen::VectorXi>& offsets, const F& f) const {
    for (Eigen::Index s = 0; s + 1 < offsets.size(); ++s)
      for (Eigen::Index h = 0; h < m_heads.heads; ++h)
        for (Eigen::Index t = offsets(s); t < offsets(s + 1); t += kAttentionBlock)
          f(attentionBlock(m_heads, h, offsets(s), t - offsets(s), t,
                           std::min<Eigen::Index>(kAttentionBlock, offsets(s + 1) - t)));
  }

  /** One head (rows) of some tokens (columns). */
  template <typename M>
  auto part(M& m, Eigen::Index head, Eigen::Index token, Eigen::Index tokens) const {
    return m.block(head * m_heads.headDim, token, m_heads.headDim, tokens);
  }

  static auto visible(Out& p, const Block& b, Eigen::Index j) {
    return p.col(j).segment(b.begin(j), b.end(j) - b.begin(j));
  }
  static void hideOthers(Out& p, const Block& b, Eigen::Index j) {
    p.col(j).head(b.begin(j)).setZero();
    p.col(j).tail(b.keys - b.end(j)).setZero();
  }

  void scores(const In& q, const In& k, const Block& b, Out& s) const {
    s.noalias() = part(k, b.kvHead, b.key, b.keys).transpose() * (m_scale * part(q, b.head, b.query, b.queries));
  }

  static Eigen::Index longest(const Eigen::Map<const Eigen::VectorXi>& offsets) {
    Eigen::Index n = 0;
    for (Eigen::Index s = 0; s + 1 < offsets.size(); ++s) n = std::max<Eigen::Index>(n, offsets(s + 1) - offsets(s));
    return n;
  }

  AttentionHeads m_heads;
  Scalar m_scale;
};

/** The same in float, by the library's kernels. */
template <>
class CausalAttention<float> {
 public:
  using In = Eigen::Map<const Eigen::MatrixXf>;
  using Out = Eigen::Map<Eigen::MatrixXf>;
  using Sequence = EigenQ::internal::AttentionSequence;

  explicit CausalAttention(const AttentionHeads& h) {
    m_call.heads = h.heads;
    m_call.kvHeads = h.kvHeads;
    m_call.headDim = h.headDim;
    m_call.window = h.window;
    m_call.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(h.headDim)));
  }

  /** o of the queries of \a count sequences. */
  void attend(const In& q, const In& k, const In& v, const Sequence* sequences, Eigen::Index count, Out o) const {
    EigenQ::internal::floatKernels().attend(call(q, k, v, sequences, count, o.data(), nullptr));
  }

  void forward(const In& q, const In& k, const In& v, const Eigen::Map<const Eigen::VectorXi>& offsets,
               Scratch<float>& scratch, Out o, Out lse) const {
    const Eigen::Index count = offsets.size() - 1;
    EigenQ::internal::floatKernels().attend(call(q, k, v, sequencesOf(offsets, scratch), count, o.data(), lse.data()));
  }

  void backward(const In& q, const In& k, const In& v, const In& o, const In& lse, const In& d_o,
                const Eigen::Map<const Eigen::VectorXi>& offsets, Scratch<float>& scratch, Out* dq, Out* dk,
                Out* dv) const {
    // const_cast: backward reads o and lse.
    const auto forward = call(q, k, v, sequencesOf(offsets, scratch), offsets.size() - 1, const_cast<float*>(o.data()),
                              const_cast<float*>(lse.data()));
    const auto orNull = [](Out* m) { return m ? m->data() : nullptr; };
    EigenQ::internal::floatKernels().attendBackward({forward, d_o.data(), orNull(dq), orNull(dk), orNull(dv)});
  }

 private:
  static const Sequence* sequencesOf(const Eigen::Map<const Eigen::VectorXi>& offsets, Scratch<float>& scratch) {
    Sequence* const sequences = scratch.allocate<Sequence>(offsets.size() - 1);
    for (Eigen::Index s = 0; s + 1 < offsets.size(); ++s)
      sequences[s] = {offsets(s), 0, offsets(s), offsets(s + 1) - offsets(s)};
    return sequences;
  }

  EigenQ::internal::FloatAttention call(const In& q, const In& k, const In& v, const Sequence* sequences,
                                        Eigen::Index count, float* o, float* lse) const {
    EigenQ::internal::FloatAttention call = m_call;
    call.sequences = sequences;
    call.count = count;
    call.q = q.data();
    call.k = k.data();
    call.v = v.data();
    call.o = o;
    call.lse = lse;
    return call;
  }

  EigenQ::internal::FloatAttention m_call;
};

inline void checkHeads(const char* op, const AttentionHeads& h) {
  if (h.kvHeads < 1 || h.heads < 1 || h.headDim < 1 || h.heads % h.kvHeads != 0 || h.window < 0)
    throw std::invalid_argument(std::string(op) +
                                ": expected positive sizes, heads a multiple of kvHeads and a window of 0 or more, "
                                "found " +
                                std::to_string(h.heads) + " heads, " + std::to_string(h.kvHeads) +
                                " kvHeads, headDim " + std::to_string(h.headDim) + ", window " +
                                std::to_string(h.window));
}

/** Throws std::invalid_argument unless they ascend from 0 to \a tokens. */
inline void checkOffsets(const char* op, const Eigen::Ref<const Eigen::VectorXi>& offsets, Eigen::Index tokens) {
  bool ascending = offsets.size() > 0 && offsets(0) == 0 && offsets(offsets.size() - 1) == tokens;
  for (Eigen::Index i = 1; ascending && i < offsets.size(); ++i) ascending = offsets(i - 1) <= offsets(i);
  if (!ascending)
    throw std::invalid_argument(std::string(op) + ": expected sequence offsets that ascend from 0 to the " +
                                std::to_string(tokens) + " tokens");
}

template <typename V>
void assertAttentionShapes(const V& q, const V& k, const V& v, const AttentionHeads& heads) {
  eigen_assert(q.rows() == heads.heads * heads.headDim && "causalAttention: q is not (heads * headDim) x tokens");
  eigen_assert(k.rows() == heads.kvHeads * heads.headDim && k.cols() == q.cols() &&
               "causalAttention: k is not (kvHeads * headDim) x tokens");
  eigen_assert(v.rows() == k.rows() && v.cols() == k.cols() && "causalAttention: v and k differ in shape");
  EIGEN_UNUSED_VARIABLE(q);
  EIGEN_UNUSED_VARIABLE(k);
  EIGEN_UNUSED_VARIABLE(v);
  EIGEN_UNUSED_VARIABLE(heads);
}
}  // namespace internal

/** Causal softmax attention over packed sequences: softmax(kᵀ q / √headDim), each token over itself and the earlier
 * tokens of its own sequence, or with a window the last of them. With a window the cost grows with tokens·window.
 * \param q  (heads·headDim)×tokens. \param k, v  (kvHeads·headDim)×tokens.
 * \param offsets  sequence s is the columns offsets(s) … offsets(s + 1) - 1; the first is 0, the last is tokens.
 * Saves one log-sum-exp per head and token; scores are recomputed in blocks, never stored as a whole.
 * Throws std::invalid_argument for heads or offsets that do not fit.
 * Sources: Ainslie et al., GQA, arXiv:2305.13245; Dao, FlashAttention-2, arXiv:2307.08691; the window: Jiang et al.,
 * Mistral 7B, arXiv:2310.06825. */
template <typename Scalar>
Var<Scalar> causalAttention(const Var<Scalar>& q, const Var<Scalar>& k, const Var<Scalar>& v,
                            const AttentionHeads& heads, const Eigen::Ref<const Eigen::VectorXi>& offsets) {
  internal::checkHeads("causalAttention", heads);
  internal::checkOffsets("causalAttention", offsets, q.cols());
  internal::assertAttentionShapes(q, k, v, heads);
  Tape<Scalar>& tape = q.tape();
  const internal::CausalAttention<Scalar> attention(heads);
  const auto kept = tape.keep(offsets);
  ArenaMatrix<Scalar> o = tape.newMatrix(q.rows(), q.cols());
  ArenaMatrix<Scalar> lse = tape.newMatrix(heads.heads, q.cols());
  {
    Scratch<Scalar> scratch(tape);
    attention.forward(q.value(), k.value(), v.value(), kept, scratch, o, lse);
  }
  return tape.record("causalAttention", {q, k, v}, o, [=](const auto& dy, const auto& y) {
    using Map = Eigen::Map<Eigen::MatrixX<Scalar>>;
    const auto gradOf = [](const Var<Scalar>& x) { return x.requiresGrad() ? x.grad() : Map(nullptr, 0, 0); };
    Map dq = gradOf(q), dk = gradOf(k), dv = gradOf(v);
    const auto orNull = [](const Var<Scalar>& x, Map& grad) { return x.requiresGrad() ? &grad : nullptr; };
    const Eigen::Map<const Eigen::MatrixX<Scalar>> saved(lse.data(), lse.rows(), lse.cols());
    Scratch<Scalar> scratch(q.tape());
    attention.backward(q.value(), k.value(), v.value(), y, saved, dy, kept, scratch, orNull(q, dq), orNull(k, dk),
                       orNull(v, dv));
  });
}

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPS_ATTENTION_H
