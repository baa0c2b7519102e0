// expect: QUANTISED_PRODUCTS_TAKE_DENSE_MATRICES
// SPDX-License-Identifier: MPL-2.0
#include <eigen_q/Core>

Eigen::MatrixXf scaledColumns(const EigenQ::Int8Matrix& w, const Eigen::VectorXf& s) {
#ifdef EIGENQ_MUST_NOT_COMPILE
  return w * s.asDiagonal();
#else
  return w.asDense() * s.asDiagonal();
#endif
}
