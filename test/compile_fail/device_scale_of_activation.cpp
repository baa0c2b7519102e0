// expect: EIGENQ_A_SCALE_STANDS_INSIDE_BIAS_AND_ACTIVATION
// SPDX-License-Identifier: MPL-2.0
#include <eigen_q/Cuda>

void product(const EigenQ::gpu::NF4Matrix& w, const EigenQ::gpu::DeviceMatrix<float>& x,
             EigenQ::gpu::DeviceMatrix<float>& y) {
#ifdef EIGENQ_MUST_NOT_COMPILE
  y = 2.0f * relu(w * x);
#else
  y = relu(2.0f * (w * x));
#endif
}
