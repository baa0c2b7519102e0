// SPDX-License-Identifier: MPL-2.0
#include <eigen_q/Cuda>
#include <cstdio>

namespace gpu = EigenQ::gpu;
using Eigen::bfloat16;

// One line for both: host matrices and host weights, or device matrices and device weights.
template <typename Y, typename X, typename W, typename B>
void layer(Y& y, const X& x, const W& w, const B& b) {
  y.noalias() = EigenQ::gelu((w * x).colwise() + b);
}

int main() {
  if (const char* why = gpu::whyNoDevice()) return std::fprintf(stderr, "skipped: %s\n", why), 77;
  const Eigen::MatrixXf dense = Eigen::ArrayXf::LinSpaced(256 * 512, -9, 9).sin().reshaped(256, 512);
  const Eigen::MatrixXf X = Eigen::ArrayXf::LinSpaced(512 * 4, 0, 99).cos().reshaped(512, 4);
  const Eigen::VectorXf b = Eigen::VectorXf::LinSpaced(256, -1, 1);

  const EigenQ::NF4Matrix W(dense);
  Eigen::MatrixXf Y(256, 4);
  layer(Y, X, W, b);

  const auto dW = gpu::NF4Matrix::fromHost(W);  // codes and absmax, once
  const auto dX = gpu::DeviceMatrix<float>::fromHost(X), db = gpu::DeviceMatrix<float>::fromHost(b);
  gpu::DeviceMatrix<float> dY(256, 4);
  layer(dY, dX, dW, db);                        // queued on the current context's stream
  const Eigen::MatrixXf found = dY.toHost();    // waits
  std::printf("device and host agree: %s\n", found.isApprox(Y, 1e-3f) ? "yes" : "no");

  const gpu::NF4Matrix again(gpu::DeviceMatrix<float>::fromHost(dense));  // quantised there: the same codes
  std::printf("same codes: %s\n", again.toHost().packed() == W.packed() ? "yes" : "no");

  const Eigen::MatrixXf Z = (gpu::DeviceMatrix<float>::fromHost(X.transpose()) * dW.transpose()).toHost();
  std::printf("host in, host out: %dx%d\n", int(Z.rows()), int(Z.cols()));
}
