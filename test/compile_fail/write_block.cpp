// expect: QUANTISED_MATRICES_ARE_READ_ONLY
// SPDX-License-Identifier: MPL-2.0
#include <eigen_q/Core>

void use(EigenQ::FP4Matrix& w, const Eigen::MatrixXf& rows) {
#ifdef EIGENQ_MUST_NOT_COMPILE
  w.topRows(2) = rows;
#else
  (void)w, (void)rows;
#endif
}
