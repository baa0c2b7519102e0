// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_GPU_DEVICEBIAS_H
#define EIGENQ_GPU_DEVICEBIAS_H

#include "DeviceCodes.h"
#include "OpKernels.h"

namespace EigenQ {
namespace gpu {
namespace internal {

/** Whatever is empty stands for "no bias". */
using NoBias = DeviceMatrix<float>;

/** y = X·Wᵀ + b for a bias of any scalar, as the host's withBias: one of another type than the result is added in
 * float, before the result's only rounding. \a run writes the product into a view. */
template <typename Scalar, typename Bias, typename Run>
DeviceMatrix<Scalar, Eigen::RowMajor> withBias(Index rows, Index cols, const DeviceBase<Bias>& bias, const Run& run) {
  using BiasScalar = typename Bias::Scalar;
  eigen_assert((bias.size() == 0 || (bias.size() == cols && (bias.rows() == 1 || bias.cols() == 1))) &&
               "the bias is not a vector of one value per output");
  Context& context = Context::current();
  if constexpr (!std::is_same<Scalar, BiasScalar>::value) {
    if (bias.size() != 0) {
      const DeviceMatrix<float> b = bias.template cast<float>();
      auto y = withBias<float>(rows, cols, b, run);
      if constexpr (std::is_same<Scalar, float>::value)
        return y;
      else
        return y.template cast<Scalar>();
    }
  }
  Epilogue epilogue;
  if (bias.size() != 0) {
    const auto b = toRead(bias, context);
    epilogue.biasAxis = BiasAxis::kPerCol;
    epilogue.bias = b.data();
    epilogue.biasStride = b.rows() == 1 ? b.colStride() : b.rowStride();
  }
  DeviceMatrix<Scalar, Eigen::RowMajor> y(rows, cols, context);
  run(toWrite(y, context).mutableDense(), epilogue);
  return y;
}

}  // namespace internal

/** ∂L/∂bias, n×1: the sum of G, m×n, over its tokens, in double, rounded once. */
template <typename G>
DeviceMatrix<typename G::Scalar> biasGradient(const DeviceBase<G>& g) {
  using Scalar = typename G::Scalar;
  Context& context = Context::current();
  DeviceMatrix<Scalar> sums(g.cols(), 1, context);
  if (g.cols() == 0) return sums;
  const auto sum = [&](const auto& rowMajor) {
    internal::rowSums(internal::toRead(rowMajor, context).dense().transpose(),
                      internal::toWrite(sums, context).mutableDense(), /*accumulate=*/false, context);
  };
  if (g.derived().view().colStride() == 1) {
    sum(g);
  } else {
    const DeviceMatrix<Scalar, Eigen::RowMajor> copy = g.derived().view();
    sum(copy);
  }
  return sums;
}

}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_GPU_DEVICEBIAS_H
