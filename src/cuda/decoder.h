// SPDX-License-Identifier: MPL-2.0
// What host and device code of the decoder's kernel share.
#ifndef EIGENQ_CUDA_DECODER_H
#define EIGENQ_CUDA_DECODER_H

#include <cuda.h>

#include <eigen_q/src/gpu/DecoderKernels.h>

#include "fourbit_operands.h"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace decoder {

constexpr int kTileRows = 16;
constexpr int kMostTokens = 2;     // sequences
constexpr int kMostHidden = 8192;  // the gain of a norm fills a stage
constexpr int kMostSplits = 32;    // of a head's keys
constexpr int kSharedBytes = kHopperSharedBytes;

/** A matrix for the copy engine. */
struct Maps {
  CUtensorMap codes;   // byte of a line, row, line: boxes of a stage's codes
  CUtensorMap scales;  // byte, row: boxes of a stage's absmax, floats or codes
};
struct BlockMaps {
  Maps matrices[kDecoderMatrices];
};

/** A block as the threads read it, from shared memory. */
struct BlockData {
  const void* gains[2];  // of attention and feed-forward
  const float* absmax2[kDecoderMatrices];
  const void* biases[kDecoderMatrices];
  void* keys;
  void* values;
  float offset[kDecoderMatrices];  // nested; the kernel's
  int window;
};

/** Words of 16 bits of a value and 16 of a tag, tokens one after the other. */
struct Exchanges {
  std::uint32_t* stream;      // hidden: what a block begins with
  std::uint32_t* middle;      // hidden: between attention and feed-forward
  std::uint32_t* projected;   // queries, keys, values
  std::uint32_t* attention;   // queries
  std::uint32_t* activation;  // ffn
  std::uint64_t* splits;      // (split, sequence, head, 2 + headDim): 32 bits of a float and 32 of a tag
};

struct Problem {
  const BlockMaps* maps;
  const BlockData* blocks;
  const float* const* offsets;  // of nested absmax, (block, matrix): read at every step
  const float* codeTable;
  const float* nestedTable;
  const float* cos;
  const float* sin;
  Exchanges words;
  int blockCount, tokens;
  int hidden, ffn, queries, keys;  // values of a token
  int heads, kvHeads, headDim, capacity, maxPositions;
  int nestedShift;
  float eps;
  bool adjacent;
  int xBytes;  // of shared memory for X, or for attention
};

/** Bytes of shared memory behind which no stage lies. */
constexpr int kWarps = 16;
inline int attentionBytes(int headDim) { return (kWarps * (headDim + 2) + 3 * headDim) * 4; }

// decoder_sm90.cu, where that is part of the build.
BlockMaps mapsOf(const DecoderBlock& block);
/** Whether all CTAs of the kernel can be on the device at once. */
bool fits(ScalarType scalar, bool nested, Context& context);
void launch(const Problem& problem, const DecoderStep& step, ScalarType scalar, bool nested, Context& context);

}  // namespace decoder
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_DECODER_H
