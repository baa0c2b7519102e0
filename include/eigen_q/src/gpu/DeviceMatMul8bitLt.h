// SPDX-License-Identifier: MPL-2.0
// LLM.int8() as plain functions on device matrices: the passes of bitsandbytes' MatMul8bitLt, by the same text as
// MatMul8bitLt.h. One token = one row, the weight n×k. They run on Context::current() and wait for nothing, but for one
// case: with state.usePool the outlier columns go to a pool on the host and back, which waits for the stream in every
// forward pass and cannot be captured in a graph. Source: Dettmers et al., LLM.int8(), arXiv:2208.07339, section 3.
#ifndef EIGENQ_GPU_DEVICEMATMUL8BITLT_H
#define EIGENQ_GPU_DEVICEMATMUL8BITLT_H

#include "../MatMul8bitLt.h"
#include "DeviceBias.h"
#include "DeviceInt8Linear.h"

namespace EigenQ {
namespace gpu {

/** Gradients of an int8 linear layer. */
template <typename Scalar>
struct MatMul8bitLtGradients {
  DeviceMatrix<Scalar, Eigen::RowMajor> a;  // m×k
  DeviceMatrix<Scalar, Eigen::RowMajor> b;  // n×k
  DeviceMatrix<Scalar> bias;                // n×1
};

/** Y = A·Bᵀ + bias, as EigenQ::matMul8bitLt.
 * \param a     m×k of float, half or bfloat16, of any strides
 * \param b     n×k in any of these scalars
 * \param state its codes are updated; its outlierColumns are found and stay on the device
 * \param bias  n values of any of these scalars, or empty
 * \returns m×n in A's scalar, rounded once. Integer sums are those of the host; outlier columns are summed in float in
 * the order of the columns. Throws as on the host. */
template <typename A, typename B, typename Bias = internal::NoBias>
DeviceMatrix<typename A::Scalar, Eigen::RowMajor> matMul8bitLt(const DeviceBase<A>& a, const DeviceBase<B>& b,
                                                               MatmulLtState& state,
                                                               const DeviceBase<Bias>& bias = internal::NoBias()) {
  eigen_assert(a.cols() == b.cols() && "matMul8bitLt: A*B': inner dimensions differ");
  const internal::DeviceInt8Linear ops;
  const internal::ConstDenseView x = internal::toRead(a, ops.context).dense();
  const internal::ConstDenseView w = internal::toRead(b, ops.context).dense();
  return internal::withBias<typename A::Scalar>(a.rows(), b.rows(), bias,
                                                [&](const internal::DenseView& y, const internal::Epilogue& epilogue) {
                                                  EigenQ::internal::int8LinearForward(ops, x, w, state, y, epilogue);
                                                });
}

/** The same for a weight that is kept in codes only. */
template <typename A, typename Bias = internal::NoBias>
DeviceMatrix<typename A::Scalar, Eigen::RowMajor> matMul8bitLt(const DeviceBase<A>& a, MatmulLtState& state,
                                                               const DeviceBase<Bias>& bias = internal::NoBias()) {
  const internal::DeviceInt8Linear ops;
  const internal::ConstDenseView x = internal::toRead(a, ops.context).dense();
  return internal::withBias<typename A::Scalar>(a.rows(), state.rowStats.size(), bias,
                                                [&](const internal::DenseView& y, const internal::Epilogue& epilogue) {
                                                  EigenQ::internal::int8LinearForward(ops, x, {}, state, y, epilogue);
                                                });
}

/** The same for a batch of matrices with k columns each: they count as one matrix of all their rows. */
template <typename A, typename B, typename Bias = internal::NoBias>
std::vector<DeviceMatrix<typename A::Scalar, Eigen::RowMajor>> matMul8bitLt(
    const std::vector<A>& batch, const DeviceBase<B>& b, MatmulLtState& state,
    const DeviceBase<Bias>& bias = internal::NoBias()) {
  return EigenQ::internal::ofStackedRows<DeviceMatrix<typename A::Scalar, Eigen::RowMajor>>(
      batch, b.cols(), [&](const auto& stacked) { return matMul8bitLt(stacked, b, state, bias); });
}

/** ∂L/∂A = G·Ŵ for G = ∂L/∂Y, m×n, as EigenQ::matMul8bitLtGradA. */
template <typename G>
DeviceMatrix<typename G::Scalar, Eigen::RowMajor> matMul8bitLtGradA(const DeviceBase<G>& g,
                                                                    const MatmulLtState& state) {
  const internal::DeviceInt8Linear ops;
  const Index k = state.codes.size() != 0 ? state.codes.cols() : state.tiledCodes.cols;
  eigen_assert(g.cols() == state.rowStats.size() && "matMul8bitLtGradA: the gradient has not one column per output");
  DeviceMatrix<typename G::Scalar, Eigen::RowMajor> dx(g.rows(), k, ops.context);
  EigenQ::internal::int8LinearInputGradient(ops, internal::toRead(g, ops.context).dense(), state,
                                            internal::toWrite(dx, ops.context).mutableDense(), {});
  return dx;
}

/** ∂L/∂B = Gᵀ·A, n×k in G's scalar, as EigenQ::matMul8bitLtGradB. Columns of outliers are summed in double from the
 * first token to the last. With state.forceNoIgemmlt nothing is quantised and sums are in float. */
template <typename G, typename A>
DeviceMatrix<typename G::Scalar, Eigen::RowMajor> matMul8bitLtGradB(const DeviceBase<G>& g, const DeviceBase<A>& a,
                                                                    const MatmulLtState& state,
                                                                    const OutlierColumns& outlierColumns) {
  eigen_assert(g.rows() == a.rows() && "matMul8bitLtGradB: G and A have not the same tokens");
  const internal::DeviceInt8Linear ops;
  DeviceMatrix<typename G::Scalar, Eigen::RowMajor> dw(g.cols(), a.cols(), ops.context);
  const internal::ConstDenseView gView = internal::toRead(g, ops.context).dense();
  const internal::ConstDenseView aView = internal::toRead(a, ops.context).dense();
  const internal::DenseView dwView = internal::toWrite(dw, ops.context).mutableDense();
  if (state.forceNoIgemmlt) {
    internal::multiply(gView.transpose(), aView, dwView, ops.context);
    return dw;
  }
  const internal::OutlierList outliers = outlierColumns.toRead(ops.context);
  EigenQ::internal::int8LinearWeightGradient(ops, gView, aView, outliers, dwView, {});
  internal::outlierGradient(gView, aView, outliers, dwView, /*accumulate=*/false, ops.context);
  return dw;
}

/** All gradients of matMul8bitLt(a, b, state, bias) for a float weight. \param outlierColumns  of that forward pass */
template <typename G, typename A>
MatMul8bitLtGradients<typename G::Scalar> matMul8bitLtBackward(const DeviceBase<G>& g, const DeviceBase<A>& a,
                                                               const MatmulLtState& state,
                                                               const OutlierColumns& outlierColumns) {
  return {matMul8bitLtGradA(g, state), matMul8bitLtGradB(g, a, state, outlierColumns), biasGradient(g)};
}

/** bitsandbytes' matmul: matMul8bitLt with a state of its own where none is passed. \param threshold  replaces the
 * state's if greater than 0 */
template <typename A, typename B, typename Bias = internal::NoBias>
DeviceMatrix<typename A::Scalar, Eigen::RowMajor> matmul(const DeviceBase<A>& a, const DeviceBase<B>& b,
                                                         MatmulLtState& state, float threshold = 0,
                                                         const DeviceBase<Bias>& bias = internal::NoBias()) {
  if (threshold > 0) state.threshold = threshold;
  return matMul8bitLt(a, b, state, bias);
}
template <typename A, typename B, typename Bias = internal::NoBias>
DeviceMatrix<typename A::Scalar, Eigen::RowMajor> matmul(const DeviceBase<A>& a, const DeviceBase<B>& b,
                                                         float threshold = 0,
                                                         const DeviceBase<Bias>& bias = internal::NoBias()) {
  MatmulLtState state;
  return matmul(a, b, state, threshold, bias);
}

}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_GPU_DEVICEMATMUL8BITLT_H
