// SPDX-License-Identifier: MPL-2.0
#include <unsupported/eigen_q/AutodiffCuda>
#include <cmath>
#include <cstdio>

namespace ad = EigenQ::ad;
namespace gpu = EigenQ::gpu;

// W: EigenQ::NF4Matrix on the host, EigenQ::gpu::NF4Matrix on the device.
template <typename Place, typename W>
float trainAdapters(const W& w, const Eigen::MatrixXf& X, const Eigen::MatrixXf& Y) {
  ad::Parameter<float, Place> a(0.1f * X.leftCols(2).transpose()), b(Eigen::MatrixXf::Zero(Y.rows(), 2));
  ad::AdamW<float, Place> optimizer({&a, &b}, {/*learningRate=*/0.02});
  ad::Tape<float, Place> tape;
  float last = 0;
  for (int step = 0; step <= 100; ++step) {
    const auto x = tape.constant(X), target = tape.constant(Y);
    const auto error = ad::loraLinear(w, a, b, x) - target;
    const auto loss = ad::mean(ad::cwiseProduct(error, error));
    if (step == 100) last = loss.item();  // waits for the device
    tape.backward(loss);
    optimizer.step();
    optimizer.zeroGrad();
    tape.clear();
  }
  return last;
}

int main() {
  if (const char* why = gpu::whyNoDevice()) return std::fprintf(stderr, "skipped: %s\n", why), 77;
  const Eigen::MatrixXf before = Eigen::ArrayXf::LinSpaced(32 * 64, -9, 9).sin().reshaped(32, 64);
  const Eigen::MatrixXf after = before + Eigen::VectorXf::Ones(32) * Eigen::RowVectorXf::LinSpaced(64, -1, 1);
  const Eigen::MatrixXf X = Eigen::ArrayXf::LinSpaced(64 * 100, 0, 999).cos().reshaped(64, 100), Y = after * X;

  const EigenQ::NF4Matrix w(before);
  const float host = trainAdapters<ad::Host>(w, X, Y);
  const float device = trainAdapters<ad::Device>(gpu::NF4Matrix::fromHost(w), X, Y);
  std::printf("same loss after 100 steps: %s\n", std::abs(host - device) <= 1e-3f * host ? "yes" : "no");
}
