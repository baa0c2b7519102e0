// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_OPS_ARGMAX_H
#define EIGENQ_OPS_ARGMAX_H

#include "../Tape.h"

namespace EigenQ {
namespace ad {

/** The row of the largest entry of each column, the first of equal ones: greedy decoding. A column with a NaN gives -1,
 * which is no token, where a comparison would quietly pick one. \param x  not without rows. */
template <typename Scalar>
Eigen::VectorXi argmax(const Var<Scalar>& x) {
  eigen_assert(x.rows() > 0 && "argmax: there is no entry to choose");
  const auto in = x.value();
  Eigen::VectorXi rows(in.cols());
  for (Eigen::Index j = 0; j < in.cols(); ++j) {
    Eigen::Index best = 0;
    bool ordered = in(0, j) == in(0, j);
    for (Eigen::Index i = 1; i < in.rows(); ++i) {
      ordered = ordered && in(i, j) == in(i, j);
      if (in(i, j) > in(best, j)) best = i;
    }
    rows(j) = ordered ? static_cast<int>(best) : -1;
  }
  return rows;
}

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPS_ARGMAX_H
