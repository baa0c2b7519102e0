// expect: QUANTISED_PRODUCTS_TAKE_float_half_OR_bfloat16_MATRICES
// SPDX-License-Identifier: MPL-2.0
#include <eigen_q/Core>

Eigen::MatrixXf product(const EigenQ::Int8Matrix& w, const Eigen::MatrixXi& x) {
#ifdef EIGENQ_MUST_NOT_COMPILE
  return (x * w.transpose()).cast<float>();
#else
  return x.cast<float>() * w.transpose();
#endif
}
