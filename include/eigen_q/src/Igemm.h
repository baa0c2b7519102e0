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

/** A·Bᵀ for A m×k and B n×k, both with contiguous rows. */
template <typename A, typename B>
Int32Matrix multiplyCodeRows(const A& a, const B& b) {
  eigen_assert(a.cols() == b.cols() && "igemm: inner dimensions differ");
  if (a.cols() > kInt8MaxDepth) {
    throw std::invalid_argument("igemm: inner dimension: expected at most " + std::to_string(kInt8MaxDepth) +
                                ", for sums to fit 32 bits, found " + std::to_string(a.cols()));
  }
  Int32Matrix c(a.rows(), b.rows());
  Int8Product p;
  p.a = a.data();
  p.aStride = a.outerStride();
  p.b = b.data();
  p.bStride = b.outerStride();
  p.c = c.data();
  p.cRowStride = c.cols();
  p.cColStride = 1;
  p.m = a.rows();
  p.n = b.rows();
  p.k = a.cols();
  lower(p);
  return c;
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
  return internal::multiplyCodeRows(aRows, bRows);
}

/** \a batch products of matrices stacked in rows: A (batch·m)×k, B (batch·k)×n, C (batch·m)×n.
 * Throws FormatError where \a batch does not divide the rows. */
template <typename A, typename B>
Int32Matrix batchedIgemm(const Eigen::MatrixBase<A>& a, const Eigen::MatrixBase<B>& b, Index batch) {
  if (batch < 1 || a.rows() % batch != 0 || b.rows() % batch != 0) {
    throw FormatError("batchedIgemm", "batch",
                      "expected a divisor of " + std::to_string(a.rows()) + " and " + std::to_string(b.rows()) +
                          " rows, found " + std::to_string(batch));
  }
  const Index m = a.rows() / batch, k = b.rows() / batch;
  Int32Matrix c(a.rows(), b.cols());
  for (Index i = 0; i < batch; ++i) c.middleRows(i * m, m) = igemm(a.middleRows(i * m, m), b.middleRows(i * k, k));
  return c;
}

namespace internal {

/** The value behind the sum of code products Σ ca·cb: with zero points, Σ(ca + za)(cb + zb). */
inline double scaleSum(double sum, VectorwiseType type, double statA, double statB) {
  return isZeropoint(type) ? sum / statA / statB : sum * (statA / 127) * (statB / 127);
}

/** Dequantises the sums A·Bᵀ of two matrices that were quantised by rows. */
template <typename Scalar>
RowMajorMatrix<Scalar> dequantizeSums(const Int32Matrix& sums, const VectorwiseQuantized& a,
                                      const VectorwiseQuantized& b) {
  const auto entry = [](const auto& v, Index i) { return static_cast<double>(v.size() == 1 ? v[0] : v[i]); };
  Eigen::VectorXd aSums = Eigen::VectorXd::Zero(sums.rows()), bSums = Eigen::VectorXd::Zero(sums.cols());
  if (isZeropoint(a.type)) {
    aSums = a.codes.cast<double>().rowwise().sum();
    bSums = b.codes.cast<double>().rowwise().sum();
  }
  RowMajorMatrix<Scalar> y(sums.rows(), sums.cols());
  for (Index i = 0; i < y.rows(); ++i) {
    for (Index j = 0; j < y.cols(); ++j) {
      double sum = sums(i, j);
      if (isZeropoint(a.type)) {
        const double za = entry(a.zeroPoints, i), zb = entry(b.zeroPoints, j);
        sum += za * bSums[j] + zb * aSums[i] + static_cast<double>(a.codes.cols()) * za * zb;
      }
      y(i, j) = static_cast<Scalar>(scaleSum(sum, a.type, entry(a.stats, i), entry(b.stats, j)));
    }
  }
  return y;
}

}  // namespace internal

/** The values behind \a sums = igemm(a.codes, b.codes): m×n, computed in double and rounded once to Scalar.
 * \param a  m×k, quantised by rows   \param b  k×n, quantised by columns, by the same type
 * Zero points are carried through by row and column sums of the codes. The original computes in float, with S/127 and
 * S1·S2 in the statistics' own type. Throws FormatError on shapes, axes and types that disagree. */
template <typename Scalar = float>
RowMajorMatrix<Scalar> vectorwiseMmDequant(const Int32Matrix& sums, const VectorwiseQuantized& a,
                                           const VectorwiseQuantized& b) {
  if (a.type != b.type) throw FormatError("vectorwiseMmDequant", "type", "expected one type, found two");
  if (a.axis != VectorAxis::kRows || b.axis != VectorAxis::kCols)
    throw FormatError("vectorwiseMmDequant", "axis", "expected a by rows and b by columns");
  if (a.codes.rows() != sums.rows() || b.codes.cols() != sums.cols() || a.codes.cols() != b.codes.rows())
    throw FormatError("vectorwiseMmDequant", "codes", "expected m×k and k×n for sums m×n, found other shapes");
  VectorwiseQuantized bt = b;
  bt.codes = Int8Codes(b.codes.transpose());
  bt.axis = VectorAxis::kRows;
  return internal::dequantizeSums<Scalar>(sums, a, bt);
}

}  // namespace EigenQ

#endif  // EIGENQ_IGEMM_H
