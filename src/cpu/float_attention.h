// SPDX-License-Identifier: MPL-2.0
// Causal softmax attention and its gradients for one instruction set, 64 queries of a head at a time.
//
//        keys →                          p[query][key], 64 rows of at most 64 + position floats: second-level cache
//   q  ┌───────────────╲                 scores    p = scale·q kᵀ           panels of k, transposed
//   u  │ seen by all    ╲                softmax   a row at a time, zeros behind the diagonal
//   e  │                 ╲               o = p v                            panels of v as they lie
//   r  └──────────────────╲
//   y
//
// Tiles behind the diagonal are left out of every product. Backward recomputes p from the saved log-sum-exp and makes
// five products of a block. Products are those of float_product.h: rows of X in place, sums straight into the result.
// Backward of heads that share keys is one task: their gradients add up in their order.
#ifndef EIGENQ_CPU_FLOAT_ATTENTION_H
#define EIGENQ_CPU_FLOAT_ATTENTION_H

#include "float_product.h"
#include "float_rows.h"

namespace EigenQ {
namespace internal {
namespace {

template <typename Isa>
struct AttentionKernels {
  using Product = FloatProductKernels<Isa, ScalarType::kFloat>;
  using Matrix = typename Product::Matrix;
  using Rows = RowKernels<Isa>;
  using Vec = typename Isa::Vec;
  static constexpr int kLanes = Isa::kLanes;
  static constexpr Index kQueries = 64;  // of a block: scores of 256 keys are 64 KiB

  /** Some consecutive queries of one head, and the keys that they see. */
  struct Block {
    Index key, keys;  // first column and count
    Index query, queries;
    Index position;  // of the first query, counted from the first key
    Index window;

    /** Query j sees keys begin(j) … end(j) - 1 of the block. */
    Index end(Index j) const { return position + j + 1; }
    Index begin(Index j) const { return window > 0 && end(j) > window ? end(j) - window : 0; }
  };

  /** Queries [first, first + kQueries) of a sequence. */
  static Block blockOf(const AttentionSequence& s, Index window, Index first) {
    const Index position = s.position + first, queries = least(kQueries, s.queries - first);
    const Index hidden = window > 0 && position + 1 > window ? position + 1 - window : 0;
    return {s.key + hidden, position + queries - hidden, s.query + first, queries, position - hidden, window};
  }

  /** Where one head of q, k, v and their gradients begins, and how far columns are apart. */
  struct Head {
    Index head, offset, kvOffset, stride, kvStride;
  };
  static Head headOf(const FloatAttention& a, Index head) {
    const Index kvHead = head / (a.heads / a.kvHeads);
    return {head, head * a.headDim, kvHead * a.headDim, a.heads * a.headDim, a.kvHeads * a.headDim};
  }

  /** Terms [begin, end) of a sum; none: the sum is not needed. */
  struct Terms {
    Index begin, end;
  };

  /** As Product::multiply, with those terms alone that terms(row, rows, output) names for a tile of rows and a panel of
   * outputs. What a tile has no terms for stays as it was; \a assign wants terms from 0 on. */
  template <typename Needed>
  static void product(Index m, Index n, Index depth, const RowMatrix& x, const Matrix& w, float alpha, bool assign,
                      ResultMatrix y, const Needed& terms) {
    constexpr Index kDepth = Product::kDepth, kPanel = Product::kPanel;
    const Index tileRows = Product::tileRowsOf(m);
    float* panel = scratch(Scratch::kPanel, kDepth * kPanel);
    for (Index k = 0; k < depth; k += kDepth, assign = false) {
      const Index count = least(kDepth, depth - k);
      for (Index output = 0; output < n; output += kPanel) {
        const Index lanes = least(kPanel, n - output);
        const Matrix from{w.data + k * w.depthStride + output * w.outputStride, w.depthStride, w.outputStride};
        Product::fill(from, count, lanes, alpha, panel);
        for (Index row = 0; row < m; row += tileRows) {
          const Index rows = least(tileRows, m - row);
          const Terms needed = terms(row, rows, output);
          const Index begin = needed.begin > k ? needed.begin - k : 0, end = least(count, needed.end - k);
          if (begin >= end) continue;
          const RowTile tile = x.at(row, k + begin);
          Product::multiplyPanel(rows, rows, end - begin, {tile.data, x.rowStride, x.depthStride},
                                 panel + begin * kPanel, lanes, assign, {y.data + row * y.stride + output, y.stride});
        }
      }
    }
  }

  // A tile of queries sees no key behind its last query; a tile of keys is seen by no query before its first key.

