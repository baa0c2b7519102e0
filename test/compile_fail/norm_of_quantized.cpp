// expect: THIS_DECODES_A_QUANTISED_MATRIX_CODE_BY_CODE__SAY_SO_WITH_asDense
// SPDX-License-Identifier: MPL-2.0
#include <eigen_q/Core>

float norm(const EigenQ::NF4Matrix& w) {
#ifdef EIGENQ_MUST_NOT_COMPILE
  return w.norm();
#else
  return w.asDense().norm() + w(0, 0);
#endif
}
