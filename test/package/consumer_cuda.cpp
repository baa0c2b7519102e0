// SPDX-License-Identifier: MPL-2.0
// A user's program on a GPU, compiled by the host compiler alone; without a GPU it checks that the error says so.
#include <cstdlib>
#include <iostream>

#include <eigen_q/Cuda>

namespace gpu = EigenQ::gpu;

static bool productIsRight() {
  const Eigen::MatrixXf dense = Eigen::MatrixXf::Identity(64, 64);
  const auto w = gpu::NF4Matrix::fromHost(EigenQ::NF4Matrix(dense));
  const Eigen::MatrixXf x = Eigen::VectorXf::LinSpaced(64, -1, 1);
  gpu::DeviceMatrix<float> y;
  y = w * gpu::DeviceMatrix<float>::fromHost(x);
  return y.toHost().isApprox(x);
}

static bool errorSaysThatThereIsNoDevice() try {
  gpu::Context::current();
  return false;
} catch (const EigenQ::NoCudaDevice&) {
  return gpu::whyNoDevice() != nullptr;
}

int main() {
  if (!(gpu::deviceCount() > 0 ? productIsRight() : errorSaysThatThereIsNoDevice())) return EXIT_FAILURE;
  std::cout << "EigenQ " << EIGENQ_VERSION_STRING << '\n';
  return EXIT_SUCCESS;
}
