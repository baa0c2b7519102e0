// expect: EIGENQ_NO_KERNEL_COVERS_THIS_ON_THE_DEVICE__SPLIT_IT_OR_USE_toHost
// SPDX-License-Identifier: MPL-2.0
#include <eigen_q/Cuda>

void assign(const Eigen::MatrixXf& x, EigenQ::gpu::DeviceMatrix<float>& y) {
#ifdef EIGENQ_MUST_NOT_COMPILE
  y += x;
#else
  y += EigenQ::gpu::DeviceMatrix<float>::fromHost(x);
#endif
}
