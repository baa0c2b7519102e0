// SPDX-License-Identifier: MPL-2.0
// Rotary position embedding: pairs of entries of each head turn by position·frequency.
//
//   head of a token │ a0 … a(h-1) │ b0 … b(h-1) │   pairs (aᵢ, bᵢ), or neighbours │ a0 b0 │ a1 b1 │ …
//   table           │ cos, sin of column `position`, h = headDim/2 values each, in L2 for all heads and tokens
//
// A thread turns one pair. Traffic: x and y once; 6 FLOP a pair, so memory is the limit.
#include "op_rope.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

constexpr unsigned kThreads = 256;

template <typename T>
__global__ void __launch_bounds__(kThreads)
    ropeKernel(Columns<const T> x, Columns<T> y, RopeTableView table, const std::int32_t* positions,
               Index pairsPerToken, Index pairs, bool accumulate) {
  const Index step = Index{gridDim.x} * blockDim.x;
  for (Index p = Index{blockIdx.x} * blockDim.x + threadIdx.x; p < pairs; p += step) {
    const Index t = p / pairsPerToken;
    table.rotate(x(t), y(t), p - t * pairsPerToken, positions[t], accumulate);
  }
}

}  // namespace

void rope(const Rope& op, Context& context) {
  assert(op.headDim > 0 && op.headDim % 2 == 0 && op.x.rows % op.headDim == 0 &&
         "rope: rows are not a multiple of an even head dimension");
  const Walk walk({op.x, asConst(op.y)});
  if (walk.empty()) return;
  assert((op.x.data != op.y.data || !op.accumulate) && "rope: a result in place cannot accumulate");
  const Index pairsPerToken = walk.rows / 2, pairs = pairsPerToken * walk.cols;
  const LaunchShape shape = {dim3(gridFor((pairs + kThreads - 1) / kThreads)), kThreads};
  dispatchDeviceScalar(walk.scalar, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch("rope", ropeKernel<T>, shape, context, Columns<const T>(op.x), Columns<T>(op.y), RopeTableView(op),
           op.positions, pairsPerToken, pairs, op.accumulate);
  });
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
