// SPDX-License-Identifier: MPL-2.0
// The second stop on the road of a product, and the only place where Eigen meets our kernels: X * W and W * X are
// Eigen::Product with an option of its own, so that none of Eigen's rewrites of dense products fires on them.
#ifndef EIGENQ_QUANTPRODUCT_H
#define EIGENQ_QUANTPRODUCT_H

#include "Destination.h"
#include "EigenViews.h"
#include "QuantizedBase.h"

#include <Eigen/Core>

namespace EigenQ {

template <typename Xpr, typename Scalar_>
class QuantizedOperand;

namespace internal {

/** The Option of our products; Eigen's are 0 to 2. */
constexpr int kQuantProduct = 0x51;

/** Scalars of dense operands. */
template <typename Scalar>
struct IsActivationScalar
    : std::bool_constant<std::is_same<Scalar, float>::value || std::is_same<Scalar, Eigen::half>::value ||
                         std::is_same<Scalar, Eigen::bfloat16>::value> {};

template <typename Xpr>
struct IsQuantizedOperand : std::false_type {};
template <typename Xpr, typename Scalar>
struct IsQuantizedOperand<QuantizedOperand<Xpr, Scalar>> : std::true_type {};

}  // namespace internal
}  // namespace EigenQ

namespace Eigen {
namespace internal {

// Storage kind Dense: the product of a dense matrix with it is a full dense expression, by Eigen's own promotion.
template <typename Xpr, typename Scalar_>
struct traits<EigenQ::QuantizedOperand<Xpr, Scalar_>> : EigenQ::internal::QuantizedTraits<NoPreferredStorageOrderBit> {
  using Scalar = Scalar_;
  using StorageKind = Dense;
};
template <typename Xpr, typename Scalar_>
struct evaluator_traits<EigenQ::QuantizedOperand<Xpr, Scalar_>> {
  using Kind = IndexBased;
  using Shape = EigenQ::internal::QuantizedShape;
};

}  // namespace internal
}  // namespace Eigen

namespace EigenQ {

/** The quantised side of a product: a quantised expression that has taken the scalar of the dense side. */
template <typename Xpr, typename Scalar_>
class QuantizedOperand : public Eigen::EigenBase<QuantizedOperand<Xpr, Scalar_>> {
 public:
  using Scalar = Scalar_;
  using StorageIndex = Eigen::Index;
  using StorageKind = Eigen::Dense;
  using Nested = QuantizedOperand;
  enum {
    RowsAtCompileTime = Eigen::Dynamic,
    ColsAtCompileTime = Eigen::Dynamic,
    MaxRowsAtCompileTime = Eigen::Dynamic,
    MaxColsAtCompileTime = Eigen::Dynamic,
    SizeAtCompileTime = Eigen::Dynamic,
    MaxSizeAtCompileTime = Eigen::Dynamic,
    IsVectorAtCompileTime = 0,
    IsRowMajor = 0,
    Flags = 0
  };

  explicit QuantizedOperand(const Xpr& xpr) : m_xpr(xpr) {}

  Index rows() const { return m_xpr.rows(); }
  Index cols() const { return m_xpr.cols(); }
  internal::QuantizedView quantizedView() const { return internal::QuantizedAccess<Xpr>::view(m_xpr); }

