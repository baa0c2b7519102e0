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

/** X̂·Ŵᵀ by codes but for the outlier columns of X, which are multiplied as they are. */
void runDecomposedReference(const QuantizedProduct& p) {
  const Int8Activations a = quantizeActivations(p.x, p.w.outlierThreshold);
  std::vector<char> isOutlier(static_cast<std::size_t>(p.x.cols));
  for (const Index k : a.outliers) isOutlier[static_cast<std::size_t>(k)] = 1;
  const std::int8_t* codes = static_cast<const std::int8_t*>(p.w.codes) + p.w.offset;
  for (Index i = 0; i < p.y.rows; ++i) {
    const double rowScale = static_cast<double>(a.rowStats[static_cast<std::size_t>(i)]) / (127.0 * 127.0);
    for (Index j = 0; j < p.y.cols; ++j) {
      double sum = 0, outliers = 0;
      for (Index k = 0; k < p.x.cols; ++k) {
        if (isOutlier[static_cast<std::size_t>(k)]) {
          outliers += at(p.x, i, k) * static_cast<double>(p.w.coeff(j, k));
        } else {
          sum += a.codes[static_cast<std::size_t>(i * p.x.cols + k)] * codes[j * p.w.stride + k];
        }
      }
      const double acc = sum * (rowScale * static_cast<double>(p.w.rowAbsmax[j])) + outliers;
      writeScalar(p.y.data, p.y.scalar, i * p.y.rowStride + j * p.y.colStride,
                  finish(acc, i, j, p.y.scalar, p.epilogue));
    }
  }
}

}  // namespace

void runReference(const QuantizedProduct& p) {
  const bool decomposes = p.w.format == WeightFormat::kInt8 && p.w.int8Activations && p.transposed;
  if (decomposes) return runDecomposedReference(p);
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
