// expect: EIGENQ_SOURCE_AND_DESTINATION_ON_THE_DEVICE_HAVE_DIFFERENT_SCALAR_TYPES__USE_cast
// SPDX-License-Identifier: MPL-2.0
#include <eigen_q/Cuda>

void product(const EigenQ::gpu::NF4Matrix& w, const EigenQ::gpu::DeviceMatrix<Eigen::half>& x,
             EigenQ::gpu::DeviceMatrix<float>& y) {
#ifdef EIGENQ_MUST_NOT_COMPILE
  y = w * x;
#else
  EigenQ::gpu::DeviceMatrix<Eigen::half> h = w * x;
  y = h.cast<float>();
#endif
}
