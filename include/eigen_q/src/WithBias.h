// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_WITHBIAS_H
#define EIGENQ_WITHBIAS_H

#include <Eigen/Core>

#include "EigenViews.h"
#include "Quantize.h"

namespace EigenQ {
namespace internal {

/** Whatever is empty stands for "no bias". */
using NoBias = Eigen::Matrix<float, Eigen::Dynamic, 1>;

/** y = X·Wᵀ + b for a bias of any scalar: one of another type than the result is added in float, before the result's
 * only rounding. \a run writes the product into a view. */
template <typename Scalar, typename Bias, typename Run>
RowMajorMatrix<Scalar> withBias(Index rows, Index cols, const Eigen::MatrixBase<Bias>& bias, const Run& run) {
  using BiasScalar = typename Bias::Scalar;
  eigen_assert((bias.size() == 0 || (bias.size() == cols && (bias.rows() == 1 || bias.cols() == 1))) &&
               "the bias is not a vector of one value per output");
  Epilogue epilogue;
  if constexpr (!std::is_same<Scalar, BiasScalar>::value && !std::is_same<Scalar, float>::value) {
    if (bias.size() != 0) return withBias<float>(rows, cols, bias.template cast<float>(), run).template cast<Scalar>();
  }
  const Eigen::Matrix<Scalar, Eigen::Dynamic, 1> b = bias.template cast<Scalar>().reshaped();
  if (b.size() != 0) {
    epilogue.biasAxis = BiasAxis::kPerCol;
    epilogue.bias = b.data();
  }
  RowMajorMatrix<Scalar> y(rows, cols);
  run(mutableViewOf(y), epilogue);
  return y;
}

}  // namespace internal

/** ∂L/∂bias: the sum of G over its tokens, in double, rounded once. */
template <typename G>
Eigen::Matrix<typename G::Scalar, Eigen::Dynamic, 1> biasGradient(const Eigen::MatrixBase<G>& g) {
  return g.template cast<double>().colwise().sum().transpose().template cast<typename G::Scalar>();
}

}  // namespace EigenQ

#endif  // EIGENQ_WITHBIAS_H
