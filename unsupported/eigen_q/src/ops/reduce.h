// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_OPS_REDUCE_H
#define EIGENQ_OPS_REDUCE_H

#include "../Tape.h"
#include "arithmetic.h"

namespace EigenQ {
namespace ad {

/** The sum of all entries, 1×1; 0 for an empty matrix. */
template <typename Scalar>
Var<Scalar> sum(const Var<Scalar>& x) {
  using Matrix = Eigen::MatrixX<Scalar>;
  return x.tape().record("sum", {x}, Matrix::Constant(1, 1, x.value().sum()),
                         [=](const auto& dy) { x.addGrad(Matrix::Constant(x.rows(), x.cols(), dy(0, 0))); });
}

/** The mean of all entries, 1×1. \a x is not empty. */
template <typename Scalar, typename Place>
Var<Scalar, Place> mean(const Var<Scalar, Place>& x) {
  eigen_assert(x.size() > 0 && "mean: empty matrix");
  return scale(sum(x), 1 / static_cast<double>(x.size()));
}

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPS_REDUCE_H
