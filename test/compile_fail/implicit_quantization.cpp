// expect: Int8Matrix
// SPDX-License-Identifier: MPL-2.0
// Quantising loses information, so it has to be written down.
#include <eigen_q/Core>

EigenQ::Int8Matrix quantize(const Eigen::MatrixXf& w) {
#ifdef EIGENQ_MUST_NOT_COMPILE
  return w;
#else
  return EigenQ::Int8Matrix(w);
#endif
}
