// expect: YOU_MIXED_DIFFERENT_NUMERIC_TYPES
// SPDX-License-Identifier: MPL-2.0
#include <eigen_q/Core>

void product(const EigenQ::NF4Matrix& w, const Eigen::MatrixX<Eigen::half>& x, Eigen::MatrixXf& y) {
#ifdef EIGENQ_MUST_NOT_COMPILE
  y = w * x;
#else
  y = (w * x).cast<float>();
#endif
}
