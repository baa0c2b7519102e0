// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_OPS_ADD_NORM_H
#define EIGENQ_OPS_ADD_NORM_H

#include "arithmetic.h"
#include "norm.h"

namespace EigenQ {
namespace ad {

template <typename Scalar, typename Place = Host>
struct SumAndNorm {
  Var<Scalar, Place> sum;
  Var<Scalar, Place> norm;
};

/** x + y and rmsNorm(x + y, gain, eps): a residual connection and the norm behind it. On a device and without gradients
 * one kernel instead of two, with the same bits. */
template <typename Scalar>
SumAndNorm<Scalar> addRmsNorm(const Var<Scalar>& x, const Var<Scalar>& y, OperandArg<Scalar> gain, double eps = 1e-6) {
  const Var<Scalar> sum = x + y;
  return {sum, rmsNorm(sum, gain, eps)};
}

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPS_ADD_NORM_H
