// SPDX-License-Identifier: MPL-2.0
// LLM.int8() as plain functions on Eigen matrices: the passes of bitsandbytes' MatMul8bitLt. One token = one row, the
// weight n×k. Source: Dettmers et al., LLM.int8(), arXiv:2208.07339, section 3. What differs from the original and why:
// doc/parity.md.
#ifndef EIGENQ_MATMUL8BITLT_H
#define EIGENQ_MATMUL8BITLT_H

#include <vector>

#include <Eigen/Core>

#include "Int8Linear.h"
#include "WithBias.h"

namespace EigenQ {

/** Gradients of an int8 linear layer; matrices that were not asked for are 0×0. */
template <typename Scalar, typename WeightScalar = Scalar>
struct MatMul8bitLtGradients {
  RowMajorMatrix<Scalar> a;                             // m×k
  RowMajorMatrix<WeightScalar> b;                       // n×k
  Eigen::Matrix<WeightScalar, Eigen::Dynamic, 1> bias;  // n
};

namespace internal {

/** \a multiply of a batch of matrices with \a cols columns each, as one matrix of all their rows, and taken apart
 * again. */
template <typename Matrix, typename A, typename Multiply>
std::vector<Matrix> ofStackedRows(const std::vector<A>& batch, Index cols, const Multiply& multiply) {
  Index rows = 0;
  for (const A& a : batch) rows += a.rows();
  Matrix stacked(rows, cols);
  rows = 0;
  for (const A& a : batch) {
    eigen_assert(a.cols() == cols && "matMul8bitLt: A*B': inner dimensions differ");
    stacked.middleRows(rows, a.rows()) = a;
    rows += a.rows();
  }
  const Matrix y = multiply(stacked);
  std::vector<Matrix> results;
  rows = 0;
  for (const A& a : batch) {
    results.emplace_back(y.middleRows(rows, a.rows()));
    rows += a.rows();
  }
  return results;
}

}  // namespace internal

/** Y = A·Bᵀ + bias with int8 codes of A, made here, and of B, kept in \a state.
 * \param a     m×k of float, half or bfloat16, quantised by rows from its own values; columns that hold a magnitude of
 *              state.threshold or more are multiplied as they are with those of B, which are decoded where the state
 *              has only codes. A batch of tokens lying one after the other is a Map of all its rows.
 * \param b     n×k in any of these scalars. Quantised where the state has no codes; again on every call while
 *              hasFp16Weights and isTraining, unless hasAccumulatedGradients
 * \param state its codes and outlierColumns are updated
 * \param bias  n values of any scalar, or empty
 * \returns m×n in A's scalar, rounded once: sums are exact, scaled in double, outliers and bias added in float.
 * A NaN in a row of A makes that row of Y NaN, one in a row of B its column; so does an infinity that is no outlier. A
 * sum of nothing (k = 0) is the bias. Throws FormatError where the state's parts do not fit, std::invalid_argument for
 * a threshold that is negative or NaN. */
template <typename A, typename B, typename Bias = internal::NoBias>
RowMajorMatrix<typename A::Scalar> matMul8bitLt(const Eigen::MatrixBase<A>& a, const Eigen::MatrixBase<B>& b,
                                                MatmulLtState& state,
                                                const Eigen::MatrixBase<Bias>& bias = internal::NoBias()) {
  eigen_assert(a.cols() == b.cols() && "matMul8bitLt: A*B': inner dimensions differ");
  internal::DirectOrPlain<A> x(a.derived());
  internal::DirectOrPlain<B> w(b.derived());
  return internal::withBias<typename A::Scalar>(
      a.rows(), b.rows(), bias, [&](const internal::DenseView& y, const internal::Epilogue& epilogue) {
        internal::int8LinearForward(internal::HostInt8Linear(), internal::viewOf(x), internal::viewOf(w), state, y,
                                    epilogue);
      });
}

/** The same for a weight that is kept in codes only. */
template <typename A, typename Bias = internal::NoBias>
RowMajorMatrix<typename A::Scalar> matMul8bitLt(const Eigen::MatrixBase<A>& a, MatmulLtState& state,
                                                const Eigen::MatrixBase<Bias>& bias = internal::NoBias()) {
  internal::DirectOrPlain<A> x(a.derived());
  return internal::withBias<typename A::Scalar>(
      a.rows(), state.rowStats.size(), bias, [&](const internal::DenseView& y, const internal::Epilogue& epilogue) {
        internal::int8LinearForward(internal::HostInt8Linear(), internal::viewOf(x), {}, state, y, epilogue);
      });
}

/** The same for a batch of matrices with k columns each, the original's 3-D input: they count as one matrix of all
 * their rows, so outlier columns are those of the whole batch. */
template <typename A, typename B, typename Bias = internal::NoBias>
std::vector<RowMajorMatrix<typename A::Scalar>> matMul8bitLt(const std::vector<A>& batch, const Eigen::MatrixBase<B>& b,
                                                             MatmulLtState& state,
                                                             const Eigen::MatrixBase<Bias>& bias = internal::NoBias()) {
  return internal::ofStackedRows<RowMajorMatrix<typename A::Scalar>>(
      batch, b.cols(), [&](const auto& stacked) { return matMul8bitLt(stacked, b, state, bias); });
}

/** ∂L/∂A = G·Ŵ for G = ∂L/∂Y, m×n: with the dequantised codes, tiled or not; with state.transposedCodes, if there are
 * any, as an integer product whose factors are quantised by G's rows and W's columns. Rounded once.
 * Throws FormatError where the state has no codes. */
template <typename G>
RowMajorMatrix<typename G::Scalar> matMul8bitLtGradA(const Eigen::MatrixBase<G>& g, const MatmulLtState& state) {
  internal::DirectOrPlain<G> direct(g.derived());
  const Index k = state.codes.size() != 0 ? state.codes.cols() : state.tiledCodes.cols;
  eigen_assert(g.cols() == state.rowStats.size() && "matMul8bitLtGradA: the gradient has not one column per output");
  RowMajorMatrix<typename G::Scalar> dx(g.rows(), k);
  internal::int8LinearInputGradient(internal::HostInt8Linear(), internal::viewOf(direct), state,
                                    internal::mutableViewOf(dx), {});
  return dx;
}

/** ∂L/∂B = Gᵀ·A, n×k in G's scalar: both factors quantised over the tokens, each feature of A and each output of G by
 * its own absmax, but for the columns \a outlierColumns of A, which are multiplied in full precision; pass those that
 * the forward pass left in its state. With state.forceNoIgemmlt nothing is quantised. Error: each factor is off by half
 * a step of its column; the sum is exact, and rounded once. (bitsandbytes from 0.45 on scales row codes with column
 * statistics here: doc/parity.md.) */
template <typename G, typename A>
RowMajorMatrix<typename G::Scalar> matMul8bitLtGradB(const Eigen::MatrixBase<G>& g, const Eigen::MatrixBase<A>& a,
                                                     const MatmulLtState& state, const IndexVector& outlierColumns) {
  using Scalar = typename G::Scalar;
  eigen_assert(g.rows() == a.rows() && "matMul8bitLtGradB: G and A have not the same tokens");
  const auto exact = [&](const auto& columns) -> Eigen::MatrixXd {
    return g.template cast<double>().transpose() * columns.template cast<double>();
  };
  if (state.forceNoIgemmlt) return exact(a).template cast<Scalar>();
  internal::DirectOrPlain<G> directG(g.derived());
  internal::DirectOrPlain<A> directA(a.derived());
  RowMajorMatrix<Scalar> dw(g.cols(), a.cols());
  internal::int8LinearWeightGradient(internal::HostInt8Linear(), internal::viewOf(directG), internal::viewOf(directA),
                                     outlierColumns, internal::mutableViewOf(dw), {});
  for (const Index k : outlierColumns) dw.col(k) = exact(a.col(k)).template cast<Scalar>();
  return dw;
}

/** All gradients of matMul8bitLt(a, b, state, bias) for a float weight. \param outlierColumns  of that forward pass */
template <typename G, typename A>
MatMul8bitLtGradients<typename G::Scalar> matMul8bitLtBackward(const Eigen::MatrixBase<G>& g,
                                                               const Eigen::MatrixBase<A>& a,
                                                               const MatmulLtState& state,
                                                               const IndexVector& outlierColumns) {
  return {matMul8bitLtGradA(g, state), matMul8bitLtGradB(g, a, state, outlierColumns), biasGradient(g)};
}

/** bitsandbytes' matmul: matMul8bitLt with a state of its own where none is passed. \param threshold  replaces the
 * state's if greater than 0 */
template <typename A, typename B, typename Bias = internal::NoBias>
RowMajorMatrix<typename A::Scalar> matmul(const Eigen::MatrixBase<A>& a, const Eigen::MatrixBase<B>& b,
                                          MatmulLtState& state, float threshold = 0,
                                          const Eigen::MatrixBase<Bias>& bias = internal::NoBias()) {
  if (threshold > 0) state.threshold = threshold;
  return matMul8bitLt(a, b, state, bias);
}
template <typename A, typename B, typename Bias = internal::NoBias>
RowMajorMatrix<typename A::Scalar> matmul(const Eigen::MatrixBase<A>& a, const Eigen::MatrixBase<B>& b,
                                          float threshold = 0,
                                          const Eigen::MatrixBase<Bias>& bias = internal::NoBias()) {
  MatmulLtState state;
  return matmul(a, b, state, threshold, bias);
}

}  // namespace EigenQ

#endif  // EIGENQ_MATMUL8BITLT_H
