// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_OPS_ATTENTION_H
#define EIGENQ_OPS_ATTENTION_H

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "../Tape.h"

namespace EigenQ {
namespace ad {

/** Heads of an attention layer. Query head h reads key/value head h / (heads / kvHeads): grouped-query attention. */
struct AttentionHeads {
  Eigen::Index heads = 1;
  Eigen::Index kvHeads = 1;
  Eigen::Index headDim = 1;
};

namespace internal {

// Queries per block. The score block is keys×64 floats: 64 KiB at 256 keys, so it stays in the L2 cache between the
// product that fills it, the softmax and the product that consumes it.
constexpr Eigen::Index kAttentionBlock = 64;

template <typename Scalar>
class CausalAttention {
 public:
  using Matrix = Eigen::MatrixX<Scalar>;
  using In = Eigen::Map<const Matrix>;
  using Out = Eigen::Map<Matrix>;

  CausalAttention(const AttentionHeads& heads, const Eigen::Map<const Eigen::VectorXi>& offsets)
      : m_heads(heads),
        m_offsets(offsets),
        m_scale(static_cast<Scalar>(1 / std::sqrt(static_cast<double>(heads.headDim)))) {}

  /** o = attention(q, k, v); lse, heads×tokens: the log-sum-exp of each query's scores. */
  void forward(const In& q, const In& k, const In& v, Scratch<Scalar>& scratch, Out o, Out lse) const {
    Scalar* const buffer = scratch.matrix(longest(), kAttentionBlock).data();
    forEachBlock([&](const Block& b) {
      Out p(buffer, b.keys, b.queries);
      scores(q, k, b, p);
      for (Eigen::Index j = 0; j < b.queries; ++j) {
        auto column = p.col(j).head(b.visible(j));
        const Scalar top = column.maxCoeff();
        column = (column.array() - top).exp();
        const Scalar total = column.sum();
        column /= total;
        p.col(j).tail(b.keys - b.visible(j)).setZero();
        lse(b.head, b.query + j) = top + std::log(total);
      }
      window(o, b.head, b.query, b.queries).noalias() = window(v, b.kvHead, b.key, b.keys) * p;
    });
  }

  /** Adds to dq, dk, dv where they are not null. P is recomputed from lse. With D = Σ ō ∘ o for each query:
   * v̄ += ō Pᵀ,  S̄ = P ∘ (vᵀ ō - D),  q̄ += k S̄·scale,  k̄ += q S̄ᵀ·scale. */
  void backward(const In& q, const In& k, const In& v, const In& o, const In& lse, const In& d_o,
                Scratch<Scalar>& scratch, Out* dq, Out* dk, Out* dv) const {
    Scalar* const buffer = scratch.matrix(longest(), kAttentionBlock).data();
    Scalar* const dBuffer = scratch.matrix(longest(), kAttentionBlock).data();
    forEachBlock([&](const Block& b) {
      Out p(buffer, b.keys, b.queries);
      Out ds(dBuffer, b.keys, b.queries);
      scores(q, k, b, p);
      for (Eigen::Index j = 0; j < b.queries; ++j) {
        auto column = p.col(j).head(b.visible(j)).array();
        column = (column - lse(b.head, b.query + j)).exp();
        p.col(j).tail(b.keys - b.visible(j)).setZero();
      }
      const auto dOut = window(d_o, b.head, b.query, b.queries);
      if (dv) window(*dv, b.kvHead, b.key, b.keys).noalias() += dOut * p.transpose();
      if (!dq && !dk) return;
      ds.noalias() = window(v, b.kvHead, b.key, b.keys).transpose() * dOut;
      const auto out = window(o, b.head, b.query, b.queries);
      for (Eigen::Index j = 0; j < b.queries; ++j)
        ds.col(j).array() = m_scale * p.col(j).array() * (ds.col(j).array() - dOut.col(j).dot(out.col(j)));
      if (dq) window(*dq, b.head, b.query, b.queries).noalias() += window(k, b.kvHead, b.key, b.keys) * ds;
      if (dk) window(*dk, b.kvHead, b.key, b.keys).noalias() += window(q, b.head, b.query, b.queries) * ds.transpose();
    });
  }

 private:
  /** Some consecutive queries of one head of one sequence, and the keys up to the last of them. */
  struct Block {
    Eigen::Index head, kvHead;
    Eigen::Index key, keys;  // first column and count
    Eigen::Index query, queries;
    /** How many of the block's keys query j may see: those up to its own position. */
    Eigen::Index visible(Eigen::Index j) const { return query + j - key + 1; }
  };

