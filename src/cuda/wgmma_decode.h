// SPDX-License-Identifier: MPL-2.0
// Products of many rows with quantised weights on Hopper, Y = epilogue(X·Wᵀ): W is decoded on its way into the tensor
// cores. Two rows of deviceLowerings().
#ifndef EIGENQ_CUDA_WGMMA_DECODE_H
#define EIGENQ_CUDA_WGMMA_DECODE_H

#include "context_state.h"
#include "device_lowering.h"

namespace EigenQ {
namespace gpu {
namespace internal {

/** half and bfloat16; rows of W that begin and end at multiples of 64 codes. */
const char* refuseFourBitWgmma(const QuantizedProduct& p, const Context& context);
void runFourBitWgmma(const QuantizedProduct& p, Context& context);

/** half and bfloat16, as they are; rows of W that begin and end at multiples of 16 codes. */
const char* refuseInt8WeightOnlyWgmma(const QuantizedProduct& p, const Context& context);
void runInt8WeightOnlyWgmma(const QuantizedProduct& p, Context& context);

// What stands before the kernel.

/** absmax of blocks of 64, a float each; rows begin at multiples of 16 bytes. */
struct PackedAbsmax {
  const float* data = nullptr;
  Index stride = 0;  // floats
};

/** Whether those of \a w lie so already. */
bool absmaxLiesPacked(const WeightView& w);
/** Those of \a w, whose blocks are of 64 or more and whose rows begin and end between blocks of 64: as they are where
 * they lie so, or written to scratch memory. */
PackedAbsmax packAbsmax(const WeightView& w, Scratch& scratch, Context& context);

constexpr Index kPackedDepth = 64, kPackedChunk = 256;  // k of a row of 128 bytes, and of a chunk of 4-bit codes

/** X, of 16-bit values, in scratch memory: tiles of \a tileTokens rows one after another, a multiple of 32; in a tile
 * 64 k after 64 k, and all of the last \a chunk k; in these a row of 128 bytes for each token. Within 64 k, 2 values at
 * 16c + 4j + 2h lie at place c of piece 2j + h of 16 bytes, and that piece of token t at (2j + h) ^ (t % 8): as wgmma
 * reads them beside W's codes. Zeros fill what lies beyond X, whose columns are a multiple of 8. The kernel queued
 * next, if it was told to wait by itself, may begin when what came before is over. */
const void* packTokens(const ConstDenseView& x, Index tileTokens, Index chunk, Scratch& scratch, Context& context);

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_WGMMA_DECODE_H
