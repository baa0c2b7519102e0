// SPDX-License-Identifier: MPL-2.0
// bitsandbytes' MatMul4Bit as plain functions on Eigen matrices: one token = one row, the weight n×k in NF4 or FP4,
// with plain or nested statistics. The same products stand in expressions, A * W.transpose() and G * W, which these
// are. Source: Dettmers et al., QLoRA, arXiv:2305.14314.
#ifndef EIGENQ_MATMUL4BIT_H
#define EIGENQ_MATMUL4BIT_H

#include <Eigen/Core>

#include "FourBitMatrix.h"
#include "WithBias.h"

namespace EigenQ {
namespace internal {

inline WeightView fourBitView(const ByteVector& packed, const QuantState& state, const char* function) {
  requireSize(function, "shape", static_cast<Index>(state.shape().size()), 2);
  requireSize(function, "packed", packed.size(), packedSize(state.size()));
  return WeightView::fourBit(packed.data(), state.shape()[0], state.shape()[1], state.codeTable().data(),
                             state.absmaxView(), blockShift(state.blockSize()));
}

}  // namespace internal

/** Y = A·Wᵀ + bias.
 * \param a       m×k of float, half or bfloat16
 * \param packed  the codes of W, n×k, two a byte   \param state  what decodes them
 * \param bias    n values of any scalar, or empty
 * \returns m×n in A's scalar: W is decoded to float, sums are in float, and rounded once. One row takes the kernel for
 * vectors, any block size and any k; the original falls back, with a warning, where the block size does not divide k.
 * Throws FormatError where the state is of no matrix or \a packed does not fit it. */
template <typename A, typename Bias = internal::NoBias>
RowMajorMatrix<typename A::Scalar> matMul4bit(const Eigen::MatrixBase<A>& a, const ByteVector& packed,
                                              const QuantState& state,
                                              const Eigen::MatrixBase<Bias>& bias = internal::NoBias()) {
  const internal::WeightView w = internal::fourBitView(packed, state, "matMul4bit");
  eigen_assert(a.cols() == w.cols && "matMul4bit: A*W': inner dimensions differ");
  internal::DirectOrPlain<A> x(a.derived());
  return internal::withBias<typename A::Scalar>(a.rows(), w.rows, bias,
                                                [&](const internal::DenseView& y, const internal::Epilogue& epilogue) {
                                                  internal::lower({internal::viewOf(x), w, true, y, epilogue});
                                                });
}
template <typename A, FourBitType kType, typename Bias = internal::NoBias>
RowMajorMatrix<typename A::Scalar> matMul4bit(const Eigen::MatrixBase<A>& a, const FourBitMatrix<kType>& w,
                                              const Eigen::MatrixBase<Bias>& bias = internal::NoBias()) {
  return matMul4bit(a, w.packed(), w.state(), bias);
}

/** ∂L/∂A = G·W for G = ∂L/∂Y, m×n: m×k in G's scalar. */
template <typename G>
RowMajorMatrix<typename G::Scalar> matMul4bitGradA(const Eigen::MatrixBase<G>& g, const ByteVector& packed,
                                                   const QuantState& state) {
  const internal::WeightView w = internal::fourBitView(packed, state, "matMul4bitGradA");
  eigen_assert(g.cols() == w.rows && "matMul4bitGradA: the gradient has not one column per output");
  internal::DirectOrPlain<G> direct(g.derived());
  RowMajorMatrix<typename G::Scalar> dx(g.rows(), w.cols);
  internal::lower({internal::viewOf(direct), w, false, internal::mutableViewOf(dx), {}});
  return dx;
}
template <typename G, FourBitType kType>
RowMajorMatrix<typename G::Scalar> matMul4bitGradA(const Eigen::MatrixBase<G>& g, const FourBitMatrix<kType>& w) {
  return matMul4bitGradA(g, w.packed(), w.state());
}

/** There is none: codes cannot take a gradient step. Train an adapter beside the weight (loraLinear). */
template <typename G, typename A, FourBitType kType>
void matMul4bitGradB(const Eigen::MatrixBase<G>&, const Eigen::MatrixBase<A>&, const FourBitMatrix<kType>&) {
  static_assert(sizeof(G) == 0, "A_4_BIT_WEIGHT_TAKES_NO_GRADIENT__TRAIN_AN_ADAPTER_BESIDE_IT");
}

/** bitsandbytes' matmul_4bit: matMul4bit by the name of the dispatcher. The choice between vectors and matrices is that
 * of the table of kernels (Lowering.h). */
template <typename A, typename... Arguments>
RowMajorMatrix<typename A::Scalar> matmul4bit(const Eigen::MatrixBase<A>& a, const Arguments&... arguments) {
  return matMul4bit(a, arguments...);
}

}  // namespace EigenQ

#endif  // EIGENQ_MATMUL4BIT_H
