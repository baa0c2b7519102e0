#include <eigen_q/Core>
#include <iostream>

using Eigen::MatrixXf;
using Eigen::VectorXf;
using EigenQ::relu;

int main() {
  const auto table = [](int rows, int cols) -> MatrixXf {
    return Eigen::ArrayXf::LinSpaced(rows * cols, 0, 50).sin().reshaped(rows, cols);
  };
  const MatrixXf dense = table(64, 128), X = table(128, 10), G = table(64, 10), A = table(4, 128), B = table(64, 4);
  const VectorXf b = table(64, 1);

  const EigenQ::Int8Matrix W(dense);  // 64×128, one absmax a row
  MatrixXf Y(64, 10), dX(128, 10);

  Y.noalias() = W * X;                           // tokens as columns: nothing is copied or transposed
  Y.noalias() += relu((W * X).colwise() + b);    // bias, activation and += in the same kernel call
  dX.noalias() = W.transpose() * G;              // backwards, from the same codes
  Y.noalias() = W.leftCols(32) * X.topRows(32);  // windows stay quantised
  Y.noalias() = Y - 0.5f * (W * X);              // so do scales and further terms
  Y.noalias() = W * X + B * (A * X);             // LoRA: one kernel call, and Eigen's two thin products
  const MatrixXf D = W.topRows(8);               // dequantise by assignment
  const float error = (W.asDense() - dense).norm() / dense.norm();

  std::cout.precision(2);
  std::cout << "relative error of the codes " << error << ", of the product "
            << (W * X - dense * X).norm() / (dense * X).norm() << '\n'
            << W << '\n';
}
