// SPDX-License-Identifier: MPL-2.0
// Quantised matrices as Eigen expressions: an EigenBase of a storage kind of its own, as SparseMatrix is. Transpose<>,
// Block<> and scaled forms of a quantised matrix are quantised expressions too, and any nest of them collapses to one
// view of the codes.
#ifndef EIGENQ_QUANTIZEDBASE_H
#define EIGENQ_QUANTIZEDBASE_H

#include "Dequantized.h"
#include "Lowering.h"

#include <Eigen/Core>

namespace EigenQ {

/** The storage kind of quantised expressions. */
struct Quantized {};

template <typename Derived>
class QuantizedBase;
template <typename Xpr>
class ScaledQuantized;

namespace internal {

struct QuantizedShape {
  static std::string debugName() { return "QuantizedShape"; }
};
struct QuantizedToDense {};

/** Scalars that may multiply a quantised matrix. */
template <typename T>
struct IsFactor : std::bool_constant<std::is_arithmetic<T>::value || std::is_same<T, Eigen::half>::value ||
                                     std::is_same<T, Eigen::bfloat16>::value> {};

/** traits shared by every quantised expression. The scalar is nominal: products take that of the dense operand. */
template <int Flags_>
struct QuantizedTraits {
  using Scalar = float;
  using StorageIndex = Eigen::Index;
  using StorageKind = Quantized;
  using XprKind = Eigen::MatrixXpr;
  enum {
    RowsAtCompileTime = Eigen::Dynamic,
    ColsAtCompileTime = Eigen::Dynamic,
    MaxRowsAtCompileTime = Eigen::Dynamic,
    MaxColsAtCompileTime = Eigen::Dynamic,
    Flags = Flags_
  };
};

}  // namespace internal
}  // namespace EigenQ

namespace Eigen {
namespace internal {

template <>
struct storage_kind_to_shape<EigenQ::Quantized> {
  using Shape = EigenQ::internal::QuantizedShape;
};
template <typename Derived, typename XprKind>
struct generic_xpr_base<Derived, XprKind, EigenQ::Quantized> {
  using type = EigenQ::QuantizedBase<Derived>;
};
template <typename Xpr>
struct traits<EigenQ::ScaledQuantized<Xpr>> : EigenQ::internal::QuantizedTraits<RowMajorBit> {};

}  // namespace internal
}  // namespace Eigen

namespace EigenQ {

namespace internal {
/** For constructors that quantise a matrix which is quantised already, perhaps in another format. */
template <typename Other>
constexpr void refuseToQuantizeAgain() {
  static_assert(sizeof(Other) == 0, "QUANTISING_A_QUANTISED_MATRIX_DECODES_IT_FIRST__SAY_SO_WITH_asDense");
}
}  // namespace internal

// Operations that look natural and are refused in words, rather than by a page of candidates that do not match.
#define EIGENQ_READ_ONLY_OPERATOR(op)                                                                         \
  template <typename Other>                                                                                   \
  void operator op(const Eigen::DenseBase<Other>&) const {                                                    \
    static_assert(sizeof(Other) == 0, "QUANTISED_MATRICES_ARE_READ_ONLY__QUANTISE_ANEW_BY_CONSTRUCTING_ONE"); \
  }
// They return matrices, so that the message is not followed by others about void.
#define EIGENQ_DENSE_ONLY_OPERATOR(op, Lhs, Rhs)                                                  \
  template <typename L, typename R>                                                               \
  Eigen::MatrixXf operator op(const Lhs<L>&, const Rhs<R>&) {                                     \
    static_assert(sizeof(L) == 0, "SUMS_WITH_A_QUANTISED_MATRIX_DECODE_IT__SAY_SO_WITH_asDense"); \
    return {};                                                                                    \
  }
#define EIGENQ_DENSE_ONLY_MEMBER(member)                                                                \
  template <typename D = Derived>                                                                       \
  auto member() const {                                                                                 \
    static_assert(sizeof(D) == 0, "THIS_DECODES_A_QUANTISED_MATRIX_CODE_BY_CODE__SAY_SO_WITH_asDense"); \
    return asDense().member();                                                                          \
  }
#define EIGENQ_REFUSED_PRODUCT(Lhs, Rhs, message)           \
  template <typename L, typename R>                         \
  Eigen::MatrixXf operator*(const Lhs<L>&, const Rhs<R>&) { \
    static_assert(sizeof(L) == 0, message);                 \
    return {};                                              \
  }

/** What every quantised expression offers: reading, transposing, windows. Nothing writes into one.
 *
 * Assigning it to a dense matrix dequantises with one kernel: D = W, D += W.topRows(8), D -= W.transpose().
 * Coefficients, rows and columns are dense and decoded on the fly; blocks stay quantised, so that products of them run
 * on the codes. */
template <typename Derived>
class QuantizedBase : public Eigen::EigenBase<Derived> {
 public:
  using Traits = Eigen::internal::traits<Derived>;
  using Scalar = typename Traits::Scalar;
  using RealScalar = Scalar;
  using CoeffReturnType = Scalar;
  using StorageKind = typename Traits::StorageKind;
  using StorageIndex = typename Traits::StorageIndex;
  using EigenBase = Eigen::EigenBase<Derived>;
  using EigenBase::cols;
  using EigenBase::const_cast_derived;
  using EigenBase::derived;
  using EigenBase::rows;
  using EigenBase::size;
  enum {
    RowsAtCompileTime = Traits::RowsAtCompileTime,
    ColsAtCompileTime = Traits::ColsAtCompileTime,
    MaxRowsAtCompileTime = Traits::MaxRowsAtCompileTime,
    MaxColsAtCompileTime = Traits::MaxColsAtCompileTime,
    SizeAtCompileTime = Eigen::Dynamic,
    MaxSizeAtCompileTime = Eigen::Dynamic,
    IsVectorAtCompileTime = 0,
    Flags = Traits::Flags,
    IsRowMajor = (int(Flags) & Eigen::RowMajorBit) != 0
  };
  using PlainObject =
      Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, IsRowMajor ? Eigen::RowMajor : Eigen::ColMajor>;
  using TransposeReturnType = const Eigen::Transpose<const Derived>;
  using BlockReturnType = const Eigen::Block<const Derived, Eigen::Dynamic, Eigen::Dynamic, false>;
  template <typename NewScalar>
  using CastReturnType = const Dequantized<Derived, NewScalar>;

