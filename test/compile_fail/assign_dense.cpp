// expect: QUANTISED_MATRICES_ARE_READ_ONLY
// SPDX-License-Identifier: MPL-2.0
#include <eigen_q/Core>

void use(EigenQ::NF4Matrix& w, const Eigen::MatrixXf& dense) {
#ifdef EIGENQ_MUST_NOT_COMPILE
  w = dense;
#else
  w = EigenQ::NF4Matrix(dense);
#endif
}
