// SPDX-License-Identifier: MPL-2.0
#include <eigen_q/Core>
#include <unsupported/eigen_q/Autodiff>
#include <cstdio>

namespace ad = EigenQ::ad;

int main() {
  const Eigen::MatrixXf before = Eigen::ArrayXf::LinSpaced(32 * 64, -9, 9).sin().reshaped(32, 64);
  const Eigen::MatrixXf after = before + Eigen::VectorXf::Ones(32) * Eigen::RowVectorXf::LinSpaced(64, -1, 1);
  const Eigen::MatrixXf X = Eigen::ArrayXf::LinSpaced(64 * 100, 0, 999).cos().reshaped(64, 100);

  const EigenQ::NF4Matrix W(before);  // frozen: there is no gradient to ask for
  ad::Parameter<float> A(0.1f * X.leftCols(2).transpose()), B(Eigen::MatrixXf::Zero(32, 2));
  ad::AdamW<float> optimizer({&A, &B}, {/*learningRate=*/0.02});

  ad::Tape<float> tape;
  for (int step = 0; step <= 100; ++step) {
    const auto x = tape.constant(X), target = tape.constant(after * X);
    const auto error = ad::loraLinear(W, A, B, x) - target;
    const auto loss = ad::mean(ad::cwiseProduct(error, error));
    if (step % 50 == 0) std::printf("step %3d: loss %.2g\n", step, loss.item());
    tape.backward(loss);
    optimizer.step();
    optimizer.zeroGrad();
    tape.clear();
  }
}
