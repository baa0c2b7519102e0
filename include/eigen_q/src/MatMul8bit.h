// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_MATMUL8BIT_H
#define EIGENQ_MATMUL8BIT_H

#include <array>
#include <string>

#include <Eigen/Core>

#include "Igemm.h"

namespace EigenQ {

struct MatMul8bitOptions {
  VectorwiseType type = VectorwiseType::kVector;
  /** Bits of the forward product, of B's and of A's gradient: 8 quantises both factors, anything else neither. */
  std::array<int, 3> precision = {8, 8, 8};
  /** Products in one call, their operands stacked in rows. With one B for all tokens, leave it at 1 and stack the
   * tokens: that is the original's A[b,s,k]·B[k,n]. */
  Index batch = 1;
};

/** Gradients of L, given Ḡ = ∂L/∂(A·B). */
template <typename Scalar>
struct MatMul8bitGradients {
  RowMajorMatrix<Scalar> a;  // of A's shape
  RowMajorMatrix<Scalar> b;  // of B's shape
};

namespace internal {

/** X·Yᵀ for X m×k and Y n×k, each of them quantised by rows, or neither: then summed in double. Rounded once. */
template <typename Scalar, typename X, typename Y>
RowMajorMatrix<Scalar> multiplyRows(const X& x, const Y& y, VectorwiseType type, int bits) {
  if (bits != 8) {
    const Eigen::MatrixXd product = x.template cast<double>() * y.template cast<double>().transpose();
    return product.template cast<Scalar>();
  }
  const VectorwiseQuantized qx = quantizeRowsVectorwise(x, type), qy = quantizeRowsVectorwise(y, type);
  return dequantizeSums<Scalar>(multiplyCodeRows(qx.codes, qy.codes), qx, qy);
}

/** Rows [first, first + count) of a quantised matrix. */
inline VectorwiseQuantized middleRows(const VectorwiseQuantized& q, Index first, Index count) {
  VectorwiseQuantized part = q;
  part.codes = Int8Codes(q.codes.middleRows(first, count));
  if (!isWholeMatrix(q.type)) {
    part.stats = Eigen::VectorXf(q.stats.segment(first, count));
    if (isZeropoint(q.type)) part.zeroPoints = Eigen::VectorXd(q.zeroPoints.segment(first, count));
  }
  return part;
}

/** Columns [first, first + count) of a matrix quantised by rows: its statistics stay. */
inline VectorwiseQuantized middleCols(const VectorwiseQuantized& q, Index first, Index count) {
  VectorwiseQuantized part = q;
  part.codes = Int8Codes(q.codes.middleCols(first, count));
  return part;
}

/** Bᵀ of each of \a batch matrices k×n stacked in rows: (batch·n)×k. */
template <typename Derived>
RowMajorMatrix<typename Derived::Scalar> transposeEach(const Eigen::MatrixBase<Derived>& b, Index batch) {
  const Index k = b.rows() / batch, n = b.cols();
  RowMajorMatrix<typename Derived::Scalar> t(batch * n, k);
  for (Index i = 0; i < batch; ++i) t.middleRows(i * n, n) = b.middleRows(i * k, k).transpose();
  return t;
}

/** Xᵢ·Yᵢᵀ for matrices stacked in rows, X (batch·m)×k and Y (batch·n)×k; a statistic of the whole matrix is one of the
 * whole batch. */
template <typename Scalar, typename X, typename Y>
RowMajorMatrix<Scalar> multiplyStackedRows(const X& x, const Y& y, Index batch, VectorwiseType type, int bits) {
  if (batch == 1) return multiplyRows<Scalar>(x, y, type, bits);
  const Index m = x.rows() / batch, n = y.rows() / batch;
  RowMajorMatrix<Scalar> result(x.rows(), n);
  if (bits != 8) {
    for (Index i = 0; i < batch; ++i) {
      result.middleRows(i * m, m) = multiplyRows<Scalar>(x.middleRows(i * m, m), y.middleRows(i * n, n), type, bits);
    }
    return result;
  }
  const VectorwiseQuantized qx = quantizeRowsVectorwise(x, type), qy = quantizeRowsVectorwise(y, type);
  for (Index i = 0; i < batch; ++i) {
    const VectorwiseQuantized xi = middleRows(qx, i * m, m), yi = middleRows(qy, i * n, n);
    result.middleRows(i * m, m) = dequantizeSums<Scalar>(multiplyCodeRows(xi.codes, yi.codes), xi, yi);
  }
  return result;
}

/** Aᵢᵀ·Gᵢ for matrices stacked in rows, A (batch·m)×k and G (batch·m)×n: (batch·k)×n. Scales run over the tokens of the
 * whole batch, as the original's. */
template <typename Scalar, typename A, typename G>
RowMajorMatrix<Scalar> contractTokens(const A& a, const G& g, Index batch, VectorwiseType type, int bits) {
  if (batch == 1) return multiplyRows<Scalar>(a.transpose(), g.transpose(), type, bits);
  const Index m = a.rows() / batch, k = a.cols();
  RowMajorMatrix<Scalar> result(batch * k, g.cols());
  if (bits != 8) {
    for (Index i = 0; i < batch; ++i) {
      result.middleRows(i * k, k) =
          multiplyRows<Scalar>(a.middleRows(i * m, m).transpose(), g.middleRows(i * m, m).transpose(), type, bits);
    }
    return result;
  }
  const VectorwiseQuantized qa = quantizeRowsVectorwise(a.transpose(), type),
                            qg = quantizeRowsVectorwise(g.transpose(), type);
  for (Index i = 0; i < batch; ++i) {
    const VectorwiseQuantized ai = middleCols(qa, i * m, m), gi = middleCols(qg, i * m, m);
    result.middleRows(i * k, k) = dequantizeSums<Scalar>(multiplyCodeRows(ai.codes, gi.codes), ai, gi);
  }
  return result;
}

inline void requireBatch(const char* function, Index batch, Index rowsA, Index rowsB) {
  if (batch >= 1 && rowsA % batch == 0 && rowsB % batch == 0) return;
  throw FormatError(function, "batch",
                    "expected a divisor of " + std::to_string(rowsA) + " and " + std::to_string(rowsB) +
                        " rows, found " + std::to_string(batch));
}

}  // namespace internal

/** A·B with both factors quantised to int8, A by rows and B by columns: the forward pass of bitsandbytes' MatMul8bit.
 * \param a  (batch·m)×k   \param b  (batch·k)×n, of A's scalar   \returns (batch·m)×n
 * Error: the integer sum is exact; each factor is off by half a step, see vectorwiseQuant; one rounding of the result.
 * Every quantisation type works; the original raises a TypeError for the zero-point ones.
 * Throws FormatError where the batch does not divide the rows, std::invalid_argument for k > 2¹⁷.
 * Source: Dettmers et al., LLM.int8(), arXiv:2208.07339, section 2. */
template <typename A, typename B>
RowMajorMatrix<typename A::Scalar> matMul8bit(const Eigen::MatrixBase<A>& a, const Eigen::MatrixBase<B>& b,
                                              const MatMul8bitOptions& options = {}) {
  internal::requireBatch("matMul8bit", options.batch, a.rows(), b.rows());
  eigen_assert(a.cols() * options.batch == b.rows() && "matMul8bit: inner dimensions differ");
  return internal::multiplyStackedRows<typename A::Scalar>(a.derived(), internal::transposeEach(b, options.batch),
                                                           options.batch, options.type, options.precision[0]);
}

/** The gradients of matMul8bit(a, b) for \a g = ∂L/∂(A·B), (batch·m)×n: G·Bᵀ with G and B quantised by rows, and Aᵀ·G
 * with both quantised over the tokens, those of all matrices of a batch together. */
template <typename A, typename B, typename G>
MatMul8bitGradients<typename G::Scalar> matMul8bitBackward(const Eigen::MatrixBase<A>& a, const Eigen::MatrixBase<B>& b,
                                                           const Eigen::MatrixBase<G>& g,
                                                           const MatMul8bitOptions& options = {}) {
  using Scalar = typename G::Scalar;
  internal::requireBatch("matMul8bitBackward", options.batch, a.rows(), b.rows());
  eigen_assert(a.cols() * options.batch == b.rows() && "matMul8bitBackward: inner dimensions differ");
  eigen_assert(g.rows() == a.rows() && g.cols() == b.cols() && "matMul8bitBackward: the gradient is not A*B's shape");
  return {
      internal::multiplyStackedRows<Scalar>(g.derived(), b.derived(), options.batch, options.type,
                                            options.precision[2]),
      internal::contractTokens<Scalar>(a.derived(), g.derived(), options.batch, options.type, options.precision[1])};
}

}  // namespace EigenQ

#endif  // EIGENQ_MATMUL8BIT_H
