// expect: YOU_MIXED_A_HOST_MATRIX_WITH_DEVICE_WEIGHTS__UPLOAD_IT_WITH_DeviceMatrix_fromHost
// SPDX-License-Identifier: MPL-2.0
#include <eigen_q/Cuda>

Eigen::MatrixXf product(const EigenQ::gpu::NF4Matrix& w, const Eigen::MatrixXf& x) {
#ifdef EIGENQ_MUST_NOT_COMPILE
  return x * w.transpose();
#else
  return (EigenQ::gpu::DeviceMatrix<float>::fromHost(x) * w.transpose()).toHost();
#endif
}
