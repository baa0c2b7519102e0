// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_OPS_SOFTMAX_H
#define EIGENQ_OPS_SOFTMAX_H

#include <cmath>

#include <type_traits>

#include <eigen_q/src/FloatKernels.h>

#include "../Tape.h"

namespace EigenQ {
namespace ad {

namespace internal {
/** log Σᵢ exp(xᵢ) of a non-empty column, without overflow. */
template <typename Column>
typename Column::Scalar logSumExp(const Column& x) {
  if constexpr (std::is_same_v<typename Column::Scalar, float>) {
    return EigenQ::internal::floatKernels().logSumExp(x.size(), x.data());
  } else {
    const typename Column::Scalar top = x.maxCoeff();
    return top + std::log((x.array() - top).exp().sum());
  }
}

/** y = factor·exp(x - shift), or added to it; y may be x. */
template <typename Column, typename Target>
void scaledExp(const Column& x, typename Column::Scalar shift, typename Column::Scalar factor, Target&& y,
               bool accumulate) {
  if constexpr (std::is_same_v<typename Column::Scalar, float>)
    EigenQ::internal::floatKernels().scaledExp(x.size(), x.data(), shift, factor, y.data(), accumulate);
  else if (accumulate)
    y.array() += factor * (x.array() - shift).exp();
  else
    y.array() = factor * (x.array() - shift).exp();
}
}  // namespace internal

/** Each column to non-negative numbers of sum 1.  ȳ ↦ y ∘ (ȳ - ⟨y, ȳ⟩). */
template <typename Scalar>
Var<Scalar> softmax(const Var<Scalar>& x) {
  Tape<Scalar>& tape = x.tape();
  ArenaMatrix<Scalar> y = tape.newMatrix(x.rows(), x.cols());
  const auto in = x.value();
  for (Eigen::Index j = 0; j < y.cols() && y.rows() > 0; ++j) {
    y.col(j) = (in.col(j).array() - in.col(j).maxCoeff()).exp();
    y.col(j) /= y.col(j).sum();
  }
  return tape.record("softmax", {x}, y, [=](const auto& dy, const auto& y) {
    auto dx = x.grad();
    for (Eigen::Index j = 0; j < y.cols(); ++j)
      dx.col(j).array() += y.col(j).array() * (dy.col(j).array() - y.col(j).dot(dy.col(j)));
  });
}

/** log(softmax(x)) of each column.  ȳ ↦ ȳ - softmax(x)·Σȳ. */
template <typename Scalar>
Var<Scalar> logSoftmax(const Var<Scalar>& x) {
  Tape<Scalar>& tape = x.tape();
  ArenaMatrix<Scalar> y = tape.newMatrix(x.rows(), x.cols());
  const auto in = x.value();
  for (Eigen::Index j = 0; j < y.cols() && y.rows() > 0; ++j)
    y.col(j) = in.col(j).array() - internal::logSumExp(in.col(j));
  return tape.record("logSoftmax", {x}, y, [=](const auto& dy, const auto& y) {
    auto dx = x.grad();
    for (Eigen::Index j = 0; j < y.cols(); ++j)
      dx.col(j).array() += dy.col(j).array() - y.col(j).array().exp() * dy.col(j).sum();
  });
}

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPS_SOFTMAX_H
