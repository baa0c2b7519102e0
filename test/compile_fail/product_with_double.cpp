// expect: QUANTISED_PRODUCTS_TAKE_float_half_OR_bfloat16_MATRICES
// SPDX-License-Identifier: MPL-2.0
#include <eigen_q/Core>

Eigen::MatrixXf product(const EigenQ::NF4Matrix& w, const Eigen::MatrixXd& x) {
#ifdef EIGENQ_MUST_NOT_COMPILE
  return w * x;
#else
  return w * x.cast<float>();
#endif
}
