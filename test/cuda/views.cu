// SPDX-License-Identifier: MPL-2.0
// The kernel views cross into device code by value, so nvcc must accept them as kernel parameters.
#include <type_traits>

#include <eigen_q/src/Views.h>

using EigenQ::Index;
using EigenQ::internal::DenseView;
using EigenQ::internal::WeightView;

static_assert(std::is_trivially_copyable_v<WeightView> && std::is_trivially_copyable_v<DenseView>,
              "kernel parameters are copied byte by byte");

// One thread per element of an int8 matrix: y(i, j) = code(i, j)·absmax(i)/127.
__global__ void dequantizeInt8(WeightView w, DenseView y) {
  const Index t = static_cast<Index>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (t >= w.rows * w.cols) return;
  const Index i = t / w.cols, j = t % w.cols;
  const float code = static_cast<const signed char*>(w.codes)[w.offset + i * w.stride + j];
  static_cast<float*>(y.data)[i * y.rowStride + j * y.colStride] = code * w.rowAbsmax[i] / 127.0f;
}

void launchDequantizeInt8(const WeightView& w, const DenseView& y) {
  constexpr int kThreads = 256;
  dequantizeInt8<<<static_cast<unsigned>((w.rows * w.cols + kThreads - 1) / kThreads), kThreads>>>(w, y);
}
