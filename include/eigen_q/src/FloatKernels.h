// SPDX-License-Identifier: MPL-2.0
// What a network computes in float beside its quantised products: dense products, attention, norms, gates, softmaxes;
// in plain numbers, and the table of kernels that run it. A matrix is columns of contiguous floats, one token a column.
#ifndef EIGENQ_FLOATKERNELS_H
#define EIGENQ_FLOATKERNELS_H

#include "Lowering.h"

namespace EigenQ {
namespace internal {

/** Y = or += alpha·X·W: X is m×k in float, W k×n in float, half or bfloat16, widened on the way, Y m×n in float with
 * contiguous rows (colStride 1). Y overlaps neither. Sums run over k in chains of 128 terms in one order, whatever the
 * number of threads; the 16-bit weights of a product by one or few rows are read once, as they are. */
struct FloatProduct {
  ConstDenseView x;
  ConstDenseView w;
  DenseView y;
  float alpha = 1;
  bool accumulate = false;
};

/** Consecutive queries of one sequence, and the keys before them. */
struct AttentionSequence {
  Index key;       // column of the sequence's first key
  Index position;  // of the first query in its sequence
  Index query;     // column of the first query
  Index queries;
};

/** o = softmax(scale·kᵀ q) of each head, a query seeing the keys of its sequence up to its own position, or the last
 * \a window of these. Query head h reads key/value head h / (heads / kvHeads). A value that is not finite may also
 * reach queries before it, whose weight for it is 0. */
struct FloatAttention {
  Index heads = 1, kvHeads = 1, headDim = 1;
  Index window = 0;  // 0: all
  float scale = 1;
  const AttentionSequence* sequences = nullptr;
  Index count = 0;

  const float* q = nullptr;  // (heads·headDim) a column, as o
  const float* k = nullptr;  // (kvHeads·headDim) a column, as v
  const float* v = nullptr;
  float* o = nullptr;
  float* lse = nullptr;  // heads a column: the log-sum-exp of each query's scores; may be null
};

/** Adds to the gradients of q, k and v, where they are not null, those of FloatAttention with \a o and \a lse as it
 * left them. With D = Σ ō ∘ o for each query and P from lse: v̄ += ō Pᵀ, S̄ = P ∘ (vᵀ ō - D), q̄ += k S̄·scale, k̄ += q
 * S̄ᵀ·scale. */
struct FloatAttentionGradient {
  FloatAttention forward;
  const float* dO = nullptr;
  float* dq = nullptr;
  float* dk = nullptr;
  float* dv = nullptr;
};

/** A gradient on its way: assigned, or added to what is there. No data: nobody wants it. */
struct FloatGradient {
  float* data = nullptr;
  bool accumulate = false;
};

/** y = gain ∘ x·inverse, inverse = 1/√(mean(x²) + eps) of each column of x, rows×cols. */
struct FloatRmsNorm {
  Index rows = 0, cols = 0;
  const float* x = nullptr;
  const float* gain = nullptr;
  float* inverse = nullptr;  // one a column
};

/** y = or += mask ∘ x·factor: value i is kept if word i of the Philox4x32-10 stream (RandomStream of the tape), as a
 * number of 24 bits, is at least \a threshold. */
struct FloatDropout {
  Index size = 0;
  std::uint64_t seed = 0, stream = 0;
  std::uint32_t threshold = 0;
  float factor = 1;
  const float* x = nullptr;
  FloatGradient y;
};

/** Turns each pair (a, b) of each head to (a cos ∓ b sin, b cos ± a sin): y = or += that. A head's pairs are its values
 * i and i + half, or neighbours. */
struct FloatRope {
  Index heads = 0, half = 0, tokens = 0;  // a column is heads·2·half values
  bool adjacent = false;
  float direction = 1;         // -1: the inverse
  const float* cos = nullptr;  // half a position
  const float* sin = nullptr;
  const int* positions = nullptr;  // of each token
  const float* x = nullptr;
  FloatGradient y;
};

/** m ← β₁m + (1 - β₁)g,  v ← β₂v + (1 - β₂)g²,  w ← keep·w - step·m / (√v·unbias2 + eps), with g = gradScale·gradient.
 */
struct FloatAdamW {
  Index size = 0;
  float* parameter = nullptr;
  const float* gradient = nullptr;
  float* m = nullptr;
  float* v = nullptr;
  float gradScale = 1, beta1 = 0, beta2 = 0, step = 0, unbias2 = 1, keep = 1, eps = 0;
};

/** The kernels of one instruction set. Those of different sets differ in the order of sums and in fused roundings. */
struct FloatKernels {
  void (*multiply)(const FloatProduct&);
  void (*attend)(const FloatAttention&);
  void (*attendBackward)(const FloatAttentionGradient&);
  void (*rmsNorm)(const FloatRmsNorm&, float eps, float* y);
  /** The gradient of the gain is added to. */
  void (*rmsNormBackward)(const FloatRmsNorm&, const float* dy, FloatGradient dx, float* dGain);
  /** y = gate·σ(gate)·up. */
  void (*swiglu)(Index size, const float* gate, const float* up, float* y);
  void (*swigluBackward)(Index size, const float* gate, const float* up, const float* dy, FloatGradient dGate,
                         FloatGradient dUp);
  /** log Σ exp(x). */
  float (*logSumExp)(Index size, const float* x);
  /** y = or += factor·exp(x - shift); y may be x. */
  void (*scaledExp)(Index size, const float* x, float shift, float factor, float* y, bool accumulate);
  void (*dropout)(const FloatDropout&);
  void (*rope)(const FloatRope&);
  void (*adamW)(const FloatAdamW&);
};

struct FloatLowering {
  const char* name;
  const char* (*refuse)();  // null: "mine". Otherwise the reason, in words.
  const FloatKernels* kernels;
};

/** Best first; the last row never refuses. */
LoweringTable<FloatLowering> hostFloatLowerings();

/** The kernels of the first row that does not refuse. Large calls run on up to maxThreads() threads; results do not
 * depend on them. Throw std::bad_alloc when scratch memory runs out. */
const FloatKernels& floatKernels();

}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_FLOATKERNELS_H
