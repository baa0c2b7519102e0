// SPDX-License-Identifier: MPL-2.0
// What the tape's ops need of a device, in plain numbers. Each function computes what the host op of the same name
// does, forward or backward, queues its work on the context's stream, and waits for nothing.
//
// Matrices are features×tokens in column-major order (rowStride 1, any colStride ≥ rows), all of one call of one scalar
// type: float, half or bfloat16. Arithmetic is in float, the sums of whole matrices in double; each stored entry is
// rounded once. Device scalars are 1×1 views of any of these types. A gradient without data is not wanted; the others
// are assigned, or added to where `accumulate` says so. Results do not differ from run to run.
//
// Targets, ids and positions lie on the device, where no exception can be thrown without waiting: what belongs to one
// that is out of range becomes NaN. Who has them on the host checks them there.
#ifndef EIGENQ_GPU_OPKERNELS_H
#define EIGENQ_GPU_OPKERNELS_H

#include <cstdint>

#include "../Activation.h"
#include "../Views.h"
#include "Context.h"

namespace EigenQ {
namespace gpu {
namespace internal {

using EigenQ::internal::ConstDenseView;
using EigenQ::internal::DenseView;
using EigenQ::internal::WeightView;

// Elementwise.

/** dx (+)= dy ∘ a'(x). Forward is elementwise() with the activation as its epilogue. */
struct ActivationBackward {
  Activation activation = Activation::kNone;
  ConstDenseView saved;  // relu, tanh: y; the others: x
  ConstDenseView dy;
  DenseView dx;
  bool accumulate = false;
};
void activationBackward(const ActivationBackward& op, Context& context);

/** y = silu(gate) ∘ up. */
void swigluForward(const ConstDenseView& gate, const ConstDenseView& up, const DenseView& y, Context& context);
struct SwigluBackward {
  ConstDenseView gate;
  ConstDenseView up;
  ConstDenseView dy;
  DenseView dgate;
  DenseView dup;
  bool accumulateGate = false;
  bool accumulateUp = false;
};
void swigluBackward(const SwigluBackward& op, Context& context);

/** y (+)= a ∘ b. */
void cwiseProduct(const ConstDenseView& a, const ConstDenseView& b, const DenseView& y, bool accumulate,
                  Context& context);
/** y (+)= alpha·factor·x, \a factor a device scalar. x may be y. */
void scaleBy(const ConstDenseView& x, const ConstDenseView& factor, float alpha, const DenseView& y, bool accumulate,
             Context& context);
/** Every entry of y (+)= alpha·value, \a value a device scalar. */
void broadcast(const ConstDenseView& value, float alpha, const DenseView& y, bool accumulate, Context& context);

/** y (+)= mask ∘ x/(1 - p); the same function forward and backward. The mask is that of the host's RandomStream{seed,
 * stream}: the k-th word of the stream belongs to the k-th entry in column-major order. 0 ≤ p < 1. x may be y.
 * Throws std::logic_error inside a graph capture without a streamBase: all replays would drop the same entries. */
struct Dropout {
  ConstDenseView x;
  DenseView y;
  double p = 0;
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;
  bool accumulate = false;
  const std::uint64_t* streamBase = nullptr;  // in device memory: added to stream; null: nothing is
};
void dropout(const Dropout& op, Context& context);

// Columns.

void softmaxForward(const ConstDenseView& x, const DenseView& y, Context& context);
void logSoftmaxForward(const ConstDenseView& x, const DenseView& y, Context& context);
void softmaxBackward(const ConstDenseView& y, const ConstDenseView& dy, const DenseView& dx, bool accumulate,
                     Context& context);
void logSoftmaxBackward(const ConstDenseView& y, const ConstDenseView& dy, const DenseView& dx, bool accumulate,
                        Context& context);

/** loss = weight·Σ (lse - logits[target]) over the columns whose target is not \a ignoreIndex; weight is 1 over their
 * number for the mean and 1 for the sum, or where none counts. */
struct CrossEntropy {
  ConstDenseView logits;                  // classes×tokens
  const std::int32_t* targets = nullptr;  // one a token
  std::int32_t ignoreIndex = -100;
  bool mean = true;
  float* lse = nullptr;     // out, one a token: the log-sum-exp of its logits; 0 where ignored
  float* weight = nullptr;  // out, one value
  DenseView loss;           // out, 1×1
};
void crossEntropyForward(const CrossEntropy& op, Context& context);

/** dlogits (+)= weight·dloss·(softmax(logits) - onehot(target)); ignored columns (+)= 0. */
struct CrossEntropyBackward {
  ConstDenseView logits;
  const std::int32_t* targets = nullptr;
  std::int32_t ignoreIndex = -100;
  const float* lse = nullptr;
  const float* weight = nullptr;
  ConstDenseView dloss;  // device scalar; without data: 1
  DenseView dlogits;     // may be the logits themselves, if not accumulated
  bool accumulate = false;
};
void crossEntropyBackward(const CrossEntropyBackward& op, Context& context);

/** The same for logits that are there a few columns at a time, each replaced by its gradient at once. The weight is
 * mantissa·2ᵏ with a mantissa in [1/2, 1), which leaves 16-bit gradients the exponents that those of a loss of 1 have.
 */
struct ChunkedCrossEntropy {
  const std::int32_t* targets = nullptr;  // of all tokens
  Index tokens = 0;
  std::int32_t ignoreIndex = -100;
  bool mean = true;
  float* factors = nullptr;    // mantissa, 2ᵏ, weight: written by the first function, read by the others
  float* tokenLoss = nullptr;  // one a token
};
void crossEntropyFactors(const ChunkedCrossEntropy& op, Context& context);
/** The losses of tokens first … first + logits.cols - 1; where \a gradient, logits = mantissa·(softmax(logits) -
 * onehot(target)), 0 in ignored columns. */
void crossEntropyChunk(const ChunkedCrossEntropy& op, const DenseView& logits, Index first, bool gradient,
                       Context& context);
/** loss, 1×1, = weight·Σ tokenLoss, after all chunks. */
void crossEntropyTotal(const ChunkedCrossEntropy& op, const DenseView& loss, Context& context);

/** y = gain ∘ x·inverse, inverse = 1/√(mean(x²) + eps) of each column; with \a bias: y = gain ∘ (x - center)·inverse +
 * bias, inverse = 1/√(var(x) + eps). RMSNorm and LayerNorm. */
struct Norm {
  ConstDenseView x;
  ConstDenseView gain;  // dim×1
  ConstDenseView bias;  // dim×1; without data: RMSNorm
  double eps = 0;
  DenseView y;
  float* inverse = nullptr;  // out, one a token
  float* center = nullptr;   // out, one a token; LayerNorm only
};
void normForward(const Norm& op, Context& context);
/** sum = a + b, y = RMSNorm of it: two ops of every layer in one launch. As if one after the other, to the bit. */
struct AddNorm {
  ConstDenseView a;
  ConstDenseView b;
  ConstDenseView gain;  // dim×1
  double eps = 0;
  DenseView sum;  // may be a or b
  DenseView y;
};
void addNorm(const AddNorm& op, Context& context);
struct NormBackward {
  ConstDenseView x;
  ConstDenseView gain;
  ConstDenseView dy;
  const float* inverse = nullptr;
  const float* center = nullptr;  // null: RMSNorm
  DenseView dx;
  DenseView dgain;
  DenseView dbias;  // LayerNorm only
  bool accumulateX = false;
  bool accumulateGain = false;
  bool accumulateBias = false;
};
void normBackward(const NormBackward& op, Context& context);

/** Turns pairs of entries of each head by the angle of their token's position, or back (the pullback). */
struct Rope {
  ConstDenseView x;  // (heads·headDim)×tokens
  DenseView y;       // may be x, if not accumulated
  Index headDim = 2;
  const float* cos = nullptr;  // headDim/2×maxPositions, columns without gaps
  const float* sin = nullptr;
  Index maxPositions = 0;
  const std::int32_t* positions = nullptr;  // one a token
  bool adjacent = false;                    // pairs 2i, 2i + 1 instead of i, i + headDim/2
  bool inverse = false;
  bool accumulate = false;
};
void rope(const Rope& op, Context& context);

// Tables.

/** Column t of y = column ids[t] of the table, dim×vocabulary. */
void embeddingForward(const ConstDenseView& table, const std::int32_t* ids, const DenseView& y, Context& context);
/** Column t of y = row ids[t] of the table, vocabulary×dim, decoded as WeightView::coeff does. */
void embeddingForward(const WeightView& table, const std::int32_t* ids, const DenseView& y, Context& context);
/** Column ids[t] of dtable (+)= column t of dy, in the order of the ids; the others (+)= 0. Ids out of range are left
 * out. */
void embeddingBackward(const ConstDenseView& dy, const std::int32_t* ids, const DenseView& dtable, bool accumulate,
                       Context& context);

// Sums.

/** total (+)= alpha·Σ x. */
void sum(const ConstDenseView& x, double alpha, const DenseView& total, bool accumulate, Context& context);
/** *total (+)= Σ x², for the norm of all gradients. */
void sumOfSquares(const ConstDenseView& x, double* total, bool accumulate, Context& context);
/** totals, rows×1, (+)= the sum of each row: the gradient of a bias. */
void rowSums(const ConstDenseView& x, const DenseView& totals, bool accumulate, Context& context);
/** totals, 1×cols, (+)= the sum of each column. */
void colSums(const ConstDenseView& x, const DenseView& totals, bool accumulate, Context& context);

// Attention.

/** o = v·softmax(kᵀq/√headDim) of each head, each token over itself and the earlier tokens of its sequence. Query head
 * h reads key/value head h/(heads/kvHeads). */
struct CausalAttention {
  Index heads = 1;
  Index kvHeads = 1;
  Index headDim = 1;                      // at most kMaxHeadDim
  Index window = 0;                       // 0: all earlier tokens; w: itself and the w - 1 before it
  const std::int32_t* offsets = nullptr;  // sequence s: tokens offsets[s] … offsets[s + 1] - 1, all tokens in all
  Index sequences = 0;
  ConstDenseView q;      // (heads·headDim)×tokens
  ConstDenseView k;      // (kvHeads·headDim)×tokens
  ConstDenseView v;      // as k
  DenseView o;           // as q
  float* lse = nullptr;  // heads×tokens: the log-sum-exp of each query's scores; null where no pullback will ask

