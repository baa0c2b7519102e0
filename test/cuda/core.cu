// SPDX-License-Identifier: MPL-2.0
// A user's .cu file may include the public headers: its host code multiplies as any other.
#include <eigen_q/Core>

Eigen::MatrixXf hostProduct(const EigenQ::NF4Matrix& w, const Eigen::MatrixXf& x) {
  Eigen::MatrixXf y(w.rows(), x.cols());
  y.noalias() = w * x;
  return y;
}
