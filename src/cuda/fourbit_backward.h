// SPDX-License-Identifier: MPL-2.0
// Products Y = epilogue(X·W) of up to some hundred rows with 4-bit weights, as the backward pass has them: W is decoded
// on its way to the tensor cores and never written. A row of deviceLowerings().
#ifndef EIGENQ_CUDA_FOURBIT_BACKWARD_H
#define EIGENQ_CUDA_FOURBIT_BACKWARD_H

#include "context_state.h"
#include "device_lowering.h"

namespace EigenQ {
namespace gpu {
namespace internal {

/** half and bfloat16, on Hopper. */
const char* refuseFourBitBackward(const QuantizedProduct& p, const Context& context);
void runFourBitBackward(const QuantizedProduct& p, Context& context);

/** Most rows of X: beyond, decoding W once for all of them is faster. */
constexpr Index kBackwardRows = 512;

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_FOURBIT_BACKWARD_H
