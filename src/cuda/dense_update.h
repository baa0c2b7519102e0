// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_CUDA_DENSE_UPDATE_H
#define EIGENQ_CUDA_DENSE_UPDATE_H

#include "device_lowering.h"

namespace EigenQ {
namespace gpu {
namespace internal {

/** Y = alpha·A·B + residual in one launch that reads and writes Y once: half or bfloat16 throughout, sums of up to 128
 * products, nothing else in the epilogue. Y's rows or columns are contiguous, and the residual's are the same ones; A
 * and B have any strides, but are read by 16 bytes only where all that is contiguous begins at multiples of 16 bytes.
 */
const char* refuseDenseUpdate(const DenseProduct& product, const Context& context);
void runDenseUpdate(const DenseProduct& product, Context& context);

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_DENSE_UPDATE_H
