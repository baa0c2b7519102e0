// expect: PRODUCTS_TAKE_ONE_QUANTISED_MATRIX
// SPDX-License-Identifier: MPL-2.0
#include <eigen_q/Core>

Eigen::MatrixXf product(const EigenQ::Int8Matrix& a, const EigenQ::NF4Matrix& b) {
#ifdef EIGENQ_MUST_NOT_COMPILE
  return a * b;
#else
  return a * Eigen::MatrixXf(b);
#endif
}
