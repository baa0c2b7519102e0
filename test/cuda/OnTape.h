// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_TEST_CUDA_ONTAPE_H
#define EIGENQ_TEST_CUDA_ONTAPE_H

#include <unsupported/eigen_q/Autodiff>

#include <vector>

namespace EigenQ {
namespace test {

/** The value of an op of the host's tape, and the gradients of its inputs, in double. */
struct OnTape {
  Eigen::MatrixXd y;
  std::vector<Eigen::MatrixXd> gradients;

  /** \param op  op(variables) */
  template <typename Op>
  OnTape(const std::vector<Eigen::MatrixXd>& inputs, const Eigen::MatrixXd& dy, Op op) {
    ad::Tape<double> tape;
    std::vector<ad::Var<double>> variables;
    for (const Eigen::MatrixXd& m : inputs) variables.push_back(tape.variable(m));
    const ad::Var<double> result = op(variables);
    y = result.value();
    tape.backward(result, dy);
    for (const auto& v : variables) gradients.push_back(v.grad());
  }
};

}  // namespace test
}  // namespace EigenQ

#endif  // EIGENQ_TEST_CUDA_ONTAPE_H