  // Forward only: k and v are caches, (kvHeads·headDim)×(sequences·capacity), and hold the tokens' own keys and values
  // already. Column s·capacity + t belongs to token t of sequence s.
  Index capacity = 0;
  const std::int32_t* positions = nullptr;  // of each token in its sequence; those of a sequence follow one another
};
constexpr Index kMaxHeadDim = 256;
/** Runs the first kernel that does not refuse. Throws std::invalid_argument for sizes that do not fit. A sequence whose
 * positions leave the capacity becomes NaN. */
void causalAttentionForward(const CausalAttention& op, Context& context);

struct CausalAttentionBackward {
  CausalAttention forward;  // with the o and lse that it wrote
  ConstDenseView d_o;
  DenseView dq;
  DenseView dk;
  DenseView dv;
  bool accumulateQ = false;
  bool accumulateK = false;
  bool accumulateV = false;
};
void causalAttentionBackward(const CausalAttentionBackward& op, Context& context);

/** One query a sequence over the keys and values that a cache holds, the query's own included: a step of generation.
 * Column s·capacity + t of the caches belongs to token t of sequence s. */
struct AttentionDecode {
  Index heads = 1;
  Index kvHeads = 1;
  Index headDim = 1;
  Index window = 0;                         // as CausalAttention
  Index capacity = 0;                       // columns a sequence has in the caches
  const std::int32_t* positions = nullptr;  // of each query in its sequence; beyond the capacity: NaN
  ConstDenseView q;                         // (heads·headDim)×sequences
  ConstDenseView k;                         // (kvHeads·headDim)×(sequences·capacity)
  ConstDenseView v;                         // as k
  DenseView o;                              // as q
};
void attentionDecode(const AttentionDecode& op, Context& context);

/** Column s·capacity + positions[t] of the caches = column t of k and v, for token t of sequence s. A token whose
 * position leaves the capacity is left out. */
struct CacheAppend {
  ConstDenseView k;  // rows×tokens
  ConstDenseView v;  // as k
  DenseView keys;    // rows×(sequences·capacity)
  DenseView values;  // as keys
  Index sequences = 0;
  Index capacity = 0;
  const std::int32_t* positions = nullptr;  // one a token
  const std::int32_t* offsets = nullptr;    // as CausalAttention; null: token t belongs to sequence t
};
void appendToCache(const CacheAppend& op, Context& context);
/** rope() of the queries in \a rope, of op.k on its way into the cache by the same angles, and op.v as it is. Both have
 * the same positions; \a rope neither accumulates nor turns back. */
void ropeAppend(const Rope& rope, const CacheAppend& op, Context& context);

// Generation.

/** rows[j]: the row of the largest entry of column j, the first of equal ones; -1 where an entry is NaN. */
void argmax(const ConstDenseView& x, std::int32_t* rows, Context& context);
/** integers[i] += step, for positions that a captured step moves on by itself. */
void addToIntegers(std::int32_t* integers, Index count, std::int32_t step, Context& context);

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_GPU_OPKERNELS_H
