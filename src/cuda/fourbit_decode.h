// SPDX-License-Identifier: MPL-2.0
// Products of few rows with 4-bit weights, Y = epilogue(X·Wᵀ), M ≤ 16: W is read once, in its stored layout. Rows of
// deviceLowerings().
#ifndef EIGENQ_CUDA_FOURBIT_DECODE_H
#define EIGENQ_CUDA_FOURBIT_DECODE_H

#include "context_state.h"
#include "device_lowering.h"

namespace EigenQ {
namespace gpu {
namespace internal {

constexpr Index kDecodeRows = 16;  // most rows of X

/** Up to 8 rows of X on Hopper, in half and bfloat16; W arrives by bulk copies. */
const char* refuseFourBitDecodeStream(const QuantizedProduct& p, const Context& context);
void runFourBitDecodeStream(const QuantizedProduct& p, Context& context);

/** half and bfloat16 on tensor cores; rows of W that begin at multiples of 64 codes. */
const char* refuseFourBitDecodeMma(const QuantizedProduct& p, const Context& context);
void runFourBitDecodeMma(const QuantizedProduct& p, Context& context);

/** Float sums of float products: float operands, and whatever the other refuses. */
const char* refuseFourBitDecodeSimt(const QuantizedProduct& p, const Context& context);
void runFourBitDecodeSimt(const QuantizedProduct& p, Context& context);

// What they share.

/** How a product is spread over CTAs on tensor cores: each takes tiles of kDecodeTileRows rows of W in turn, for one
 * slice of K. */
struct DecodeSpread {
  Index slices = 1;
  Index ctas = 1;  // of a slice
};
constexpr Index kDecodeTileRows = 16;

/** The spread of the least estimated time among \a fewestSlices and the next seven. \param unit  values that a slice
 * has at least */
DecodeSpread spreadDecode(Index rows, Index cols, Index unit, Index fewestSlices, int multiprocessors);

/** Rows of X as the kernels read them: one after the other, each at a multiple of 16 bytes. */
struct PackedRows {
  const void* data = nullptr;
  Index stride = 0;
};

/** X in \a scalar (float, or its own), packed into scratch memory unless it lies so already. */
PackedRows packRows(const ConstDenseView& x, ScalarType scalar, Scratch& scratch, Context& context);

/** Y = epilogue(Σ sums[slice]), slices of Y's shape one after the other, row-major; added in ascending order. */
void addSlices(const float* sums, int slices, const DenseView& y, const Epilogue& epilogue, Context& context);

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_FOURBIT_DECODE_H
