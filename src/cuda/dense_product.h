// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_CUDA_DENSE_PRODUCT_H
#define EIGENQ_CUDA_DENSE_PRODUCT_H

#include "device_lowering.h"

namespace EigenQ {
namespace gpu {
namespace internal {

/** Y = epilogue(A·B) by cuBLASLt. A and B share a scalar type and have contiguous rows or contiguous columns each; Y
 * may be of any scalar type and strides.
 *
 * alpha, and a residual of float stored in Y's order, travel with the product: one launch. Any other epilogue is a pass
 * of its own over float sums, rounded once; the product then goes by slabs of columns small enough for the sums to stay
 * in the second-level cache, so that scratch memory is bounded too (kSlabBytes). */
const char* refuseDenseCublasLt(const DenseProduct& product, const Context& context);
void runDenseCublasLt(const DenseProduct& product, Context& context);

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_DENSE_PRODUCT_H
