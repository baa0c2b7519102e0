// SPDX-License-Identifier: MPL-2.0
// Rotary position embedding: pairs of entries of each head turn by position·frequency.
//
//   head of a token │ a0 … a(h-1) │ b0 … b(h-1) │   pairs (aᵢ, bᵢ), or neighbours │ a0 b0 │ a1 b1 │ …
//   table           │ cos, sin of column `position`, h = headDim/2 values each, in L2 for all heads and tokens
//
// A thread turns one pair. Traffic: x and y once; 6 FLOP a pair, so memory is the limit.
#include <eigen_q/src/gpu/OpKernels.h>

#include "op_columns.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

constexpr unsigned kThreads = 256;

struct RopeTableView {
  const float* cos;
  const float* sin;
  Index half;
  Index positions;
};

template <typename T>
__global__ void __launch_bounds__(kThreads)
    ropeKernel(Columns<const T> x, Columns<T> y, RopeTableView table, const std::int32_t* positions,
               Index pairsPerToken, Index pairs, bool adjacent, float direction, bool accumulate) {
  const Index step = Index{gridDim.x} * blockDim.x;
  for (Index p = Index{blockIdx.x} * blockDim.x + threadIdx.x; p < pairs; p += step) {
    const Index t = p / pairsPerToken, pair = p - t * pairsPerToken, head = pair / table.half;
    const Index i = pair - head * table.half;
    const Index first = head * 2 * table.half + (adjacent ? 2 * i : i), second = first + (adjacent ? 1 : table.half);
    const Index position = positions[t];
    const bool known = position >= 0 && position < table.positions;
    const float c = known ? table.cos[position * table.half + i] : __int_as_float(0x7fffffff);
    const float s = known ? direction * table.sin[position * table.half + i] : c;
    const float a = toFloat(x(t)[first]), b = toFloat(x(t)[second]);
    const float outA[1] = {a * c - b * s}, outB[1] = {b * c + a * s};
    store(y(t) + first, outA, accumulate);
    store(y(t) + second, outB, accumulate);
  }
}

}  // namespace

void rope(const Rope& op, Context& context) {
  assert(op.headDim > 0 && op.headDim % 2 == 0 && op.x.rows % op.headDim == 0 &&
         "rope: rows are not a multiple of an even head dimension");
  const Walk walk({op.x, asConst(op.y)});
  if (walk.empty()) return;
  assert((op.x.data != op.y.data || !op.accumulate) && "rope: a result in place cannot accumulate");
  const RopeTableView table = {op.cos, op.sin, op.headDim / 2, op.maxPositions};
  const Index pairsPerToken = walk.rows / 2, pairs = pairsPerToken * walk.cols;
  const LaunchShape shape = {dim3(gridFor((pairs + kThreads - 1) / kThreads)), kThreads};
  dispatchDeviceScalar(walk.scalar, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch("rope", ropeKernel<T>, shape, context, Columns<const T>(op.x), Columns<T>(op.y), table, op.positions,
           pairsPerToken, pairs, op.adjacent, op.inverse ? -1.0f : 1.0f, op.accumulate);
  });
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
