// expect: A_4_BIT_WEIGHT_TAKES_NO_GRADIENT__TRAIN_AN_ADAPTER_BESIDE_IT
// SPDX-License-Identifier: MPL-2.0
#include <eigen_q/Core>

Eigen::MatrixXf use(const EigenQ::NF4Matrix& w, const Eigen::MatrixXf& g, const Eigen::MatrixXf& a) {
#ifdef EIGENQ_MUST_NOT_COMPILE
  EigenQ::matMul4bitGradB(g, a, w);
#endif
  return EigenQ::matMul4bitGradA(g, w) - a;
}
