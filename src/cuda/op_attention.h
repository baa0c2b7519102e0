// SPDX-License-Identifier: MPL-2.0
// The tables of attention kernels: best first; the last row never refuses.
#ifndef EIGENQ_CUDA_OP_ATTENTION_H
#define EIGENQ_CUDA_OP_ATTENTION_H

#include <eigen_q/src/gpu/OpKernels.h>

#include "device_lowering.h"

namespace EigenQ {
namespace gpu {
namespace internal {

LoweringTable<DeviceLowering<CausalAttention>> attentionForwardLowerings();
LoweringTable<DeviceLowering<CausalAttentionBackward>> attentionBackwardLowerings();

/** Throws std::invalid_argument, in the name of \a op. */
void checkHeads(const char* op, Index heads, Index kvHeads, Index headDim, Index window);

/** Whether the kernels for Hopper can run, whether or not they are the faster ones. */
const char* refuseAttentionWgmmaAtAll(const CausalAttention& op, const Context& context);
const char* refuseAttentionBackwardWgmmaAtAll(const CausalAttentionBackward& op, const Context& context);

const char* refuseAttentionWgmma(const CausalAttention& op, const Context& context);
void runAttentionWgmma(const CausalAttention& op, Context& context);
const char* refuseAttentionMma(const CausalAttention& op, const Context& context);
void runAttentionMma(const CausalAttention& op, Context& context);
const char* refuseAttentionBackwardWgmma(const CausalAttentionBackward& op, const Context& context);
void runAttentionBackwardWgmma(const CausalAttentionBackward& op, Context& context);
const char* refuseAttentionBackwardMma(const CausalAttentionBackward& op, const Context& context);
void runAttentionBackwardMma(const CausalAttentionBackward& op, Context& context);

void runAttentionFloat(const CausalAttention& op, Context& context);
void runAttentionBackwardFloat(const CausalAttentionBackward& op, Context& context);

/** delta(h, t) = Σ d_o ∘ o over head h of token t, heads×tokens: what the pullback of a softmax subtracts. */
void attentionDelta(const CausalAttentionBackward& op, float* delta, Context& context);

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_OP_ATTENTION_H
