// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_CUDA_VIA_DENSE_H
#define EIGENQ_CUDA_VIA_DENSE_H

#include "device_lowering.h"

namespace EigenQ {
namespace gpu {
namespace internal {

/** Y = epilogue(X·op(W)), W decoded once into scratch memory and multiplied by cuBLASLt: for many rows of X, where
 * decoding is noise. Weights are rounded to X's scalar type, as bitsandbytes' dequantise and matmul do. */
const char* refuseViaDense(const QuantizedProduct& product, const Context& context);
void runViaDense(const QuantizedProduct& product, Context& context);

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_VIA_DENSE_H
