// SPDX-License-Identifier: MPL-2.0
// Rotary position embedding: pairs of entries of each head turn by position·frequency.
//
//   head of a token │ a0 … a(h-1) │ b0 … b(h-1) │   pairs (aᵢ, bᵢ), or neighbours │ a0 b0 │ a1 b1 │ …
//   table           │ cos, sin of column `position`, h = headDim/2 values each, in L2 for all heads and tokens
//
// A thread turns a pack of pairs: 16 bytes of each half of the head, or 32 bytes of neighbours; one pair where heads or
// columns are not made of packs, or of a single token. Traffic: x and y once; 6 FLOP a pair, so memory is the limit.
#include "op_rope.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

constexpr unsigned kThreads = 256;

template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads)
    ropeKernel(Columns<const T> x, Columns<T> y, RopeTableView table, const std::int32_t* positions,
               Index packsPerToken, Index packs, bool accumulate) {
  const Index step = Index{gridDim.x} * blockDim.x;
  for (Index p = Index{blockIdx.x} * blockDim.x + threadIdx.x; p < packs; p += step) {
    const Index t = p / packsPerToken;
    table.rotate<kWidth>(x(t), y(t), (p - t * packsPerToken) * kWidth, positions[t], accumulate);
  }
}

}  // namespace

void rope(const Rope& op, Context& context) {
  assert(op.headDim > 0 && op.headDim % 2 == 0 && op.x.rows % op.headDim == 0 &&
         "rope: rows are not a multiple of an even head dimension");
  const Walk walk({op.x, asConst(op.y)});
  if (walk.empty()) return;
  assert((op.x.data != op.y.data || !op.accumulate) && "rope: a result in place cannot accumulate");
  const RopeTableView table(op);
  dispatchTurns(walk, table, [&](auto tag, auto width) {
    using T = typename decltype(tag)::type;
    constexpr int kWidth = decltype(width)::value;
    const Index packsPerToken = walk.rows / 2 / kWidth, packs = packsPerToken * walk.cols;
    launch("rope", ropeKernel<T, kWidth>, {dim3(gridFor((packs + kThreads - 1) / kThreads)), kThreads}, context,
           Columns<const T>(op.x), Columns<T>(op.y), table, op.positions, packsPerToken, packs, op.accumulate);
  });
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
