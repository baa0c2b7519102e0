// expect: THIS_EXPRESSION_IS_NOT_A_LVALUE__IT_IS_READ_ONLY
// SPDX-License-Identifier: MPL-2.0
#include <eigen_q/Core>

void use(EigenQ::NF4Matrix& w, const Eigen::RowVectorXf& row) {
#ifdef EIGENQ_MUST_NOT_COMPILE
  w.row(0) = row;
#else
  (void)w, (void)row;
#endif
}
