// SPDX-License-Identifier: MPL-2.0
// Expressions of device matrices. Each is a sum of terms; each term is one launch, that reads one more dense term on
// its way out: Y = gelu((X * W.transpose()).rowwise() + b) + R is one kernel. What no kernel covers does not compile.
#ifndef EIGENQ_GPU_DEVICEEXPRESSION_H
#define EIGENQ_GPU_DEVICEEXPRESSION_H

#include <array>

#include "../Lowering.h"
#include "../QuantizedView.h"
#include "DeviceView.h"

namespace EigenQ {
namespace gpu {
namespace internal {

using EigenQ::internal::BiasAxis;
using EigenQ::internal::Epilogue;
using EigenQ::internal::QuantizedView;

/** A dense operand and what orders its use. */
struct DenseOperand {
  ConstDenseView view;
  MemoryBlock* block = nullptr;
};

/** A quantised operand: factor·op(weights), pointers on the device. */
struct WeightOperand {
  QuantizedView view;
  MemoryBlock* block = nullptr;

  Index rows() const { return view.transposed ? view.weights.cols : view.weights.rows; }
  Index cols() const { return view.transposed ? view.weights.rows : view.weights.cols; }
};

/** epilogue(core): one launch. */
struct Term {
  enum class Core { kDense, kDenseProduct, kQuantizedProduct, kDequantized };
  Core core = Core::kDense;
  DenseOperand a;  // kDense: the matrix. Products: the left factor, or the dense one of a quantised product.
  DenseOperand b;  // kDenseProduct: the right factor
  WeightOperand w;
  bool weightOnLeft = false;
  Index rows = 0;
  Index cols = 0;
  Epilogue epilogue;
  MemoryBlock* biasBlock = nullptr;

  /** s·A and nothing else: it may ride along as another term's residual. */
  bool isScaledDense() const {
    return core == Core::kDense && epilogue.biasAxis == BiasAxis::kNone && epilogue.activation == Activation::kNone &&
           epilogue.lower == Epilogue().lower && epilogue.upper == Epilogue().upper;
  }
};

enum class Store { kSet, kAdd, kSubtract };

/** Most terms of a sum. */
constexpr int kMaxTerms = 16;

/** y = or += or -= the sum of \a terms, each of y's shape. Allocates scratch memory of the context at most. */
void evaluate(const Term* terms, int count, const DenseView& y, MemoryBlock* block, Store store, Context& context);
/** Whether writing \a y would change an operand that is still to be read. */
bool needsTemporary(const Term* terms, int count, const DenseView& y, Store store);

/** +0 in every entry. */
void setZero(const DenseView& y, Context& context);

/** How far an epilogue has been written down; what follows must be later. */
enum class DeviceStage { kProduct, kBiased, kActivated };

}  // namespace internal

/** A product, a dequantised or a dense matrix with a part of an epilogue around it. Refers to its operands. */
template <typename Scalar_, internal::DeviceStage kStage>
class DeviceExpression {
 public:
  using Scalar = Scalar_;
  using Stage = internal::DeviceStage;
  static constexpr bool kMayTakeBias = kStage == Stage::kProduct;

  explicit DeviceExpression(const internal::Term& term) : m_term(term) {}

  Index rows() const { return m_term.rows; }
  Index cols() const { return m_term.cols; }
  const internal::Term& term() const { return m_term; }

  /** P.rowwise() + b adds the row vector b to each row; P.colwise() + b the column vector b to each column. */
  auto rowwise() const { return internal::Broadcast<DeviceExpression>(*this, internal::BiasAxis::kPerCol); }
  auto colwise() const { return internal::Broadcast<DeviceExpression>(*this, internal::BiasAxis::kPerRow); }

  DeviceExpression operator-() const { return scaled(-1.0f); }
  DeviceExpression operator/(float divisor) const { return scaled(1.0f / divisor); }
  friend DeviceExpression operator*(float factor, const DeviceExpression& x) { return x.scaled(factor); }
  friend DeviceExpression operator*(const DeviceExpression& x, float factor) { return x.scaled(factor); }

