// SPDX-License-Identifier: MPL-2.0
// op_attention_wgmma_sm90.cu: which attention op_attention_wgmma_forward_sm90.cuh computes, and in what blocks.
//
//   heads of 128                          two warpgroups, 128 queries
//   heads of 64, up to 2048 tokens        the same: 8×1024 tokens 122 us, by three warpgroups 152
//                in longer sequences      three, 192 queries: 2×4096 tokens 364 us, by two 396
#include "op_attention.h"

#include <cmath>

#include "fourbit_operands.h"
#include "op_attention_wgmma_forward_sm90.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

using namespace wgmma_attention;

// H200, microseconds of 128 keys against 128 queries.
constexpr double kStepOf128 = 1.9, kStepOf64 = 1.4;

template <typename T, typename S>
void runForward(const CausalAttention& op, const QueryShare& share, Context& context) {
  const auto scale = static_cast<float>(1 / std::sqrt(static_cast<double>(op.headDim)));
  const ForwardMaps maps = {attentionMap(op.q, S::kDim, S::kRows), attentionMap(op.k, S::kDim, S::kKeys),
                            attentionMap(op.v, S::kDim, S::kKeys)};
  launch("attention.wgmma", attentionWgmmaKernel<T, S>,
         {attentionGrid(op.q.cols, op.sequences, share.pairs ? 2 * S::kRows : S::kRows, op.heads / share.heads),
          S::kThreads, S::kSharedBytes},
         context, op, maps, scale, share);
}

}  // namespace

const char* refuseAttentionWgmmaAtAll(const CausalAttention& op, const Context& context) {
  if (const char* why = refuseAttentionMma(op, context)) return why;
  if (const char* why = refuseAllButHopper(context)) return why;
  if (op.headDim == 32) return "headDim is 32";
  for (const ConstDenseView& m : {op.q, op.k, op.v}) {
    if (m.cols == 0) return "no tokens";
    if (m.cols > 1 && m.colStride < m.rows) return "columns overlap";
  }
  return nullptr;
}

const char* refuseAttentionWgmma(const CausalAttention& op, const Context& context) {
  if (const char* why = refuseAttentionWgmmaAtAll(op, context)) return why;
  // H200, 1 to 32 sequences: of 256 tokens 1.0 to 1.7 times as fast as attention.mma, of 192 0.7 to 1.0 times.
  if (op.q.cols < 256 * op.sequences) return "fewer than 256 tokens a sequence";
  return nullptr;
}

void runAttentionWgmma(const CausalAttention& op, Context& context) {
  const DeviceGuard guard(context.device());
  dispatchSixteenBits(op.q.scalar, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (op.headDim == 64 && isLong(op)) return runForward<T, ForwardShape<64, 3>>(op, {}, context);
    op.headDim == 64 ? runForward<T, ForwardShape<64, 2>>(op, shareOf(op, 128, kStepOf64, context), context)
                     : runForward<T, ForwardShape<128, 2>>(op, shareOf(op, 128, kStepOf128, context), context);
  });
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
