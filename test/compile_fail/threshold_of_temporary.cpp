// expect: withThreshold
// SPDX-License-Identifier: MPL-2.0
// W.withThreshold(t) refers to W: of a temporary it would dangle.
#include <eigen_q/Core>

Eigen::MatrixXf use(const Eigen::MatrixXf& dense, const Eigen::MatrixXf& x) {
#ifdef EIGENQ_MUST_NOT_COMPILE
  return x * EigenQ::Int8Matrix(dense).withThreshold(6).transpose();
#else
  const EigenQ::Int8Matrix w(dense);
  return x * w.withThreshold(6).transpose();
#endif
}
