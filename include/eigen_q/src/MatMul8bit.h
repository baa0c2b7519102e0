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

/** What the products below are made of where matrices lie on the host; EigenQ::gpu has the same for the device. */
struct HostVectorwise {
  template <typename Scalar>
  using Matrix = RowMajorMatrix<Scalar>;

  template <typename X>
  static VectorwiseQuantized quantizeRows(const X& x, VectorwiseType type) {
    return quantizeRowsVectorwise(x, type);
  }
  static VectorwiseRows rows(const VectorwiseQuantized& q) { return rowsOf(q); }
  /** y = the product of the decoded rows, A·Bᵀ, rounded once. */
  template <typename Y>
  static void multiply(const VectorwiseRows& a, const VectorwiseRows& b, Y y) {
    y = dequantizeSums<typename Y::Scalar>(multiplyCodeRows(a.codes, b.codes), a, b);
  }
  /** y = A·B summed in double, rounded once. */
  template <typename A, typename B, typename Y>
  static void multiplyExactly(const A& a, const B& b, Y y) {
    const Eigen::MatrixXd product = a.template cast<double>() * b.template cast<double>();
    y = product.template cast<typename Y::Scalar>();
  }
};

/** Bᵀ of each of \a batch matrices k×n stacked in rows: (batch·n)×k. */
template <typename Ops, typename B>
auto transposeEach(const Ops&, const B& b, Index batch) {
  const Index k = b.rows() / batch, n = b.cols();
  typename Ops::template Matrix<typename B::Scalar> t(batch * n, k);
  for (Index i = 0; i < batch; ++i) t.middleRows(i * n, n) = b.middleRows(i * k, k).transpose();
  return t;
}

/** Xᵢ·Yᵢᵀ for matrices stacked in rows, X (batch·m)×k and Y (batch·n)×k, both quantised by rows where \a bits is 8, or
 * neither. A statistic of the whole matrix is one of the whole batch. */
template <typename Scalar, typename Ops, typename X, typename Y>
auto multiplyStackedRows(const Ops& ops, const X& x, const Y& y, Index batch, VectorwiseType type, int bits) {
  const Index m = x.rows() / batch, n = y.rows() / batch;
  typename Ops::template Matrix<Scalar> result(x.rows(), n);
  if (bits != 8) {
    for (Index i = 0; i < batch; ++i)
      ops.multiplyExactly(x.middleRows(i * m, m), y.middleRows(i * n, n).transpose(), result.middleRows(i * m, m));
    return result;
  }
  const auto qx = ops.quantizeRows(x, type), qy = ops.quantizeRows(y, type);
  for (Index i = 0; i < batch; ++i)
    ops.multiply(ops.rows(qx).middleRows(i * m, m), ops.rows(qy).middleRows(i * n, n), result.middleRows(i * m, m));
  return result;
}

/** Aᵢᵀ·Gᵢ for matrices stacked in rows, A (batch·m)×k and G (batch·m)×n: (batch·k)×n. Scales run over the tokens of the
 * whole batch, as the original's. */
template <typename Scalar, typename Ops, typename A, typename G>
auto contractTokens(const Ops& ops, const A& a, const G& g, Index batch, VectorwiseType type, int bits) {
  const Index m = a.rows() / batch, k = a.cols();
  typename Ops::template Matrix<Scalar> result(batch * k, g.cols());
  if (bits != 8) {
    for (Index i = 0; i < batch; ++i)
      ops.multiplyExactly(a.middleRows(i * m, m).transpose(), g.middleRows(i * m, m), result.middleRows(i * k, k));
    return result;
  }
  const auto qa = ops.quantizeRows(a.transpose(), type), qg = ops.quantizeRows(g.transpose(), type);
  for (Index i = 0; i < batch; ++i)
    ops.multiply(ops.rows(qa).middleCols(i * m, m), ops.rows(qg).middleCols(i * m, m), result.middleRows(i * k, k));
  return result;
}

/** matMul8bit wherever its operands lie. */
template <typename Ops, typename A, typename B>
auto matMul8bit(const Ops& ops, const A& a, const B& b, const MatMul8bitOptions& options) {
  using Scalar = typename A::Scalar;
  const Index batch = options.batch;
  requireBatch("matMul8bit", batch, a.rows(), b.rows());
  eigen_assert(a.cols() * batch == b.rows() && "matMul8bit: inner dimensions differ");
  const auto multiply = [&](const auto& bt) {
    return multiplyStackedRows<Scalar>(ops, a, bt, batch, options.type, options.precision[0]);
  };
  if (batch == 1) return multiply(b.transpose());
  return multiply(transposeEach(ops, b, batch));
}

/** matMul8bitBackward wherever its operands lie. \tparam Gradients  MatMul8bitGradients */
template <typename Gradients, typename Ops, typename A, typename B, typename G>
Gradients matMul8bitBackward(const Ops& ops, const A& a, const B& b, const G& g, const MatMul8bitOptions& options) {
  using Scalar = typename G::Scalar;
  requireBatch("matMul8bitBackward", options.batch, a.rows(), b.rows());
  eigen_assert(a.cols() * options.batch == b.rows() && "matMul8bitBackward: inner dimensions differ");
  eigen_assert(g.rows() == a.rows() && g.cols() == b.cols() && "matMul8bitBackward: the gradient is not A*B's shape");
  return {multiplyStackedRows<Scalar>(ops, g, b, options.batch, options.type, options.precision[2]),
          contractTokens<Scalar>(ops, a, g, options.batch, options.type, options.precision[1])};
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
  return internal::matMul8bit(internal::HostVectorwise(), a.derived(), b.derived(), options);
}

/** The gradients of matMul8bit(a, b) for \a g = ∂L/∂(A·B), (batch·m)×n: G·Bᵀ with G and B quantised by rows, and Aᵀ·G
 * with both quantised over the tokens, those of all matrices of a batch together. */
template <typename A, typename B, typename G>
MatMul8bitGradients<typename G::Scalar> matMul8bitBackward(const Eigen::MatrixBase<A>& a, const Eigen::MatrixBase<B>& b,
                                                           const Eigen::MatrixBase<G>& g,
                                                           const MatMul8bitOptions& options = {}) {
  return internal::matMul8bitBackward<MatMul8bitGradients<typename G::Scalar>>(internal::HostVectorwise(), a.derived(),
                                                                               b.derived(), g.derived(), options);
}

}  // namespace EigenQ

#endif  // EIGENQ_MATMUL8BIT_H
