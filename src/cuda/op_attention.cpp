// SPDX-License-Identifier: MPL-2.0
#include "op_attention.h"

#include <cassert>
#include <iterator>
#include <limits>
#include <stdexcept>
#include <string>

#include "../lowering_log.h"
#include "dense_view.h"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

template <typename Problem>
const char* refuseNothing(const Problem&, const Context&) {
  return nullptr;
}

constexpr DeviceLowering<CausalAttention> kForward[] = {
    {"attention.wgmma", refuseAttentionWgmma, runAttentionWgmma},
    {"attention.mma", refuseAttentionMma, runAttentionMma},
    {"attention.float", refuseNothing, runAttentionFloat},
};
constexpr DeviceLowering<CausalAttentionBackward> kBackward[] = {
    {"attentionBackward.wgmma", refuseAttentionBackwardWgmma, runAttentionBackwardWgmma},
    {"attentionBackward.mma", refuseAttentionBackwardMma, runAttentionBackwardMma},
    {"attentionBackward.float", refuseNothing, runAttentionBackwardFloat},
};

void checkView(const ConstDenseView& m, const CausalAttention& op, Index heads, Index cols) {
  (void)m, (void)op, (void)heads, (void)cols;  // without assertions
  assert(m.rows == heads * op.headDim && m.cols == cols && m.scalar == op.q.scalar &&
         "causalAttention: matrices differ in shape or scalar type");
  assert((m.rowStride == 1 || m.rows <= 1) && "causalAttention: expected column-major matrices");
}

void checkSizes(const CausalAttention& op) {
  checkHeads("causalAttention", op.heads, op.kvHeads, op.headDim, op.window);
  assert((op.sequences > 0 || op.q.cols == 0) && "causalAttention: tokens without a sequence");
  const Index keys = op.positions ? op.sequences * op.capacity : op.q.cols;
  if (keys > std::numeric_limits<std::int32_t>::max())
    throw std::invalid_argument("causalAttention: expected fewer than 2^31 keys, found " + std::to_string(keys));
  checkView(op.q, op, op.heads, op.q.cols);
  checkView(op.k, op, op.kvHeads, keys);
  checkView(op.v, op, op.kvHeads, keys);
  checkView(asConst(op.o), op, op.heads, op.q.cols);
}

/** "cuda: attention 4/2 heads of 64, 512 tokens (half)" */
std::string describe(const CausalAttention& op) {
  return "cuda: attention " + std::to_string(op.heads) + "/" + std::to_string(op.kvHeads) + " heads of " +
         std::to_string(op.headDim) + ", " + std::to_string(op.q.cols) + " tokens" +
         (op.positions ? " over a cache" : "") + " (" + EigenQ::internal::nameOf(op.q.scalar) + ")";
}

template <typename Problem>
void lower(const LoweringTable<DeviceLowering<Problem>>& table, const Problem& problem, const CausalAttention& sizes,
           Context& context) {
  const Context& asked = context;
  const DeviceLowering<Problem>& row = EigenQ::internal::firstWilling(table, problem, asked);
  if (EigenQ::internal::logsLowerings()) EigenQ::internal::logChoice(describe(sizes), table, row, problem, asked);
  row.run(problem, context);
}

}  // namespace

void checkHeads(const char* op, Index heads, Index kvHeads, Index headDim, Index window) {
  if (kvHeads < 1 || heads < 1 || headDim < 1 || headDim > kMaxHeadDim || heads % kvHeads != 0 || window < 0)
    throw std::invalid_argument(std::string(op) +
                                ": expected positive sizes, heads a multiple of kvHeads, headDim up to " +
                                std::to_string(kMaxHeadDim) + " and a window of 0 or more, found " +
                                std::to_string(heads) + " heads, " + std::to_string(kvHeads) + " kvHeads, headDim " +
                                std::to_string(headDim) + ", window " + std::to_string(window));
}

LoweringTable<DeviceLowering<CausalAttention>> attentionForwardLowerings() {
  return {std::begin(kForward), std::end(kForward)};
}
LoweringTable<DeviceLowering<CausalAttentionBackward>> attentionBackwardLowerings() {
  return {std::begin(kBackward), std::end(kBackward)};
}

void causalAttentionForward(const CausalAttention& op, Context& context) {
  checkSizes(op);
  if (op.q.cols > 0) lower(attentionForwardLowerings(), op, op, context);
}

void causalAttentionBackward(const CausalAttentionBackward& op, Context& context) {
  const CausalAttention& f = op.forward;
  checkSizes(f);
  assert(!f.positions && "causalAttention: no gradient flows through a cache");
  checkView(op.d_o, f, f.heads, f.q.cols);
  if (op.dq.data) checkView(asConst(op.dq), f, f.heads, f.q.cols);
  if (op.dk.data) checkView(asConst(op.dk), f, f.kvHeads, f.q.cols);
  if (op.dv.data) checkView(asConst(op.dv), f, f.kvHeads, f.q.cols);
  if (f.q.cols > 0) lower(attentionBackwardLowerings(), op, f, context);
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
