// SPDX-License-Identifier: MPL-2.0
// Products of many rows with 4-bit weights on Hopper, Y = epilogue(X·Wᵀ) or epilogue(X·W): W is decoded a few steps
// before it is multiplied, once for many rows of X, and never lies decoded as a whole. A row of deviceLowerings().
#ifndef EIGENQ_CUDA_FOURBIT_GEMM_H
#define EIGENQ_CUDA_FOURBIT_GEMM_H

#include "context_state.h"
#include "device_lowering.h"

namespace EigenQ {
namespace gpu {
namespace internal {

/** What it cannot compute: scalars but half and bfloat16, rows of W that do not begin and end at multiples of 64 codes,
 * blocks of less than 64, devices without room for all teams at once. */
const char* refuseFourBitGemmAtAll(const QuantizedProduct& p, const Context& context);
/** That, and what was not measured to be faster than decoding slabs of W. */
const char* refuseFourBitGemm(const QuantizedProduct& p, const Context& context);
void runFourBitGemm(const QuantizedProduct& p, Context& context);

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_FOURBIT_GEMM_H
