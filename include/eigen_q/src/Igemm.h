// SPDX-License-Identifier: MPL-2.0
// Exact products of int8 codes, and what turns their sums into values.
#ifndef EIGENQ_IGEMM_H
#define EIGENQ_IGEMM_H

#include <stdexcept>
#include <string>

#include <Eigen/Core>

#include "Int8Product.h"
#include "Vectorwise.h"

namespace EigenQ {

using Int32Matrix = RowMajorMatrix<std::int32_t>;

namespace internal {

template <typename Derived>
using RowMajorCodesOf =
    std::conditional_t<hasDirectAccess<Derived>() && Derived::IsRowMajor&& int(Derived::InnerStrideAtCompileTime) == 1,
                       const Derived&, const Int8Codes>;

/** 32 bits may not hold the sum of more products. Throws std::invalid_argument. */
inline void requireInt8Depth(Index k) {
  if (k <= kInt8MaxDepth) return;
  throw std::invalid_argument("igemm: inner dimension: expected at most " + std::to_string(kInt8MaxDepth) +
                              ", for sums to fit 32 bits, found " + std::to_string(k));
}

/** A·Bᵀ for A m×k and B n×k, both with contiguous rows. */
inline Int32Matrix multiplyCodeRows(const CodesView& a, const CodesView& b) {
  eigen_assert(a.cols == b.cols && "igemm: inner dimensions differ");
  requireInt8Depth(a.cols);
  Int32Matrix c(a.rows, b.rows);
  Int8Product p;
  p.a = a.data;
  p.aStride = a.rowStride;
  p.b = b.data;
  p.bStride = b.rowStride;
  p.c = c.data();
  p.cRowStride = c.cols();
  p.cColStride = 1;
  p.m = a.rows;
  p.n = b.rows;
  p.k = a.cols;
  lower(p);
  return c;
}

/** \a batch matrices are stacked in rows. Throws FormatError where it does not divide them. */
inline void requireBatch(const char* function, Index batch, Index rowsA, Index rowsB) {
  if (batch >= 1 && rowsA % batch == 0 && rowsB % batch == 0) return;
  throw FormatError(function, "batch",
                    "expected a divisor of " + std::to_string(rowsA) + " and " + std::to_string(rowsB) +
                        " rows, found " + std::to_string(batch));
}

}  // namespace internal

/** C = A·B in int32, for int8 codes A m×k and B k×n of any storage order. Exact for codes in [-127, 127], and for -128
 * too while k < 2¹⁷. Fastest where A is row-major and B column-major: any other is copied once. The original's
 * contraction over tokens is igemm(A.transpose(), B) on stacked tokens.
 * Throws std::invalid_argument for k > 2¹⁷, where 32 bits may not hold the sum. */
template <typename A, typename B>
Int32Matrix igemm(const Eigen::MatrixBase<A>& a, const Eigen::MatrixBase<B>& b) {
  static_assert(
      std::is_same<typename A::Scalar, std::int8_t>::value && std::is_same<typename B::Scalar, std::int8_t>::value,
      "igemm multiplies int8 codes");
  const auto bt = b.derived().transpose();
  internal::RowMajorCodesOf<A> aRows(a.derived());
  internal::RowMajorCodesOf<std::decay_t<decltype(bt)>> bRows(bt);
  return internal::multiplyCodeRows({aRows.data(), aRows.rows(), aRows.cols(), aRows.outerStride()},
                                    {bRows.data(), bRows.rows(), bRows.cols(), bRows.outerStride()});
}

/** \a batch products of matrices stacked in rows: A (batch·m)×k, B (batch·k)×n, C (batch·m)×n.
 * Throws FormatError where \a batch does not divide the rows. */
template <typename A, typename B>
Int32Matrix batchedIgemm(const Eigen::MatrixBase<A>& a, const Eigen::MatrixBase<B>& b, Index batch) {
  internal::requireBatch("batchedIgemm", batch, a.rows(), b.rows());
  const Index m = a.rows() / batch, k = b.rows() / batch;
  Int32Matrix c(a.rows(), b.cols());
  for (Index i = 0; i < batch; ++i) c.middleRows(i * m, m) = igemm(a.middleRows(i * m, m), b.middleRows(i * k, k));
  return c;
}

namespace internal {

/** Dequantises the sums A·Bᵀ of two matrices that were quantised by rows. */
template <typename Scalar>
RowMajorMatrix<Scalar> dequantizeSums(const Int32Matrix& sums, const VectorwiseRows& a, const VectorwiseRows& b) {
  const auto sumOf = [](const CodesView& codes, Index i) {
    double sum = 0;
    for (Index k = 0; k < codes.cols; ++k) sum += codes.data[i * codes.rowStride + k * codes.colStride];
    return sum;
  };
  Eigen::VectorXd aSums(sums.rows()), bSums(sums.cols());
  if (isZeropoint(a.type)) {
    for (Index i = 0; i < sums.rows(); ++i) aSums[i] = sumOf(a.codes, i);
    for (Index j = 0; j < sums.cols(); ++j) bSums[j] = sumOf(b.codes, j);
  }
  const auto depth = static_cast<double>(a.codes.cols);
  return RowMajorMatrix<Scalar>::NullaryExpr(sums.rows(), sums.cols(), [&](Index i, Index j) {
    const Index va = a.vectorOf(i), vb = b.vectorOf(j);
    double sum = sums(i, j);
    if (isZeropoint(a.type)) sum = addZeroPoints(sum, a.zeroPoints[va], b.zeroPoints[vb], aSums[i], bSums[j], depth);
    return static_cast<Scalar>(
        scaleSum(sum, a.type, static_cast<double>(a.stats[va]), static_cast<double>(b.stats[vb])));
  });
}

/** Throws FormatError where sums m×n are none of codes m×k and k×n. \tparam Quantized  VectorwiseQuantized, wherever it
 * lies */
template <typename Quantized>
void requireFactors(Index rows, Index cols, const Quantized& a, const Quantized& b) {
  if (a.type != b.type) throw FormatError("vectorwiseMmDequant", "type", "expected one type, found two");
  if (a.axis != VectorAxis::kRows || b.axis != VectorAxis::kCols)
    throw FormatError("vectorwiseMmDequant", "axis", "expected a by rows and b by columns");
  if (a.codes.rows() != rows || b.codes.cols() != cols || a.codes.cols() != b.codes.rows())
    throw FormatError("vectorwiseMmDequant", "codes", "expected m×k and k×n for sums m×n, found other shapes");
}

}  // namespace internal

/** The values behind \a sums = igemm(a.codes, b.codes): m×n, computed in double and rounded once to Scalar.
 * \param a  m×k, quantised by rows   \param b  k×n, quantised by columns, by the same type
 * Zero points are carried through by row and column sums of the codes. The original computes in float, with S/127 and
 * S1·S2 in the statistics' own type. Throws FormatError on shapes, axes and types that disagree. */
template <typename Scalar = float>
RowMajorMatrix<Scalar> vectorwiseMmDequant(const Int32Matrix& sums, const VectorwiseQuantized& a,
                                           const VectorwiseQuantized& b) {
  internal::requireFactors(sums.rows(), sums.cols(), a, b);
  return internal::dequantizeSums<Scalar>(sums, internal::rowsOf(a), internal::rowsOf(b));
}

}  // namespace EigenQ

#endif  // EIGENQ_IGEMM_H
