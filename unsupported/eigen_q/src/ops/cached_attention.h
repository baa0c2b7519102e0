// SPDX-License-Identifier: MPL-2.0
// Attention over the keys and values of earlier steps: generation. No gradient flows through a cache.
//
//   keys, values   │ sequence 0           │ sequence 1           │ …    (kvHeads·headDim)×(sequences·capacity)
//                  │ t0 t1 t2 ·  ·  ·  ·  │ t0 t1 t2 t3 t4 ·  ·  │ …    token t of sequence s: column s·capacity + t
//
// A window hides the keys before it and costs nothing for them, but their columns stay taken: the cache is no ring.
#ifndef EIGENQ_OPS_CACHED_ATTENTION_H
#define EIGENQ_OPS_CACHED_ATTENTION_H

#include <algorithm>
#include <stdexcept>
#include <string>

#include "attention.h"
#include "rope.h"

namespace EigenQ {
namespace ad {

/** Keys (after rope) and values of one attention layer, for some sequences of at most \a capacity tokens each. How many
 * tokens a sequence has is the caller's to know. */
template <typename Scalar_, typename Place_ = Host>
class AttentionCache {
 public:
  using Scalar = Scalar_;
  using Place = Place_;
  using Matrix = typename Place::template Matrix<Scalar>;

  /** Uninitialised; on a device, of the current context. Throws std::invalid_argument for sizes that do not fit, and
   * std::bad_alloc or gpu::CudaOutOfMemory. */
  AttentionCache(const AttentionHeads& heads, Eigen::Index sequences, Eigen::Index capacity)
      : m_heads(checked(heads, sequences, capacity)),
        m_sequences(sequences),
        m_capacity(capacity),
        m_keys(heads.kvHeads * heads.headDim, sequences * capacity),
        m_values(heads.kvHeads * heads.headDim, sequences * capacity) {}

  const AttentionHeads& heads() const { return m_heads; }
  Eigen::Index sequences() const { return m_sequences; }
  Eigen::Index capacity() const { return m_capacity; }
  const Matrix& keys() const { return m_keys; }  // (kvHeads·headDim)×(sequences·capacity)
  const Matrix& values() const { return m_values; }
  Matrix& mutableKeys() { return m_keys; }
  Matrix& mutableValues() { return m_values; }

 private:
  static const AttentionHeads& checked(const AttentionHeads& heads, Eigen::Index sequences, Eigen::Index capacity) {
    internal::checkHeads("AttentionCache", heads);
    if (sequences < 0 || capacity < 0)
      throw std::invalid_argument("AttentionCache: expected sequences and a capacity of 0 or more, found " +
                                  std::to_string(sequences) + " and " + std::to_string(capacity));
    return heads;
  }

