// SPDX-License-Identifier: MPL-2.0
#include <cstdio>
#include <vector>

#include <unsupported/eigen_q/Autodiff>

namespace ad = EigenQ::ad;

namespace {

struct Layer {
  ad::Var<float> operator()(const ad::Var<float>& x) {
    return x + ad::dropout(ad::linear(down, ad::gelu(ad::linear(up, x))), 0.1);
  }
  ad::Parameter<float> up{Eigen::MatrixXf::Identity(128, 32)}, down{Eigen::MatrixXf::Identity(32, 128)};
};

ad::Var<float> loss(ad::Tape<float>& tape, std::vector<Layer>& layers, ad::Parameter<float>& head,
                    const Eigen::MatrixXf& X, const Eigen::VectorXi& targets) {
  ad::Var<float> h = tape.constant(X);
  for (Layer& layer : layers)
    h = ad::checkpoint(
        tape, [&layer](const ad::Var<float>& x) { return layer(x); }, h);
  return ad::linearCrossEntropy(head, h, targets);
}

ad::Var<float> plainLoss(ad::Tape<float>& tape, std::vector<Layer>& layers, ad::Parameter<float>& head,
                         const Eigen::MatrixXf& X, const Eigen::VectorXi& targets) {
  ad::Var<float> h = tape.constant(X);
  for (Layer& layer : layers) h = layer(h);
  return ad::crossEntropy(ad::linear(head, h), targets);
}

struct Run {
  std::size_t mebibytes;
  Eigen::MatrixXf gradient;
};

template <typename Loss>
Run train(const Loss& fn) {
  std::vector<Layer> layers(16);
  ad::Parameter<float> head(Eigen::MatrixXf::Identity(500, 32));
  const Eigen::MatrixXf X = Eigen::VectorXf::LinSpaced(32, -1, 1) * Eigen::RowVectorXf::LinSpaced(1000, -1, 1);
  ad::Tape<float> tape;
  tape.backward(fn(tape, layers, head, X, Eigen::VectorXi::LinSpaced(1000, 0, 499)));
  return {tape.bytesReserved() >> 20, layers[0].up.grad()};
}

}  // namespace

int main() {
  const Run plain = train(plainLoss), checkpointed = train(loss);
  std::printf("memory: %s\n", checkpointed.mebibytes < plain.mebibytes / 3 ? "less than a third" : "more");
  std::printf("gradients: %s\n", checkpointed.gradient.isApprox(plain.gradient, 1e-4f) ? "the same" : "others");
}