  static auto queriesByKeys(const Block& b, Index depth) {
    return [=](Index row, Index rows, Index key) { return Terms{0, key < b.end(row + rows - 1) ? depth : 0}; };
  }
  static auto queriesOverKeys(const Block& b) {
    return [=](Index row, Index rows, Index) { return Terms{0, b.end(row + rows - 1)}; };
  }
  static auto keysOverQueries(const Block& b) {
    return [=](Index row, Index, Index) { return Terms{row > b.position ? row - b.position : 0, b.queries}; };
  }

  /** Memory of a task: rows of p are padded to whole vectors. */
  static Index strideOf(Index keys) { return ceilDiv(keys, kLanes) * kLanes; }

  /** p[query][key] = scale·qᵀk. */
  static void scores(const FloatAttention& a, const Head& h, const Block& b, ResultMatrix p) {
    const RowMatrix q{a.q + h.offset + b.query * h.stride, h.stride, 1};
    const Matrix k{a.k + h.kvOffset + b.key * h.kvStride, 1, h.kvStride};
    product(b.queries, b.keys, a.headDim, q, k, a.scale, true, p, queriesByKeys(b, a.headDim));
  }

  /** What query j sees, widened to whole vectors: rows have room for them. */
  struct Span {
    Index begin, size;
  };
  static Span spanOf(const Block& b, Index j) {
    const Index begin = b.begin(j) / kLanes * kLanes;
    return {begin, strideOf(b.end(j)) - begin};
  }

  /** Scores that query j does not see are -∞ in its span: their exponentials are 0. */
  static void hideInSpan(const Block& b, Index j, const Span& span, float* row) {
    for (Index i = span.begin; i < b.begin(j); ++i) row[i] = -Rows::kInfinity;
    for (Index i = b.end(j); i < span.begin + span.size; ++i) row[i] = -Rows::kInfinity;
  }
  /** Zeros around the span. */
  static void clearOthers(const Block& b, const Span& span, float* row) {
    for (Index i = 0; i < span.begin; ++i) row[i] = 0;
    for (Index i = span.begin + span.size; i < b.keys; ++i) row[i] = 0;
  }

  static void attendBlock(const FloatAttention& a, const Head& h, const Block& b, float* memory) {
    const ResultMatrix p{memory, strideOf(b.keys)};
    scores(a, h, b, p);
    for (Index j = 0; j < b.queries; ++j) {
      float* row = p.data + j * p.stride;
      const Span span = spanOf(b, j);
      hideInSpan(b, j, span, row);
      const float lse = Rows::softmax(span.size, row + span.begin);
      clearOthers(b, span, row);
      if (a.lse) a.lse[(b.query + j) * a.heads + h.head] = lse;
    }
    const Matrix v{a.v + h.kvOffset + b.key * h.kvStride, h.kvStride, 1};
    product(b.queries, a.headDim, b.keys, {p.data, p.stride, 1}, v, 1, true,
            {a.o + h.offset + b.query * h.stride, h.stride}, queriesOverKeys(b));
  }

  /** One query of every head that shares keys: the rows of one product. */
  static void attendOne(const FloatAttention& a, Index kvHead, const Block& b, float* memory) {
    const Index group = a.heads / a.kvHeads;
    const Head h = headOf(a, kvHead * group);
    const ResultMatrix p{memory, strideOf(b.keys)};
    const float* q = a.q + h.offset + b.query * h.stride;
    const Index kvAt = h.kvOffset + b.key * h.kvStride;
    Product::multiplyRows(group, b.keys, a.headDim, {q, a.headDim, 1}, {a.k + kvAt, 1, h.kvStride}, a.scale, true, p);
    for (Index j = 0; j < group; ++j) {
      const float lse = Rows::softmax(b.keys, p.data + j * p.stride);
      if (a.lse) a.lse[b.query * a.heads + h.head + j] = lse;
    }
    Product::multiplyRows(group, a.headDim, b.keys, {p.data, p.stride, 1}, {a.v + kvAt, h.kvStride, 1}, 1, true,
                          {a.o + h.offset + b.query * h.stride, a.headDim});
  }

  static Index mostKeys(const FloatAttention& a) {
    Index most = 0;
    for (Index s = 0; s < a.count; ++s) {
      const Index keys = a.sequences[s].position + a.sequences[s].queries;
      if (keys > most) most = keys;
    }
    return a.window > 0 ? least(most, a.window + kQueries - 1) : most;
  }

  static Index mostBlocks(const FloatAttention& a) {
    Index most = 0;
    for (Index s = 0; s < a.count; ++s) most = a.sequences[s].queries > most ? a.sequences[s].queries : most;
    return ceilDiv(most, kQueries);
  }

