// SPDX-License-Identifier: MPL-2.0
// The readable truth: one output at a time, double sums, one rounding at the end.
#include "kernels.h"

#include <eigen_q/src/ScalarConvert.h>

namespace EigenQ {
namespace internal {
namespace {

double at(const ConstDenseView& m, Index i, Index j) {
  return readScalar(m.data, m.scalar, i * m.rowStride + j * m.colStride);
}

double finish(double acc, Index i, Index j, ScalarType scalar, const Epilogue& e) {
  double v = static_cast<double>(e.alpha) * acc;
  if (e.biasAxis != BiasAxis::kNone) {
    v += readScalar(e.bias, scalar, (e.biasAxis == BiasAxis::kPerRow ? i : j) * e.biasStride);
  }
  dispatchActivation(e.activation, [&](auto activation) { v = activate<decltype(activation)::value>(v); });
  if (v < static_cast<double>(e.lower)) v = static_cast<double>(e.lower);
  if (v > static_cast<double>(e.upper)) v = static_cast<double>(e.upper);
  v *= static_cast<double>(e.sign);
  if (e.residual.data) v += static_cast<double>(e.residualSign) * at(e.residual, i, j);
  return v;
}

}  // namespace

void runReference(const QuantizedProduct& p) {
  for (Index i = 0; i < p.y.rows; ++i) {
    for (Index j = 0; j < p.y.cols; ++j) {
      double acc = 0;
      for (Index k = 0; k < p.x.cols; ++k) {
        acc += at(p.x, i, k) * static_cast<double>(p.transposed ? p.w.coeff(j, k) : p.w.coeff(k, j));
      }
      writeScalar(p.y.data, p.y.scalar, i * p.y.rowStride + j * p.y.colStride,
                  finish(acc, i, j, p.y.scalar, p.epilogue));
    }
  }
}

}  // namespace internal
}  // namespace EigenQ
