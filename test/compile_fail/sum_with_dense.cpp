// expect: SUMS_WITH_A_QUANTISED_MATRIX_DECODE_IT__SAY_SO_WITH_asDense
// SPDX-License-Identifier: MPL-2.0
#include <eigen_q/Core>

float error(const EigenQ::Int8Matrix& w, const Eigen::MatrixXf& dense) {
#ifdef EIGENQ_MUST_NOT_COMPILE
  return (dense - w).norm();
#else
  return (dense - w.asDense()).norm();
#endif
}
