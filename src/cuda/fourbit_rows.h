// SPDX-License-Identifier: MPL-2.0
// Products of a few rows with 4-bit weights on Hopper, Y = epilogue(X·Wᵀ), in one launch: W is read once, in its stored
// layout. A row of deviceLowerings().
#ifndef EIGENQ_CUDA_FOURBIT_ROWS_H
#define EIGENQ_CUDA_FOURBIT_ROWS_H

#include "context_state.h"
#include "device_lowering.h"

namespace EigenQ {
namespace gpu {
namespace internal {

/** half and bfloat16, up to 32 rows of X; rows of W that begin and end at multiples of 64 codes. */
const char* refuseFourBitRows(const QuantizedProduct& p, const Context& context);
void runFourBitRows(const QuantizedProduct& p, Context& context);

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_FOURBIT_ROWS_H