  TransposeReturnType transpose() const { return TransposeReturnType(derived()); }
  TransposeReturnType adjoint() const { return transpose(); }

  BlockReturnType block(Index row, Index col, Index rows, Index cols) const {
    return BlockReturnType(derived(), row, col, rows, cols);
  }
  BlockReturnType middleRows(Index row, Index count) const { return block(row, 0, count, cols()); }
  BlockReturnType middleCols(Index col, Index count) const { return block(0, col, rows(), count); }
  BlockReturnType topRows(Index count) const { return middleRows(0, count); }
  BlockReturnType bottomRows(Index count) const { return middleRows(rows() - count, count); }
  BlockReturnType leftCols(Index count) const { return middleCols(0, count); }
  BlockReturnType rightCols(Index count) const { return middleCols(cols() - count, count); }
  BlockReturnType topLeftCorner(Index r, Index c) const { return block(0, 0, r, c); }
  BlockReturnType topRightCorner(Index r, Index c) const { return block(0, cols() - c, r, c); }
  BlockReturnType bottomLeftCorner(Index r, Index c) const { return block(rows() - r, 0, r, c); }
  BlockReturnType bottomRightCorner(Index r, Index c) const { return block(rows() - r, cols() - c, r, c); }

  /** The whole dense interface, one code at a time: W.asDense().norm(), (W.asDense() - D).cwiseAbs(). Assigning it to
   * a matrix still runs one kernel. */
  CastReturnType<Scalar> asDense() const { return CastReturnType<Scalar>(derived()); }
  /** asDense() in another scalar, each value rounded once. */
  template <typename NewScalar>
  CastReturnType<NewScalar> cast() const {
    return CastReturnType<NewScalar>(derived());
  }
  auto row(Index i) const { return asDense().row(i); }
  auto col(Index j) const { return asDense().col(j); }
  PlainObject toDenseMatrix() const { return PlainObject(derived()); }

  Scalar coeff(Index i, Index j) const { return internal::QuantizedAccess<Derived>::view(derived()).coeff(i, j); }
  Scalar operator()(Index i, Index j) const {
    eigen_assert(i >= 0 && i < rows() && j >= 0 && j < cols());
    return coeff(i, j);
  }
  /** Rows or columns by indices, as for dense matrices: W(tokens, Eigen::seqN(0, W.cols())). */
  template <
      typename Rows, typename Cols,
      std::enable_if_t<!(std::is_convertible<Rows, Index>::value && std::is_convertible<Cols, Index>::value), int> = 0>
  auto operator()(const Rows& rowIndices, const Cols& colIndices) const {
    return asDense()(rowIndices, colIndices);
  }

  EIGENQ_READ_ONLY_OPERATOR(=)
  EIGENQ_READ_ONLY_OPERATOR(+=)
  EIGENQ_READ_ONLY_OPERATOR(-=)

  EIGENQ_DENSE_ONLY_MEMBER(norm)
  EIGENQ_DENSE_ONLY_MEMBER(squaredNorm)
  EIGENQ_DENSE_ONLY_MEMBER(sum)
  EIGENQ_DENSE_ONLY_MEMBER(mean)
  EIGENQ_DENSE_ONLY_MEMBER(minCoeff)
  EIGENQ_DENSE_ONLY_MEMBER(maxCoeff)
  EIGENQ_DENSE_ONLY_MEMBER(cwiseAbs)
  EIGENQ_DENSE_ONLY_MEMBER(array)

