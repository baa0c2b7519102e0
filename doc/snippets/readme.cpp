// SPDX-License-Identifier: MPL-2.0
#include <eigen_q/Core>
#include <iostream>

int main() {
  const Eigen::MatrixXf dense = Eigen::ArrayXf::LinSpaced(256 * 512, -9, 9).sin().reshaped(256, 512);
  const Eigen::MatrixXf X = Eigen::MatrixXf::Identity(512, 4);
  const Eigen::VectorXf b = Eigen::VectorXf::LinSpaced(256, -1, 1);

  const EigenQ::NF4Matrix W(dense);  // or Int8Matrix, FP4Matrix; from any Eigen expression
  Eigen::MatrixXf Y(256, 4);
  Y.noalias() = EigenQ::relu((W * X).colwise() + b);  // one kernel call: no dense W, no temporary
  const Eigen::MatrixXf D = W;                        // dequantised

  std::cout.precision(2);
  std::cout << W.sizeInBytes() << " bytes instead of " << 4 * dense.size() << "; relative error "
            << (D - dense).norm() / dense.norm() << "; Y ends in\n"
            << Y.bottomRows(2) << '\n';
}