  /** max(x, c) and min(x, c) of each entry; a maximum may stand inside a minimum. */
  DeviceExpression<Scalar, Stage::kActivated> cwiseMax(float c) const {
    static_assert(kStage != Stage::kActivated, "EIGENQ_ONE_ACTIVATION_PER_LAUNCH__STORE_THE_RESULT_FIRST");
    internal::Term t = m_term;
    t.epilogue.lower = c;
    return DeviceExpression<Scalar, Stage::kActivated>(t);
  }
  DeviceExpression<Scalar, Stage::kActivated> cwiseMin(float c) const {
    internal::Term t = m_term;
    if (c < t.epilogue.upper) t.epilogue.upper = c;
    return DeviceExpression<Scalar, Stage::kActivated>(t);
  }

  DeviceExpression<Scalar, Stage::kActivated> activated(Activation activation) const {
    static_assert(kStage != Stage::kActivated, "EIGENQ_ONE_ACTIVATION_PER_LAUNCH__STORE_THE_RESULT_FIRST");
    internal::Term t = m_term;
    t.epilogue.activation = activation;
    return DeviceExpression<Scalar, Stage::kActivated>(t);
  }

  /** Evaluates and copies to the host; waits for it. */
  auto toHost(Context& context = Context::current()) const;

 private:
  DeviceExpression scaled(float factor) const {
    static_assert(kStage == Stage::kProduct, "EIGENQ_A_SCALE_STANDS_INSIDE_BIAS_AND_ACTIVATION");
    internal::Term t = m_term;
    t.epilogue.alpha *= factor;
    return DeviceExpression(t);
  }

  internal::Term m_term;
};

/** A sum of \a kCount terms: one launch each, less those that ride along as a residual. */
template <typename Scalar_, int kCount>
class DeviceSum {
  static_assert(kCount <= internal::kMaxTerms, "EIGENQ_TOO_MANY_TERMS_IN_A_DEVICE_SUM__STORE_A_PART_FIRST");

 public:
  using Scalar = Scalar_;
  explicit DeviceSum(const std::array<internal::Term, kCount>& terms) : m_terms(terms) {}
  Index rows() const { return m_terms[0].rows; }
  Index cols() const { return m_terms[0].cols; }
  const std::array<internal::Term, kCount>& terms() const { return m_terms; }
  auto toHost(Context& context = Context::current()) const;

 private:
  std::array<internal::Term, kCount> m_terms;
};

namespace internal {

template <typename Xpr>
class Broadcast {
 public:
  Broadcast(const Xpr& xpr, BiasAxis axis) : m_xpr(xpr), m_axis(axis) {}

  template <typename Vector>
  friend auto operator+(const Broadcast& x, const DeviceBase<Vector>& vector) {
    return x.plus(vector.derived().view());
  }

 private:
  template <typename View>
  auto plus(const View& v) const {
    using Scalar = typename Xpr::Scalar;
    static_assert(std::is_same<typename View::Scalar, Scalar>::value,
                  "EIGENQ_THE_BIAS_HAS_ANOTHER_SCALAR_TYPE__CAST_IT_ONCE_WITH_cast");
    static_assert(Xpr::kMayTakeBias, "EIGENQ_ONE_BIAS_PER_LAUNCH__INSIDE_THE_ACTIVATION");
    const bool perCol = m_axis == BiasAxis::kPerCol;
    eigen_assert((perCol ? v.rows() == 1 && v.cols() == m_xpr.cols() : v.cols() == 1 && v.rows() == m_xpr.rows()) &&
                 "bias: rowwise() adds a row vector of cols() entries, colwise() a column vector of rows()");
    Term t = m_xpr.term();
    t.epilogue.biasAxis = m_axis;
    t.epilogue.bias = v.data();
    t.epilogue.biasStride = perCol ? v.colStride() : v.rowStride();
    t.biasBlock = v.memory();
    return DeviceExpression<Scalar, DeviceStage::kBiased>(t);
  }

  Xpr m_xpr;
  BiasAxis m_axis;
};

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_GPU_DEVICEEXPRESSION_H
