// SPDX-License-Identifier: MPL-2.0
// Writing a quantised matrix as a dense one.
#ifndef EIGENQ_CUDA_DEQUANTIZE_H
#define EIGENQ_CUDA_DEQUANTIZE_H

#include "device_lowering.h"

namespace EigenQ {
namespace gpu {
namespace internal {

/** Y = epilogue(W), W dequantised, of Y's shape. */
struct Dequantization {
  WeightView w;
  DenseView y;
  Epilogue epilogue;
};

/** Best first; the last row never refuses. */
LoweringTable<DeviceLowering<Dequantization>> deviceDequantizers();

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_DEQUANTIZE_H
