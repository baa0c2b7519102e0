// SPDX-License-Identifier: MPL-2.0
// A user's program: the installed headers, the library, and Eigen, nothing else.
#include <cstdlib>
#include <iostream>

#include <eigen_q/Core>
#include <unsupported/eigen_q/Autodiff>

int main() {
  const Eigen::MatrixXf dense = Eigen::MatrixXf::Identity(64, 64);
  const EigenQ::NF4Matrix w(dense);  // 0 and the absmax 1 are codes of their own: nothing is lost
  const Eigen::VectorXf x = Eigen::VectorXf::LinSpaced(64, -1, 1), y = w * x;
  if (!y.isApprox(x)) return EXIT_FAILURE;

  EigenQ::ad::Tape<float> tape;
  EigenQ::ad::Parameter<float> p(Eigen::MatrixXf::Ones(2, 3));
  tape.backward(EigenQ::ad::sum(tape.parameter(p)));
  if (!p.grad().isOnes()) return EXIT_FAILURE;

  std::cout << "EigenQ " << EIGENQ_VERSION_STRING << '\n';
  return EXIT_SUCCESS;
}