  template <typename F>
  void forEachBlock(const F& f) const {
    const Eigen::Index group = m_heads.heads / m_heads.kvHeads;
    for (Eigen::Index s = 0; s + 1 < m_offsets.size(); ++s)
      for (Eigen::Index h = 0; h < m_heads.heads; ++h)
        for (Eigen::Index t = m_offsets(s); t < m_offsets(s + 1); t += kAttentionBlock) {
          const Eigen::Index end = std::min<Eigen::Index>(t + kAttentionBlock, m_offsets(s + 1));
          f(Block{h, h / group, m_offsets(s), end - m_offsets(s), t, end - t});
        }
  }

  /** One head (rows) of some tokens (columns). */
  template <typename M>
  auto window(M& m, Eigen::Index head, Eigen::Index token, Eigen::Index tokens) const {
    return m.block(head * m_heads.headDim, token, m_heads.headDim, tokens);
  }

  void scores(const In& q, const In& k, const Block& b, Out& s) const {
    s.noalias() = window(k, b.kvHead, b.key, b.keys).transpose() * (m_scale * window(q, b.head, b.query, b.queries));
  }

  Eigen::Index longest() const {
    Eigen::Index n = 0;
    for (Eigen::Index s = 0; s + 1 < m_offsets.size(); ++s)
      n = std::max<Eigen::Index>(n, m_offsets(s + 1) - m_offsets(s));
    return n;
  }

  AttentionHeads m_heads;
  Eigen::Map<const Eigen::VectorXi> m_offsets;
  Scalar m_scale;
};

inline void checkHeads(const AttentionHeads& h) {
  if (h.kvHeads < 1 || h.heads < 1 || h.headDim < 1 || h.heads % h.kvHeads != 0)
    throw std::invalid_argument("causalAttention: expected positive sizes and heads a multiple of kvHeads, found " +
                                std::to_string(h.heads) + " heads, " + std::to_string(h.kvHeads) +
                                " kvHeads, headDim " + std::to_string(h.headDim));
}

inline void checkAttention(const AttentionHeads& h, const Eigen::Ref<const Eigen::VectorXi>& offsets,
                           Eigen::Index tokens) {
  checkHeads(h);
  bool ascending = offsets.size() > 0 && offsets(0) == 0 && offsets(offsets.size() - 1) == tokens;
  for (Eigen::Index i = 1; ascending && i < offsets.size(); ++i) ascending = offsets(i - 1) <= offsets(i);
  if (!ascending)
    throw std::invalid_argument("causalAttention: expected sequence offsets that ascend from 0 to the " +
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
 * tokens of its own sequence.
 * \param q  (heads·headDim)×tokens. \param k, v  (kvHeads·headDim)×tokens.
 * \param offsets  sequence s is the columns offsets(s) … offsets(s + 1) - 1; the first is 0, the last is tokens.
 * Saves one log-sum-exp per head and token; scores are recomputed in blocks, never stored as a whole.
 * Throws std::invalid_argument for heads or offsets that do not fit.
 * Sources: Ainslie et al., GQA, arXiv:2305.13245; Dao, FlashAttention-2, arXiv:2307.08691. */
template <typename Scalar>
Var<Scalar> causalAttention(const Var<Scalar>& q, const Var<Scalar>& k, const Var<Scalar>& v,
                            const AttentionHeads& heads, const Eigen::Ref<const Eigen::VectorXi>& offsets) {
  internal::checkAttention(heads, offsets, q.cols());
  internal::assertAttentionShapes(q, k, v, heads);
  Tape<Scalar>& tape = q.tape();
  const internal::CausalAttention<Scalar> attention(heads, tape.keep(offsets));
  ArenaMatrix<Scalar> o = tape.newMatrix(q.rows(), q.cols());
  ArenaMatrix<Scalar> lse = tape.newMatrix(heads.heads, q.cols());
  {
    Scratch<Scalar> scratch(tape);
    attention.forward(q.value(), k.value(), v.value(), scratch, o, lse);
  }
  return tape.record("causalAttention", {q, k, v}, o, [=](const auto& dy, const auto& y) {
    using Map = Eigen::Map<Eigen::MatrixX<Scalar>>;
    const auto gradOf = [](const Var<Scalar>& x) { return x.requiresGrad() ? x.grad() : Map(nullptr, 0, 0); };
    Map dq = gradOf(q), dk = gradOf(k), dv = gradOf(v);
    const auto orNull = [](const Var<Scalar>& x, Map& grad) { return x.requiresGrad() ? &grad : nullptr; };
    const Eigen::Map<const Eigen::MatrixX<Scalar>> saved(lse.data(), lse.rows(), lse.cols());
    Scratch<Scalar> scratch(q.tape());
    attention.backward(q.value(), k.value(), v.value(), y, saved, dy, scratch, orNull(q, dq), orNull(k, dk),
                       orNull(v, dv));
  });
}

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPS_ATTENTION_H
