// SPDX-License-Identifier: MPL-2.0
// Generation on the device: caches of keys and values, greedy choice. As the host ops of these names.
//
// A step whose integers lie on the device can be captured in a graph and replayed: positions move on by advance(), and
// argmax() writes the ids that embedding() reads. Nothing can be thrown there: a token whose position leaves the
// capacity is not written to the cache, and its attention is NaN, as is all of a sequence that brings several of which
// one does.
#ifndef EIGENQ_OPS_DEVICE_CACHED_ATTENTION_H
#define EIGENQ_OPS_DEVICE_CACHED_ATTENTION_H

#include <stdexcept>
#include <string>

#include "../argmax.h"
#include "../cached_attention.h"
#include "helpers.h"
#include "tokens.h"

namespace EigenQ {
namespace ad {

using DeviceTokens = CachedTokens<gpu::DeviceView<const int>>;

namespace internal {
/** Tokens of the host, checked and uploaded; equal ones once between two clear(). */
template <typename Scalar>
DeviceTokens uploaded(const char* op, Tape<Scalar, Device>& tape, const AttentionCache<Scalar, Device>& cache,
                      const CachedTokens<>& tokens, Eigen::Index columns) {
  checkTokens(op, tokens, columns, cache.sequences(), cache.capacity());
  const auto keep = [&](const Eigen::VectorXi& x) {
    return x.size() > 0 ? tape.keep(x) : gpu::DeviceView<const int>();
  };
  return {keep(tokens.positions), keep(tokens.offsets)};
}
inline const std::int32_t* readingOrNull(const gpu::DeviceView<const int>& x, gpu::Context& context) {
  return x.size() > 0 ? reading(x, context) : nullptr;
}
/** What a kernel on \a context is about to write, entries without gaps. */
inline std::int32_t* writingIntegers(const gpu::DeviceView<int>& x, gpu::Context& context) {
  eigen_assert((x.rowStride() == 1 || x.rows() <= 1) && (x.colStride() == x.rows() || x.cols() <= 1));
  if (x.memory()) x.memory()->beginWrite(context);
  return x.data();
}

template <typename Scalar>
gpu::internal::CacheAppend appendOf(const char* name, AttentionCache<Scalar, Device>& cache,
                                    const Var<Scalar, Device>& k, const Var<Scalar, Device>& v,
                                    const DeviceTokens& tokens) {
  refuseGradient(name, k.tape(), {k, v});
  assertCacheShapes(cache, k, v);
  checkTokenCounts(name, tokens, k.cols(), cache.sequences());
  gpu::Context& context = k.tape().context();
  gpu::internal::CacheAppend op;
  op.k = reading(k);
  op.v = reading(v);
  op.keys = writing(cache.mutableKeys().view(), context);
  op.values = writing(cache.mutableValues().view(), context);
  op.sequences = cache.sequences();
  op.capacity = cache.capacity();
  op.positions = readingOrNull(tokens.positions, context);
  op.offsets = readingOrNull(tokens.offsets, context);
  return op;
}

/** One query a sequence: every head of it is many blocks, each with some of the keys. */
template <typename Scalar>
void decode(const Var<Scalar, Device>& q, const AttentionCache<Scalar, Device>& cache, const DeviceTokens& tokens,
            const gpu::DeviceView<Scalar>& o) {
  gpu::Context& context = q.tape().context();
  gpu::internal::AttentionDecode op;
  op.heads = cache.heads().heads;
  op.kvHeads = cache.heads().kvHeads;
  op.headDim = cache.heads().headDim;
  op.window = cache.heads().window;
  op.capacity = cache.capacity();
  op.positions = readingOrNull(tokens.positions, context);
  op.q = reading(q);
  op.k = reading(cache.keys().view(), context);
  op.v = reading(cache.values().view(), context);
  op.o = writing(o, context);
  gpu::internal::attentionDecode(op, context);
}

/** Several queries a sequence: a block is a tile of queries of a head. */
template <typename Scalar>
void prefill(const Var<Scalar, Device>& q, const AttentionCache<Scalar, Device>& cache, const DeviceTokens& tokens,
             const gpu::DeviceView<Scalar>& o) {
  gpu::Context& context = q.tape().context();
  gpu::internal::CausalAttention op;
  op.heads = cache.heads().heads;
  op.kvHeads = cache.heads().kvHeads;
  op.headDim = cache.heads().headDim;
  op.window = cache.heads().window;
  op.offsets = reading(tokens.offsets, context);
  op.sequences = cache.sequences();
  op.capacity = cache.capacity();
  op.positions = readingOrNull(tokens.positions, context);
  op.q = reading(q);
  op.k = reading(cache.keys().view(), context);
  op.v = reading(cache.values().view(), context);
  op.o = writing(o, context);
  gpu::internal::causalAttentionForward(op, context);
}
}  // namespace internal

template <typename Scalar>
void appendToCache(AttentionCache<Scalar, Device>& cache, const Var<Scalar, Device>& k, const Var<Scalar, Device>& v,
                   const DeviceTokens& tokens) {
  gpu::internal::appendToCache(internal::appendOf("appendToCache", cache, k, v, tokens), k.tape().context());
}
template <typename Scalar>
void appendToCache(AttentionCache<Scalar, Device>& cache, const Var<Scalar, Device>& k, const Var<Scalar, Device>& v,
                   const CachedTokens<>& tokens) {
  appendToCache(cache, k, v, internal::uploaded("appendToCache", k.tape(), cache, tokens, k.cols()));
}

template <typename Scalar>
Var<Scalar, Device> ropeAndAppend(AttentionCache<Scalar, Device>& cache, const Var<Scalar, Device>& q,
                                  const Var<Scalar, Device>& k, const Var<Scalar, Device>& v,
                                  const RopeTable<Scalar, Device>& table, const DeviceTokens& tokens) {
  Tape<Scalar, Device>& tape = q.tape();
  internal::refuseGradient("ropeAndAppend", tape, {q});
  internal::assertQueryShape(q, cache.heads());
  internal::checkPositionCount(tokens.positions.size(), q.cols());
  ArenaMatrix<Scalar, Device> turned = tape.newMatrix(q.rows(), q.cols());
  gpu::internal::ropeAppend(internal::ropeOf<Scalar>(q, table, tokens.positions, turned),
                            internal::appendOf("ropeAndAppend", cache, k, v, tokens), tape.context());
  return tape.record("rope", {}, turned, [](const auto&) {});
}
template <typename Scalar>
Var<Scalar, Device> ropeAndAppend(AttentionCache<Scalar, Device>& cache, const Var<Scalar, Device>& q,
                                  const Var<Scalar, Device>& k, const Var<Scalar, Device>& v,
                                  const RopeTable<Scalar, Device>& table, const CachedTokens<>& tokens) {
  internal::checkPositions(tokens.positions, q.cols(), table.maxPositions());
  return ropeAndAppend(cache, q, k, v, table, internal::uploaded("ropeAndAppend", q.tape(), cache, tokens, k.cols()));
}

template <typename Scalar>
Var<Scalar, Device> cachedAttention(const Var<Scalar, Device>& q, const AttentionCache<Scalar, Device>& cache,
                                    const DeviceTokens& tokens) {
  Tape<Scalar, Device>& tape = q.tape();
  internal::refuseGradient("cachedAttention", tape, {q});
  internal::assertQueryShape(q, cache.heads());
  internal::checkTokenCounts("cachedAttention", tokens, q.cols(), cache.sequences());
  ArenaMatrix<Scalar, Device> o = tape.newMatrix(q.rows(), q.cols());
  tokens.offsets.size() == 0 ? internal::decode<Scalar>(q, cache, tokens, o)
                             : internal::prefill<Scalar>(q, cache, tokens, o);
  return tape.record("cachedAttention", {}, o, [](const auto&) {});
}
template <typename Scalar>
Var<Scalar, Device> cachedAttention(const Var<Scalar, Device>& q, const AttentionCache<Scalar, Device>& cache,
                                    const CachedTokens<>& tokens) {
  return cachedAttention(q, cache, internal::uploaded("cachedAttention", q.tape(), cache, tokens, q.cols()));
}

/** Overwrites integers that a graph reads where they are. A capture cannot contain it. */
inline void setIntegers(gpu::DeviceMatrix<int>& integers, const Eigen::Ref<const Eigen::VectorXi>& values,
                        gpu::Context& context = gpu::Context::current()) {
  eigen_assert(values.size() == integers.size() && "setIntegers: sizes differ");
  if (values.size() == 0) return;
  gpu::internal::upload(internal::writingIntegers(integers.view(), context), values.data(),
                        sizeof(int) * static_cast<std::size_t>(values.size()), context);
}

/** Each position moves on by \a step, in the order of the context's work. */
inline void advance(gpu::DeviceMatrix<int>& positions, int step = 1, gpu::Context& context = gpu::Context::current()) {
  gpu::internal::addToIntegers(internal::writingIntegers(positions.view(), context), positions.size(), step, context);
}

/** Into memory that stays, for a graph. \param rows  as many integers as x has columns */
template <typename Scalar>
void argmax(const Var<Scalar, Device>& x, const gpu::DeviceView<int>& rows) {
  eigen_assert(x.rows() > 0 && "argmax: there is no entry to choose");
  if (rows.size() != x.cols())
    throw std::invalid_argument("argmax: expected room for " + std::to_string(x.cols()) +
                                " rows, one a column, found " + std::to_string(rows.size()));
  gpu::Context& context = x.tape().context();
  gpu::internal::argmax(internal::reading(x), internal::writingIntegers(rows, context), context);
}
template <typename Scalar>
gpu::DeviceMatrix<int> argmax(const Var<Scalar, Device>& x) {
  gpu::DeviceMatrix<int> rows(x.cols(), 1, x.tape().context());
  argmax(x, rows.view());
  return rows;
}

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPS_DEVICE_CACHED_ATTENTION_H
