// SPDX-License-Identifier: MPL-2.0
// Products Y = epilogue(X·W) of up to some thousand rows with quantised weights, as the backward pass has them: W is
// decoded on its way to the tensor cores and never written. Two rows of deviceLowerings().
#ifndef EIGENQ_CUDA_WGMMA_BACKWARD_H
#define EIGENQ_CUDA_WGMMA_BACKWARD_H

#include "context_state.h"
#include "device_lowering.h"

namespace EigenQ {
namespace gpu {
namespace internal {

/** half and bfloat16, on Hopper. */
const char* refuseFourBitBackward(const QuantizedProduct& p, const Context& context);
void runFourBitBackward(const QuantizedProduct& p, Context& context);

/** The same; rows of W that begin and end at multiples of 16 codes. */
const char* refuseInt8Backward(const QuantizedProduct& p, const Context& context);
void runInt8Backward(const QuantizedProduct& p, Context& context);

/** Most rows of X: beyond, decoding W once for all of them is faster. */
constexpr Index kFourBitBackwardRows = 512, kInt8BackwardRows = 2048;

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_WGMMA_BACKWARD_H
