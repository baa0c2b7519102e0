// SPDX-License-Identifier: MPL-2.0
#include <unsupported/eigen_q/Autodiff>
#include <cstdio>
#include <iostream>
#include <vector>

using namespace EigenQ::ad;

template <typename Scalar>
Var<Scalar> softplus(const Var<Scalar>& x) {
  return x.tape().record("softplus", {x}, x.value().array().exp().log1p(),
                         [=](const auto& dy) { x.addGrad(dy.array() * x.value().array().logistic()); });
}

struct Batch {
  Eigen::MatrixXf x;        // features×tokens
  Eigen::VectorXi targets;  // one class per token, or -100
};

/** One step of \a optimizer over several micro-batches. */
void train(Tape<float>& tape, Parameter<float>& w, Optimizer<float>& optimizer, const std::vector<Batch>& batches) {
  optimizer.zeroGrad();
  Eigen::Index counted = 0;
  for (const Batch& batch : batches) {
    tape.clear();
    const auto logits = linear(w, softplus(tape.constant(batch.x)));
    tape.backward(crossEntropy(logits, batch.targets, -100, Reduction::Sum));
    counted += countedTargets(batch.targets);
  }
  optimizer.step(1.0f / static_cast<float>(counted));
}

int main() {
  const auto fn = [](Tape<double>&, const std::vector<Var<double>>& v) { return softplus(v[0]); };
  const GradCheckResult result = gradCheck(fn, {Eigen::MatrixXd::Identity(3, 2)});
  if (!result) std::cerr << result << '\n';
  std::printf("softplus: %s\n", result ? "ok" : "wrong");

  std::vector<Batch> batches(2, Batch{Eigen::MatrixXf::Identity(4, 3), Eigen::Vector3i(0, 1, 2)});
  batches[1].targets(2) = -100;
  Parameter<float> w(Eigen::MatrixXf::Zero(3, 4));
  Sgd<float> optimizer({&w}, {/*learningRate=*/1});
  Tape<float> tape;
  for (int step = 0; step < 20; ++step) train(tape, w, optimizer, batches);
  const Eigen::RowVectorXf scores = linear(w, tape.constant(batches[0].x)).value().diagonal();
  std::printf("scores of the targets: %.2f %.2f %.2f\n", scores(0), scores(1), scores(2));
}
