// SPDX-License-Identifier: MPL-2.0
// The int8 quantisation types of bitsandbytes 0.43: one scale a vector or one for the whole matrix, symmetric or
// affine. Source: Dettmers et al., LLM.int8(), arXiv:2208.07339, and bitsandbytes 0.43.0, vectorwise_quant.
#ifndef EIGENQ_VECTORWISE_H
#define EIGENQ_VECTORWISE_H

#include <Eigen/Core>

#include "Quantize.h"
#include "VectorwiseCodec.h"

namespace EigenQ {

/** Which vectors share a statistic: the original's dim = -1 and dim = 0. */
enum class VectorAxis : std::uint8_t { kRows, kCols };

/** int8 codes of a matrix and what decodes them. */
struct VectorwiseQuantized {
  VectorwiseType type = VectorwiseType::kVector;
  VectorAxis axis = VectorAxis::kRows;
  Int8Codes codes;             // m×k; [-127, 127], or [-128, 127] for the zero-point types
  Eigen::VectorXf stats;       // one a row or a column, or a single one; NaN where the vector holds a NaN
  Eigen::VectorXd zeroPoints;  // of as many whole numbers for the zero-point types, else empty
};

namespace internal {

template <typename Derived>
VectorwiseQuantized quantizeRowsVectorwise(const Eigen::MatrixBase<Derived>& x, VectorwiseType type) {
  DirectOrPlain<Derived> direct(x.derived());
  VectorwiseQuantized q;
  q.type = type;
  q.codes.resize(x.rows(), x.cols());
  q.stats.resize(isWholeMatrix(type) ? 1 : x.rows());
  q.zeroPoints.resize(isZeropoint(type) ? q.stats.size() : 0);
  quantizeVectorwise(viewOf(direct), type, q.codes.data(), q.stats.data(), q.zeroPoints.data());
  return q;
}

/** The value of code (i, j). */
inline double decodeVectorwise(const VectorwiseQuantized& q, Index i, Index j) {
  const Index v = isWholeMatrix(q.type) ? 0 : q.axis == VectorAxis::kRows ? i : j;
  return decodeVectorwise(q.type, q.codes(i, j), q.stats[v], isZeropoint(q.type) ? q.zeroPoints[v] : 0);
}

/** Its rows; for a matrix quantised by columns, its columns. */
inline VectorwiseRows rowsOf(const VectorwiseQuantized& q) {
  CodesView codes{q.codes.data(), q.codes.rows(), q.codes.cols(), q.codes.cols(), 1};
  if (q.axis == VectorAxis::kCols) codes = codes.transpose();
  return {q.type, codes, q.stats.data(), q.zeroPoints.data()};
}

}  // namespace internal

/** Quantises \a x by rows or columns.
 * \param x  m×k of any supported scalar; computed in float from the values as they are (the original computes in x's
 *           type, where bfloat16's 127.5 wraps to -128). It is not modified (the original clips in place).
 * Error: half a step, s/254 or 1/(2s), beside float rounding; for kTruncatedVector of what is not clipped. Ties to
 * even. A vector of zeros has codes 0. A range that is zero, or so small that 255 over it overflows, counts as 1. A NaN
 * in a vector, and for the zero-point types an infinity, makes its statistic NaN, so that every product with it shows;
 * an infinity makes an absmax infinite and its codes 0, which decode to NaN. Codes plus zero points are the floats that
 * the original returns for the zero-point types. */
template <typename Derived>
VectorwiseQuantized vectorwiseQuant(const Eigen::MatrixBase<Derived>& x, VectorwiseType type,
                                    VectorAxis axis = VectorAxis::kRows) {
  if (axis == VectorAxis::kRows) return internal::quantizeRowsVectorwise(x, type);
  VectorwiseQuantized q = internal::quantizeRowsVectorwise(x.transpose(), type);
  q.axis = axis;
  q.codes = Int8Codes(q.codes.transpose());
  return q;
}

/** The decoded matrix, each value rounded once from double. */
template <typename Scalar = float>
RowMajorMatrix<Scalar> vectorwiseDequant(const VectorwiseQuantized& q) {
  return RowMajorMatrix<Scalar>::NullaryExpr(q.codes.rows(), q.codes.cols(), [&q](Index i, Index j) {
    return static_cast<Scalar>(internal::decodeVectorwise(q, i, j));
  });
}

}  // namespace EigenQ

#endif  // EIGENQ_VECTORWISE_H