  ScaledQuantized<Derived> operator-() const { return {derived(), -1.0f}; }
  template <typename Factor, std::enable_if_t<internal::IsFactor<Factor>::value, int> = 0>
  ScaledQuantized<Derived> operator*(const Factor& factor) const {
    return {derived(), static_cast<float>(factor)};
  }
  template <typename Factor, std::enable_if_t<internal::IsFactor<Factor>::value, int> = 0>
  ScaledQuantized<Derived> operator/(const Factor& divisor) const {
    return {derived(), 1.0f / static_cast<float>(divisor)};
  }
  template <typename Factor, std::enable_if_t<internal::IsFactor<Factor>::value, int> = 0>
  friend ScaledQuantized<Derived> operator*(const Factor& factor, const QuantizedBase& w) {
    return {w.derived(), static_cast<float>(factor)};
  }
};

EIGENQ_DENSE_ONLY_OPERATOR(+, QuantizedBase, Eigen::DenseBase)
EIGENQ_DENSE_ONLY_OPERATOR(+, Eigen::DenseBase, QuantizedBase)
EIGENQ_DENSE_ONLY_OPERATOR(+, QuantizedBase, QuantizedBase)
EIGENQ_DENSE_ONLY_OPERATOR(-, QuantizedBase, Eigen::DenseBase)
EIGENQ_DENSE_ONLY_OPERATOR(-, Eigen::DenseBase, QuantizedBase)
EIGENQ_DENSE_ONLY_OPERATOR(-, QuantizedBase, QuantizedBase)

EIGENQ_REFUSED_PRODUCT(QuantizedBase, QuantizedBase, "PRODUCTS_TAKE_ONE_QUANTISED_MATRIX__DEQUANTISE_THE_OTHER")
// Arrays, diagonal, triangular and sparse matrices: dense ones match better.
EIGENQ_REFUSED_PRODUCT(QuantizedBase, Eigen::EigenBase, "QUANTISED_PRODUCTS_TAKE_DENSE_MATRICES__CONVERT_THE_OTHER")
EIGENQ_REFUSED_PRODUCT(Eigen::EigenBase, QuantizedBase, "QUANTISED_PRODUCTS_TAKE_DENSE_MATRICES__CONVERT_THE_OTHER")

#undef EIGENQ_READ_ONLY_OPERATOR
#undef EIGENQ_DENSE_ONLY_OPERATOR
#undef EIGENQ_DENSE_ONLY_MEMBER
#undef EIGENQ_REFUSED_PRODUCT

/** factor·W, unevaluated: the factor joins the scale of the product or the dequantised value. */
template <typename Xpr>
class ScaledQuantized : public QuantizedBase<ScaledQuantized<Xpr>> {
 public:
  using Nested = ScaledQuantized;
  using NestedExpression = ScaledQuantized;

  ScaledQuantized(const Xpr& xpr, float factor) : m_xpr(xpr), m_factor(factor) {}

  Index rows() const { return m_xpr.rows(); }
  Index cols() const { return m_xpr.cols(); }
  internal::QuantizedView quantizedView() const { return internal::QuantizedAccess<Xpr>::view(m_xpr).scaled(m_factor); }

 private:
  typename Eigen::internal::ref_selector<Xpr>::type m_xpr;
  float m_factor;
};

}  // namespace EigenQ

namespace Eigen {

/** A window of a quantised expression. It stays quantised; there is none to write into. */
template <typename Xpr, int BlockRows, int BlockCols, bool InnerPanel>
class BlockImpl<Xpr, BlockRows, BlockCols, InnerPanel, EigenQ::Quantized>
    : public EigenQ::QuantizedBase<Block<Xpr, BlockRows, BlockCols, InnerPanel>> {
 public:
  using EigenQ::QuantizedBase<Block<Xpr, BlockRows, BlockCols, InnerPanel>>::operator=;

  BlockImpl(Xpr& xpr, Index row, Index col, Index rows, Index cols)
      : m_xpr(xpr), m_row(row), m_col(col), m_rows(rows), m_cols(cols) {}

  Index rows() const { return m_rows; }
  Index cols() const { return m_cols; }
  Index startRow() const { return m_row; }
  Index startCol() const { return m_col; }
  const std::remove_const_t<Xpr>& nestedExpression() const { return m_xpr; }

 private:
  typename internal::ref_selector<Xpr>::type m_xpr;
  Index m_row, m_col, m_rows, m_cols;
};

namespace internal {

template <>
struct AssignmentKind<DenseShape, EigenQ::internal::QuantizedShape> {
  using Kind = EigenQ::internal::QuantizedToDense;
};
template <typename Dst, typename Src, typename Functor>
struct Assignment<Dst, Src, Functor, EigenQ::internal::QuantizedToDense> {
  static void run(Dst& dst, const Src& src, const Functor& functor) {
    resize_if_allowed(dst, src, functor);
    EigenQ::internal::assignDequantized<Functor>(dst, EigenQ::internal::QuantizedAccess<Src>::view(src));
  }
};

}  // namespace internal
}  // namespace Eigen

#endif  // EIGENQ_QUANTIZEDBASE_H