  /** Multiplications of one of a pass's products. */
  static Index workOf(const FloatAttention& a) {
    Index pairs = 0;
    for (Index s = 0; s < a.count; ++s) {
      const Index keys = a.sequences[s].position + a.sequences[s].queries;
      pairs += a.sequences[s].queries * (a.window > 0 ? least(keys, a.window) : keys);
    }
    return pairs * a.heads * a.headDim;
  }

  /** A task is one block, or, of a single query, the heads that share keys. */
  static void attend(const FloatAttention& a) {
    const Index group = a.heads / a.kvHeads, most = strideOf(mostKeys(a)), rows = group > kQueries ? group : kQueries;
    const Index blocks = mostBlocks(a);
    forEachTask(a.count * blocks * a.heads, workOf(a), [&](Index task) {
      const AttentionSequence& s = a.sequences[task / a.heads / blocks];
      const Index head = task / blocks % a.heads, first = task % blocks * kQueries;
      if (first >= s.queries) return;
      float* memory = scratch(Scratch::kTile, rows * most);
      if (s.queries > 1) return attendBlock(a, headOf(a, head), blockOf(s, a.window, first), memory);
      if (head % group == 0) attendOne(a, head / group, blockOf(s, a.window, 0), memory);
    });
  }

  // ---- backward -------------------------------------------------------------------------------------------------

  /** ds = p ∘ (ds - D) where keys are seen, the factor scale left to the products behind it. */
  static void scoreGradients(const FloatAttentionGradient& g, const Head& h, const Block& b, const ResultMatrix& p,
                             const ResultMatrix& ds) {
    const Index headDim = g.forward.headDim;
    for (Index j = 0; j < b.queries; ++j) {
      const Index at = h.offset + (b.query + j) * h.stride;
      const float d = Rows::dot(headDim, g.dO + at, g.forward.o + at);
      float* row = ds.data + j * ds.stride;
      const Span span = spanOf(b, j);
      Rows::multiplyShifted(span.size, p.data + j * p.stride + span.begin, d, row + span.begin);
      clearOthers(b, span, row);
    }
  }

  static void backwardBlock(const FloatAttentionGradient& g, const Head& h, const Block& b, float* memory) {
    const FloatAttention& a = g.forward;
    const Index stride = strideOf(b.keys);
    const ResultMatrix p{memory, stride}, ds{memory + b.queries * stride, stride};
    scores(a, h, b, p);
    for (Index j = 0; j < b.queries; ++j) {
      float* row = p.data + j * p.stride;
      const float lse = a.lse[(b.query + j) * a.heads + h.head];
      const Span span = spanOf(b, j);
      hideInSpan(b, j, span, row);
      Rows::scaledExp(span.size, row + span.begin, lse, 1, row + span.begin, false);
      clearOthers(b, span, row);
    }
    const Index at = h.offset + b.query * h.stride, kvAt = h.kvOffset + b.key * h.kvStride;
    const RowMatrix ofP{p.data, 1, p.stride};  // of pᵀ
    if (g.dv) {
      product(b.keys, a.headDim, b.queries, ofP, {g.dO + at, h.stride, 1}, 1, false, {g.dv + kvAt, h.kvStride},
              keysOverQueries(b));
    }
    if (!g.dq && !g.dk) return;
    product(b.queries, b.keys, a.headDim, {g.dO + at, h.stride, 1}, {a.v + kvAt, 1, h.kvStride}, 1, true, ds,
            queriesByKeys(b, a.headDim));
    scoreGradients(g, h, b, p, ds);
    if (g.dq) {
      product(b.queries, a.headDim, b.keys, {ds.data, ds.stride, 1}, {a.k + kvAt, h.kvStride, 1}, a.scale, false,
              {g.dq + at, h.stride}, queriesOverKeys(b));
    }
    if (g.dk) {
      product(b.keys, a.headDim, b.queries, {ds.data, 1, ds.stride}, {a.q + at, h.stride, 1}, a.scale, false,
              {g.dk + kvAt, h.kvStride}, keysOverQueries(b));
    }
  }

  static void attendBackward(const FloatAttentionGradient& g) {
    const FloatAttention& a = g.forward;
    const Index group = a.heads / a.kvHeads, most = strideOf(mostKeys(a));
    forEachTask(a.count * a.kvHeads, workOf(a), [&](Index task) {
      const AttentionSequence& s = a.sequences[task / a.kvHeads];
      const Index first = task % a.kvHeads * group;
      float* memory = scratch(Scratch::kTile, 2 * kQueries * most);
      for (Index head = first; head < first + group; ++head) {
        for (Index i = 0; i < s.queries; i += kQueries) {
          backwardBlock(g, headOf(a, head), blockOf(s, a.window, i), memory);
        }
      }
    });
  }
};

}  // namespace
}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_FLOAT_ATTENTION_H
