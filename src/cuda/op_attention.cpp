// SPDX-License-Identifier: MPL-2.0
#include "op_attention.h"

#include <cassert>
#include <iterator>
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
    {"attention.mma", refuseAttentionMma, runAttentionMma},
    {"attention.float", refuseNothing, runAttentionFloat},
};
constexpr DeviceLowering<CausalAttentionBackward> kBackward[] = {
    {"attentionBackward.mma", refuseAttentionBackwardMma, runAttentionBackwardMma},
    {"attentionBackward.float", refuseNothing, runAttentionBackwardFloat},
};

[[noreturn]] void refuseSizes(const CausalAttention& op) {
  throw std::invalid_argument(
      "causalAttention: expected positive sizes, heads a multiple of kvHeads and headDim up to " +
      std::to_string(kMaxHeadDim) + ", found " + std::to_string(op.heads) + " heads, " + std::to_string(op.kvHeads) +
      " kvHeads, headDim " + std::to_string(op.headDim));
}

void checkView(const ConstDenseView& m, const CausalAttention& op, Index heads) {
  (void)m, (void)op, (void)heads;  // without assertions
  assert(m.rows == heads * op.headDim && m.cols == op.q.cols && m.scalar == op.q.scalar &&
         "causalAttention: matrices differ in shape or scalar type");
  assert((m.rowStride == 1 || m.rows <= 1) && "causalAttention: expected column-major matrices");
}

void checkSizes(const CausalAttention& op) {
  if (op.kvHeads < 1 || op.heads < 1 || op.headDim < 1 || op.headDim > kMaxHeadDim || op.heads % op.kvHeads != 0)
    refuseSizes(op);
  assert((op.sequences > 0 || op.q.cols == 0) && "causalAttention: tokens without a sequence");
  checkView(op.q, op, op.heads);
  checkView(op.k, op, op.kvHeads);
  checkView(op.v, op, op.kvHeads);
  checkView(asConst(op.o), op, op.heads);
}

/** "cuda: attention 4/2 heads of 64, 512 tokens (half)" */
std::string describe(const CausalAttention& op) {
  return "cuda: attention " + std::to_string(op.heads) + "/" + std::to_string(op.kvHeads) + " heads of " +
         std::to_string(op.headDim) + ", " + std::to_string(op.q.cols) + " tokens (" +
         EigenQ::internal::nameOf(op.q.scalar) + ")";
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
  checkSizes(op.forward);
  checkView(op.d_o, op.forward, op.forward.heads);
  if (op.dq.data) checkView(asConst(op.dq), op.forward, op.forward.heads);
  if (op.dk.data) checkView(asConst(op.dk), op.forward, op.forward.kvHeads);
  if (op.dv.data) checkView(asConst(op.dv), op.forward, op.forward.kvHeads);
  if (op.forward.q.cols > 0) lower(attentionBackwardLowerings(), op, op.forward, context);
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
