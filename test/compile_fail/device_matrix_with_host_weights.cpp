// expect: YOU_MIXED_A_DEVICE_MATRIX_WITH_HOST_WEIGHTS__UPLOAD_THEM_ONCE_WITH_fromHost
// SPDX-License-Identifier: MPL-2.0
#include <eigen_q/Cuda>

void product(const EigenQ::Int8Matrix& w, const EigenQ::gpu::DeviceMatrix<float>& x,
             EigenQ::gpu::DeviceMatrix<float>& y) {
#ifdef EIGENQ_MUST_NOT_COMPILE
  y = w * x;
#else
  y = EigenQ::gpu::Int8Matrix::fromHost(w) * x;
#endif
}
