// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_CUDA_PRODUCT_REFERENCE_H
#define EIGENQ_CUDA_PRODUCT_REFERENCE_H

#include "device_lowering.h"

namespace EigenQ {
namespace gpu {
namespace internal {

/** Any format, direction, strides and mix of scalar types: double sums, rounded once. Throws std::invalid_argument for
 * double operands, which stay on the host. */
void runReference(const QuantizedProduct& product, Context& context);
void runReference(const DenseProduct& product, Context& context);

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_PRODUCT_REFERENCE_H
