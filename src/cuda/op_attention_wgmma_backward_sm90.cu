// SPDX-License-Identifier: MPL-2.0
// op_attention_wgmma_backward_sm90.cu: the three launches of a pullback: lse and delta of all queries, dQ, dK with dV.
//
//   dQ of heads of 64    three warpgroups where sequences are long (2×4096 tokens: 421 us, by two 469), else two
//                        (8×1024 tokens: 148 us, by three 157)
#include "op_attention.h"

#include <cmath>

#include "op_attention_wgmma_backward_sm90.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

using namespace wgmma_attention;

constexpr int kTermsThreads = 256;

// H200, microseconds of 128 keys against 128 queries.
constexpr double kStepOf128 = 2.7, kStepOf64 = 1.7;

/** The terms of all queries, those of one head by kDim/8 neighbouring lanes. */
template <typename T, int kDim>
__global__ void __launch_bounds__(kTermsThreads)
    attentionTermsKernel(const CausalAttention f, const ConstDenseView d_o, const TermsView terms) {
  constexpr int kLanes = kDim / 8;
  const Index n = (Index{blockIdx.x} * kTermsThreads + threadIdx.x) / kLanes, token = n / f.heads;
  const Index head = n - token * f.heads;
  if (token >= f.q.cols) return;  // whole groups of lanes
  const Index entry = head * kDim + threadIdx.x % kLanes * 8;
  float o[8], g[8];
  load(static_cast<const T*>(f.o.data) + token * f.o.colStride + entry, o);
  load(static_cast<const T*>(d_o.data) + token * d_o.colStride + entry, g);
  float delta = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) delta = fmaf(o[i], g[i], delta);
  const unsigned lanes = __activemask();
#pragma unroll
  for (int mask = kLanes / 2; mask > 0; mask /= 2) delta += __shfl_xor_sync(lanes, delta, mask);
  if (threadIdx.x % kLanes == 0) terms.data[head * terms.stride + token] = {f.lse[n] * kLog2E, delta};
}

template <typename T, typename S>
void runBackward(const CausalAttentionBackward& op, const TermsView& terms, const QueryShare& share, Context& context) {
  const CausalAttention& f = op.forward;
  const auto scale = static_cast<float>(1 / std::sqrt(static_cast<double>(f.headDim)));
  const auto rows = [](const ConstDenseView& m) { return attentionMap(m, S::kDim, S::kRows); };
  const auto inner = [](const ConstDenseView& m) { return attentionMap(m, S::kDim, S::kInner); };
  const BackwardMaps maps = S::kKeys ? BackwardMaps{rows(f.k), rows(f.v), inner(f.q), inner(op.d_o)}
                                     : BackwardMaps{rows(f.q), rows(op.d_o), inner(f.k), inner(f.v)};
  const Index heads = S::kKeys ? f.kvHeads : f.heads / share.heads;
  launch("attentionBackward.wgmma", attentionBackwardWgmmaKernel<T, S>,
         {attentionGrid(f.q.cols, f.sequences, share.pairs ? 2 * S::kRows : S::kRows, heads), S::kThreads,
          S::kSharedBytes},
         context, op, maps, terms, scale, share);
}

template <typename T, int kDim>
void runFor(const CausalAttentionBackward& op, Context& context) {
  using ForKeys = BackwardShape<kDim, 2, true>;
  const CausalAttention& f = op.forward;
  Scratch scratch(context);
  TermsView terms;
  terms.stride = (f.q.cols + 1) / 2 * 2;
  terms.data = scratch.array<QueryTerms>(f.heads * terms.stride + ForKeys::kInner + 2);  // the last copies go beyond
  const Index perBlock = kTermsThreads / (kDim / 8), count = f.heads * f.q.cols;
  launch("attentionBackward.wgmma", attentionTermsKernel<T, kDim>,
         {dim3(static_cast<unsigned>((count + perBlock - 1) / perBlock)), kTermsThreads}, context, f, op.d_o, terms);
  if (op.dq.data && kDim == 64 && isLong(f)) {
    runBackward<T, BackwardShape<64, 3, false>>(op, terms, {}, context);
  } else if (op.dq.data) {
    const QueryShare share = shareOf(f, 128, kDim == 128 ? kStepOf128 : kStepOf64, context);
    runBackward<T, BackwardShape<kDim, 2, false>>(op, terms, share, context);
  }
  if (op.dk.data || op.dv.data) runBackward<T, ForKeys>(op, terms, {}, context);
}

}  // namespace

const char* refuseAttentionBackwardWgmmaAtAll(const CausalAttentionBackward& op, const Context& context) {
  if (const char* why = refuseAttentionBackwardMma(op, context)) return why;
  if (const char* why = refuseAttentionWgmmaAtAll(op.forward, context)) return why;
  if (op.d_o.cols > 1 && op.d_o.colStride < op.d_o.rows) return "columns overlap";
  return nullptr;
}

const char* refuseAttentionBackwardWgmma(const CausalAttentionBackward& op, const Context& context) {
  if (const char* why = refuseAttentionBackwardWgmmaAtAll(op, context)) return why;
  // H200, 1 to 32 sequences, heads of 128 with 64 tokens and of 64 with 128: 1.0 to 1.4 times as fast as
  // attentionBackward.mma.
  const Index least = op.forward.headDim == 128 ? 64 : 128;
  if (op.forward.q.cols < least * op.forward.sequences) return "sequences are short";
  return nullptr;
}

void runAttentionBackwardWgmma(const CausalAttentionBackward& op, Context& context) {
  const DeviceGuard guard(context.device());
  dispatchSixteenBits(op.forward.q.scalar, [&](auto tag) {
    using T = typename decltype(tag)::type;
    op.forward.headDim == 64 ? runFor<T, 64>(op, context) : runFor<T, 128>(op, context);
  });
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
