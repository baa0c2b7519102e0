// SPDX-License-Identifier: MPL-2.0
// The third stop on the road of a product: a problem in plain numbers, and the ordered table of kernels that are asked.
#ifndef EIGENQ_LOWERING_H
#define EIGENQ_LOWERING_H

#include "Activation.h"
#include "Threads.h"
#include "Views.h"

#include <limits>

namespace EigenQ {

namespace internal {

enum class BiasAxis : std::uint8_t { kNone, kPerRow, kPerCol };  // one value per row or per column of the result

/** What happens to an accumulator on its way to memory:
 * y = sign·clamp(activation(alpha·acc + bias)) + residualSign·residual, computed in float and rounded once. */
struct Epilogue {
  float alpha = 1;
  BiasAxis biasAxis = BiasAxis::kNone;
  const void* bias = nullptr;  // of y's scalar type
  Index biasStride = 1;
  Activation activation = Activation::kNone;
  float lower = -std::numeric_limits<float>::infinity();
  float upper = std::numeric_limits<float>::infinity();
  float sign = 1;
  ConstDenseView residual;  // of y's shape and scalar type; may be y itself. No data: no residual.
  float residualSign = 1;

  /** The same epilogue for the transposed result. */
  EIGENQ_STRONG_INLINE Epilogue transpose() const {
    Epilogue t = *this;
    if (biasAxis != BiasAxis::kNone) t.biasAxis = biasAxis == BiasAxis::kPerRow ? BiasAxis::kPerCol : BiasAxis::kPerRow;
    t.residual = residual.transpose();
    return t;
  }
};

/** Y = epilogue(X·op(W)): X is m×k, op(W) k×n, Y m×n; op(W) = Wᵀ when \a transposed, so that W is n×k as stored.
 * Y overlaps neither X nor W; the residual is Y itself or does not overlap it. */
struct QuantizedProduct {
  ConstDenseView x;
  WeightView w;
  bool transposed = true;
  DenseView y;
  Epilogue epilogue;
};

/** One way to compute a product. */
struct Lowering {
  const char* name;
  const char* (*refuse)(const QuantizedProduct&);  // null: "mine". Otherwise the reason, in words.
  void (*run)(const QuantizedProduct&);
};

/** One way to write a dequantised matrix Y = epilogue(W), all of W's shape. */
struct DequantizeLowering {
  const char* name;
  const char* (*refuse)(const WeightView&, const DenseView&, const Epilogue&);  // as that of a product
  void (*run)(const WeightView&, const DenseView&, const Epilogue&);
};

template <typename Row>
struct LoweringTable {
  const Row* first;
  const Row* last;
  const Row* begin() const { return first; }
  const Row* end() const { return last; }
};

/** Kernels for operands in host memory, best first; the last row never refuses. */
LoweringTable<Lowering> hostLowerings();
LoweringTable<DequantizeLowering> hostDequantizers();

/** Runs the first row of hostLowerings() that does not refuse. Throws std::bad_alloc when scratch memory runs out. */
void lower(const QuantizedProduct& product);

/** Y = epilogue(op(W)), W dequantised: Y is W's shape, transposed when \a transposed. */
void dequantize(const WeightView& w, bool transposed, const DenseView& y, const Epilogue& epilogue);

/** Told of every call of lower() and dequantize(), on the calling thread, after the choice and before the run. Tests
 * count kernels with it; EIGENQ_LOG=lowering prints through the same hook. */
struct LoweringEvent {
  enum Kind : std::uint8_t { kProduct, kDequantize, kDenseProduct };  // dense products: those of device matrices
  Kind kind;
  const char* kernel;
  const QuantizedProduct* product;  // of kProduct
};
using LoweringObserver = void (*)(const LoweringEvent&, void* context);

/** Sets the observer of the calling thread (null: none); \a context comes back with each event. */
void setLoweringObserver(LoweringObserver observer, void* context);

}  // namespace internal

}  // namespace EigenQ

#endif  // EIGENQ_LOWERING_H
