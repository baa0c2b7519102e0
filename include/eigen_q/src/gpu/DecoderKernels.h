// SPDX-License-Identifier: MPL-2.0
// The blocks of a Llama with 4-bit weights, for one token of each of a few sequences, as one kernel. Eigen-free.
#ifndef EIGENQ_GPU_DECODERKERNELS_H
#define EIGENQ_GPU_DECODERKERNELS_H

#include <cstdint>
#include <memory>
#include <vector>

#include "../Views.h"
#include "Context.h"

namespace EigenQ {
namespace gpu {
namespace internal {

using EigenQ::internal::ConstDenseView;
using EigenQ::internal::DenseView;
using EigenQ::internal::WeightView;

/** The projections of a block, in the order of the model. */
enum DecoderMatrix { kQuery, kKey, kValue, kOutput, kGate, kUp, kDown, kDecoderMatrices };

/** h += output(attention(norm(h))); h += down(silu(gate(norm(h))) ∘ up(norm(h))). */
struct DecoderBlock {
  ConstDenseView attentionGain, ffnGain;    // hidden×1
  WeightView weights[kDecoderMatrices];     // out×in
  ConstDenseView biases[kDecoderMatrices];  // out×1; without data: none
  DenseView keys, values;                   // (kvHeads·headDim)×(sequences·capacity)
  Index window = 0;                         // as AttentionDecode
};

struct Decoder {
  std::vector<DecoderBlock> blocks;
  Index hidden = 0, ffn = 0;
  Index heads = 0, kvHeads = 0, headDim = 0;
  Index sequences = 0, capacity = 0;
  ScalarType scalar = ScalarType::kBFloat16;
  double eps = 0;
  const float* cos = nullptr;  // headDim/2×maxPositions, columns without gaps
  const float* sin = nullptr;
  Index maxPositions = 0;
  bool adjacent = false;  // pairs 2i, 2i + 1 instead of i, i + headDim/2
};

/** One token of every sequence. */
struct DecoderStep {
  const void* x = nullptr;                  // hidden×sequences, without gaps
  void* y = nullptr;                        // as x: what the last block leaves
  const std::int32_t* positions = nullptr;  // one a sequence; beyond the capacity: NaN, and nothing is cached
  const std::int32_t* step = nullptr;       // on the device, larger by 1 at every run, 1 or more at the first
};

/** Why a decoder cannot run as one kernel, in words; null where it can. Reads tables of the weights, and waits. */
const char* refuseDecoder(const Decoder& decoder, Context& context);

/** Prints, with EIGENQ_LOG=lowering, whether a model's blocks run as one kernel, or by separate ops and why.
 * \param refusal  refuseDecoder()'s, or whoever asked before it */
void logDecoder(const Decoder& decoder, const char* refusal);

/** What the kernel reads and keeps from step to step beside weights and caches. These outlive it. */
class DecoderKernel {
 public:
  /** For what refuseDecoder() does not refuse. Throws CudaOutOfMemory. */
  DecoderKernel(const Decoder& decoder, Context& context);
  ~DecoderKernel();
  DecoderKernel(const DecoderKernel&) = delete;
  DecoderKernel& operator=(const DecoderKernel&) = delete;

  /** Queues a step; may be captured. Sums are added in an order of their own: the same bits in every run. */
  void run(const DecoderStep& step, Context& context);

 private:
  struct State;
  std::unique_ptr<State> m_state;
};

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_GPU_DECODERKERNELS_H