 private:
  typename Eigen::internal::ref_selector<Xpr>::type m_xpr;
};

template <typename Lhs, typename Rhs>
using QuantProductType = Eigen::Product<Lhs, Rhs, internal::kQuantProduct>;

#define EIGENQ_CHECK_ACTIVATION_SCALAR(Scalar)               \
  static_assert(internal::IsActivationScalar<Scalar>::value, \
                "QUANTISED_PRODUCTS_TAKE_float_half_OR_bfloat16_MATRICES__CAST_THE_OTHER_OPERAND_WITH_cast")

/** X·W and W·X for a dense X of float, half or bfloat16, of any size, storage order and stride. The result is a dense
 * expression of X's scalar. Its value is the product with the dequantised W, summed in float and rounded once; assigned
 * with bias, scale, activation and further terms around it, it is one kernel call (doc/expressions.md). */
template <typename X, typename W>
QuantProductType<X, QuantizedOperand<W, typename X::Scalar>> operator*(const Eigen::MatrixBase<X>& x,
                                                                       const QuantizedBase<W>& w) {
  EIGENQ_CHECK_ACTIVATION_SCALAR(typename X::Scalar);
  return {x.derived(), QuantizedOperand<W, typename X::Scalar>(w.derived())};
}
template <typename W, typename X>
QuantProductType<QuantizedOperand<W, typename X::Scalar>, X> operator*(const QuantizedBase<W>& w,
                                                                       const Eigen::MatrixBase<X>& x) {
  EIGENQ_CHECK_ACTIVATION_SCALAR(typename X::Scalar);
  return {QuantizedOperand<W, typename X::Scalar>(w.derived()), x.derived()};
}

#undef EIGENQ_CHECK_ACTIVATION_SCALAR

namespace internal {

/** Calls use(view, factor) with x = factor·view in memory. Scalar factors, signs and transposes of plain memory are
 * peeled off; any other expression is evaluated once, which is the only copy a dense operand ever sees. */
template <typename X, typename Use>
void withOperand(const X& x, const Use& use) {
  using Blas = Eigen::internal::blas_traits<X>;
  using Peeled = std::decay_t<decltype(Blas::extract(x))>;
  const float factor = static_cast<float>(Blas::extractScalarFactor(x));
  if constexpr (hasDirectAccess<Peeled>()) {
    const auto& peeled = Blas::extract(x);
    use(viewOf(peeled), factor);
  } else {
    const typename Peeled::PlainObject plain(Blas::extract(x));
    use(viewOf(plain), factor);
  }
}

/** y = epilogue(x·w). */
inline void lowerProduct(const ConstDenseView& x, const QuantizedView& w, const DenseView& y, Epilogue epilogue,
                         float factor) {
  epilogue.alpha *= factor * w.factor;
  lower({x, w.weights, w.transposed, y, epilogue});
}

/** Runs one product into dst; kernels have W on the right, so W·X is computed as (Xᵀ·Wᵀ)ᵀ. */
template <typename Dst, typename Lhs, typename Rhs>
void runProduct(Dst& dst, const Lhs& lhs, const Rhs& rhs, const Store& store) {
  storeTo(dst, store, [&](const DenseView& y, const Epilogue& epilogue) {
    if constexpr (IsQuantizedOperand<Rhs>::value) {
      withOperand(lhs, [&](const ConstDenseView& x, float factor) {
        lowerProduct(x, rhs.quantizedView(), y, epilogue, factor);
      });
    } else {
      withOperand(rhs, [&](const ConstDenseView& x, float factor) {
        lowerProduct(x.transpose(), lhs.quantizedView().transpose(), y.transpose(), epilogue.transpose(), factor);
      });
    }
  });
}

/** A product inside an expression that no kernel covers: Eigen evaluates it into its own temporary. */
template <typename Lhs, typename Rhs>
struct QuantProductImpl {
  using Scalar = typename Lhs::Scalar;
  template <typename Dst>
  static void evalTo(Dst& dst, const Lhs& lhs, const Rhs& rhs) {
    runProduct(dst, lhs, rhs, Store::of<Eigen::internal::assign_op<Scalar, Scalar>>());
  }
  template <typename Dst>
  static void addTo(Dst& dst, const Lhs& lhs, const Rhs& rhs) {
    runProduct(dst, lhs, rhs, Store::of<Eigen::internal::add_assign_op<Scalar, Scalar>>());
  }
  template <typename Dst>
  static void subTo(Dst& dst, const Lhs& lhs, const Rhs& rhs) {
    runProduct(dst, lhs, rhs, Store::of<Eigen::internal::sub_assign_op<Scalar, Scalar>>());
  }
};

/** y (+)= op(W)·x in double, by the reference kernel: for gradient checks, which float sums are too coarse for. */
template <typename W, typename X, typename Y>
void exactProduct(const QuantizedBase<W>& w, bool transposed, const Eigen::MatrixBase<X>& x,
                  const Eigen::MatrixBase<Y>& y, bool accumulate) {
  static_assert(std::is_same<typename X::Scalar, double>::value && std::is_same<typename Y::Scalar, double>::value,
                "exactProduct is for double operands");
  QuantizedView view = QuantizedAccess<W>::view(w.derived());
  if (transposed) view = view.transpose();
  Store store;
  store.accumulates = accumulate;
  Y& dst = y.const_cast_derived();
  eigen_assert(dst.rows() == (transposed ? w.cols() : w.rows()) && dst.cols() == x.cols());
  eigen_assert(x.rows() == (transposed ? w.rows() : w.cols()));
  storeTo(dst, store, [&](const DenseView& out, const Epilogue& epilogue) {
    withOperand(x.derived(), [&](const ConstDenseView& in, float factor) {
      lowerProduct(in.transpose(), view.transpose(), out.transpose(), epilogue.transpose(), factor);
    });
  });
}

}  // namespace internal
}  // namespace EigenQ

namespace Eigen {
namespace internal {

template <typename Lhs, typename Xpr, typename Scalar, int Tag>
struct generic_product_impl<Lhs, EigenQ::QuantizedOperand<Xpr, Scalar>, DenseShape, EigenQ::internal::QuantizedShape,
                            Tag> : EigenQ::internal::QuantProductImpl<Lhs, EigenQ::QuantizedOperand<Xpr, Scalar>> {};
template <typename Rhs, typename Xpr, typename Scalar, int Tag>
struct generic_product_impl<EigenQ::QuantizedOperand<Xpr, Scalar>, Rhs, EigenQ::internal::QuantizedShape, DenseShape,
                            Tag> : EigenQ::internal::QuantProductImpl<EigenQ::QuantizedOperand<Xpr, Scalar>, Rhs> {};

}  // namespace internal
}  // namespace Eigen

#endif  // EIGENQ_QUANTPRODUCT_H