  AttentionHeads m_heads;
  Eigen::Index m_sequences, m_capacity;
  Matrix m_keys, m_values;
};

/** Where the tokens of one step, packed, stand in the sequences of a cache.
 * \tparam Integers  Eigen::VectorXi, or gpu::DeviceView<const int> where a graph capture reads them: nobody checks
 * those */
template <typename Integers = Eigen::VectorXi>
struct CachedTokens {
  /** Of each token in its own sequence, from 0, as rope() takes them; those of a sequence follow one another. */
  Integers positions;
  /** Sequence s brings the columns offsets(s) … offsets(s + 1) - 1, possibly none. Empty: one token a sequence, in
   * their order. */
  Integers offsets;
};

/** The tokens that come behind the \a lengths(s) that each sequence has: positions lengths(s), lengths(s) + 1, … */
inline CachedTokens<> tokensBehind(const Eigen::Ref<const Eigen::VectorXi>& lengths,
                                   const Eigen::Ref<const Eigen::VectorXi>& offsets) {
  eigen_assert(offsets.size() == lengths.size() + 1 && "tokensBehind: expected one offset more than lengths");
  CachedTokens<> tokens{Eigen::VectorXi(offsets(lengths.size())), offsets};
  for (Eigen::Index s = 0; s < lengths.size(); ++s)
    for (int t = offsets(s); t < offsets(s + 1); ++t) tokens.positions(t) = lengths(s) + t - offsets(s);
  return tokens;
}
/** One token a sequence. */
inline CachedTokens<> tokensBehind(const Eigen::Ref<const Eigen::VectorXi>& lengths) { return {lengths, {}}; }

/** Each position moves on by \a step. */
inline void advance(Eigen::VectorXi& positions, int step = 1) { positions.array() += step; }

namespace internal {

/** Calls f(sequence, first token, tokens) for each sequence that brings any. */
template <typename F>
void forEachSequence(const CachedTokens<>& tokens, Eigen::Index sequences, const F& f) {
  for (Eigen::Index s = 0; s < sequences; ++s) {
    const Eigen::Index first = tokens.offsets.size() == 0 ? s : tokens.offsets(s);
    const Eigen::Index end = tokens.offsets.size() == 0 ? s + 1 : tokens.offsets(s + 1);
    if (first < end) f(s, first, end - first);
  }
}

/** The numbers of positions and offsets, wherever they are. */
template <typename Integers>
void checkTokenCounts(const char* op, const CachedTokens<Integers>& tokens, Eigen::Index columns,
                      Eigen::Index sequences) {
  const auto expect = [op](const char* what, Eigen::Index expected, Eigen::Index found) {
    if (expected != found)
      throw std::invalid_argument(std::string(op) + ": expected " + std::to_string(expected) + " " + what + ", found " +
                                  std::to_string(found));
  };
  expect("positions, one a token", columns, tokens.positions.size());
  if (tokens.offsets.size() == 0)
    expect("tokens, one for each sequence of the cache,", sequences, columns);
  else
    expect("offsets, one more than the cache has sequences,", sequences + 1, tokens.offsets.size());
}

inline void checkTokens(const char* op, const CachedTokens<>& tokens, Eigen::Index columns, Eigen::Index sequences,
                        Eigen::Index capacity) {
  checkTokenCounts(op, tokens, columns, sequences);
  if (tokens.offsets.size() > 0) checkOffsets(op, tokens.offsets, columns);
  forEachSequence(tokens, sequences, [&](Eigen::Index s, Eigen::Index first, Eigen::Index n) {
    const auto where = [&] { return std::string(op) + ": sequence " + std::to_string(s); };
    const Eigen::Index begin = tokens.positions(first), last = begin + n - 1;
    for (Eigen::Index i = 1; i < n; ++i)
      if (tokens.positions(first + i) != begin + i)
        throw std::invalid_argument(where() + ": expected position " + std::to_string(begin + i) + " behind its " +
                                    std::to_string(i) + " tokens before, found " +
                                    std::to_string(tokens.positions(first + i)));
    if (begin < 0 || last >= capacity)
      throw std::out_of_range(where() + ": expected positions from 0 to " + std::to_string(capacity - 1) +
                              ", the capacity of the cache, found " + std::to_string(begin) + " to " +
                              std::to_string(last));
  });
}

template <typename Scalar, typename Place>
void refuseGradient(const char* op, Tape<Scalar, Place>& tape, std::initializer_list<Var<Scalar, Place>> inputs) {
  if (tape.needsGrad(inputs))
    throw std::logic_error(std::string(op) +
                           ": no gradient flows through a cache; use a NoGradGuard, or causalAttention to train");
}

template <typename Scalar, typename Place>
void assertCacheShapes(const AttentionCache<Scalar, Place>& cache, const Var<Scalar, Place>& k,
                       const Var<Scalar, Place>& v) {
  eigen_assert(k.rows() == cache.keys().rows() && "appendToCache: k is not (kvHeads * headDim) x tokens");
  eigen_assert(v.rows() == k.rows() && v.cols() == k.cols() && "appendToCache: v and k differ in shape");
  EIGEN_UNUSED_VARIABLE(cache);
  EIGEN_UNUSED_VARIABLE(k);
  EIGEN_UNUSED_VARIABLE(v);
}
template <typename Scalar, typename Place>
void assertQueryShape(const Var<Scalar, Place>& q, const AttentionHeads& heads) {
  eigen_assert(q.rows() == heads.heads * heads.headDim && "cachedAttention: q is not (heads * headDim) x tokens");
  EIGEN_UNUSED_VARIABLE(q);
  EIGEN_UNUSED_VARIABLE(heads);
}

/** o of the queries at \a tokens over what the cache holds up to each. */
template <typename Scalar>
void attendToCache(const Eigen::Map<const Eigen::MatrixX<Scalar>>& q, const AttentionCache<Scalar>& cache,
                   const CachedTokens<>& tokens, Scratch<Scalar>& scratch, Eigen::Map<Eigen::MatrixX<Scalar>> o) {
  using In = Eigen::Map<const Eigen::MatrixX<Scalar>>;
  const AttentionHeads& heads = cache.heads();
  const In k(cache.keys().data(), cache.keys().rows(), cache.keys().cols());
  const In v(cache.values().data(), k.rows(), k.cols());
  if constexpr (std::is_same_v<Scalar, float>) {
    using Sequence = typename CausalAttention<float>::Sequence;
    Sequence* const sequences = scratch.template allocate<Sequence>(cache.sequences());
    Eigen::Index count = 0;
    forEachSequence(tokens, cache.sequences(), [&](Eigen::Index s, Eigen::Index first, Eigen::Index n) {
      sequences[count++] = {s * cache.capacity(), tokens.positions(first), first, n};
    });
    CausalAttention<float>(heads).attend(q, k, v, sequences, count, o);
    return;
  } else {
    const Eigen::Index longest = tokens.positions.size() == 0 ? 0 : tokens.positions.maxCoeff() + 1;
    const Eigen::Index columns = std::max(kAttentionBlock, heads.heads / heads.kvHeads);
    Scalar* const buffer = scratch.matrix(mostKeys(heads, longest), columns).data();
    const CausalAttention<Scalar> attention(heads);
    forEachSequence(tokens, cache.sequences(), [&](Eigen::Index s, Eigen::Index first, Eigen::Index n) {
      const Eigen::Index column = s * cache.capacity(), position = tokens.positions(first);
      if (n == 1) return attention.attendOne(q, k, v, attentionBlock(heads, 0, column, position, first, 1), buffer, o);
      for (Eigen::Index h = 0; h < heads.heads; ++h)
        for (Eigen::Index i = 0; i < n; i += kAttentionBlock)
          attention.attend(q, k, v,
                           attentionBlock(heads, h, column, position + i, first + i, std::min(kAttentionBlock, n - i)),
                           buffer, o, nullptr);
    });
  }
}
}  // namespace internal

/** Writes the keys and values of new tokens to their columns of the cache.
 * \param k, v  (kvHeads·headDim)×tokens, k after rope.
 * Throws std::out_of_range, naming the sequence, for a position beyond the cache's capacity, std::invalid_argument for
 * tokens that do not fit otherwise, with the cache as it was, and std::logic_error where a gradient is wanted. */
template <typename Scalar>
void appendToCache(AttentionCache<Scalar>& cache, const Var<Scalar>& k, const Var<Scalar>& v,
                   const CachedTokens<>& tokens) {
  internal::refuseGradient("appendToCache", k.tape(), {k, v});
  internal::assertCacheShapes(cache, k, v);
  internal::checkTokens("appendToCache", tokens, k.cols(), cache.sequences(), cache.capacity());
  internal::forEachSequence(tokens, cache.sequences(), [&](Eigen::Index s, Eigen::Index first, Eigen::Index n) {
    const Eigen::Index column = s * cache.capacity() + tokens.positions(first);
    cache.mutableKeys().middleCols(column, n) = k.value().middleCols(first, n);
    cache.mutableValues().middleCols(column, n) = v.value().middleCols(first, n);
  });
}

/** rope() of q and k, and appendToCache() of the turned k and of v: on a device one kernel instead of three, with the
 * same bits. \returns the turned q. Errors as both. */
template <typename Scalar>
Var<Scalar> ropeAndAppend(AttentionCache<Scalar>& cache, const Var<Scalar>& q, const Var<Scalar>& k,
                          const Var<Scalar>& v, const RopeTable<Scalar>& table, const CachedTokens<>& tokens) {
  internal::refuseGradient("ropeAndAppend", k.tape(), {q, k, v});
  appendToCache(cache, rope(k, table, tokens.positions), v, tokens);
  return rope(q, table, tokens.positions);
}

/** Causal softmax attention of new queries over the keys and values of their sequences in the cache, up to and with
 * their own, which appendToCache() has written. As causalAttention() of the whole sequences, for their last tokens.
 * \param q  (heads·headDim)×tokens, after rope. Errors as appendToCache(). */
template <typename Scalar>
Var<Scalar> cachedAttention(const Var<Scalar>& q, const AttentionCache<Scalar>& cache, const CachedTokens<>& tokens) {
  Tape<Scalar>& tape = q.tape();
  internal::refuseGradient("cachedAttention", tape, {q});
  internal::assertQueryShape(q, cache.heads());
  internal::checkTokens("cachedAttention", tokens, q.cols(), cache.sequences(), cache.capacity());
  ArenaMatrix<Scalar> o = tape.newMatrix(q.rows(), q.cols());
  {
    Scratch<Scalar> scratch(tape);
    internal::attendToCache<Scalar>(q.value(), cache, tokens, scratch, o);
  }
  return tape.record("cachedAttention", {}, o, [](const auto&) {});
}

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPS_CACHED_ATTENTION_H
