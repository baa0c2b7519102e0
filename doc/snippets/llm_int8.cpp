#include <eigen_q/Core>
#include <iostream>

using Eigen::MatrixXf;

int main() {
  const MatrixXf dense = Eigen::ArrayXf::LinSpaced(64 * 128, 0, 50).sin().reshaped(64, 128);
  MatrixXf X = Eigen::ArrayXf::LinSpaced(128 * 10, 0, 30).cos().reshaped(128, 10);  // tokens as columns
  X.row(7) *= 60;                                                                   // an outlier feature
  const Eigen::VectorXf b = Eigen::VectorXf::Ones(64);
  const EigenQ::Int8Matrix W(dense);

  const MatrixXf plain = (W * X).colwise() + b;                    // X stays as it is
  const MatrixXf coarse = (W.withThreshold(0) * X).colwise() + b;  // every token in 8 bits
  const MatrixXf mixed = (W.withThreshold(6) * X).colwise() + b;   // but for outlier features: LLM.int8()
  const MatrixXf dX = W.withThreshold(6).transpose() * mixed;      // backwards: the dequantised W

  std::cout.precision(1);
  std::cout << "relative error by quantising the tokens: " << (coarse - plain).norm() / plain.norm()
            << ", without outlier features: " << (mixed - plain).norm() / plain.norm() << '\n'
            << "dX is " << dX.rows() << 'x' << dX.cols() << '\n';
}
