// SPDX-License-Identifier: MPL-2.0
// fourbit_gemm_sm90.cu: how a product is shared among the teams of fourbit_gemm_sm90.cuh, and which products they are
// asked for: those that they were measured to compute faster than cuBLASLt does from decoded slabs of W.
#include "fourbit_gemm_sm90.cuh"

#include <algorithm>
#include <iterator>
#include <limits>

#include "alignment.h"
#include "dense_view.h"
#include "fourbit_decode.h"
#include "fourbit_gemm.h"
#include "fourbit_operands.h"
#include "wgmma_decode.h"
#include "op_launch.cuh"
#include "tensor_map.h"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

using namespace fourbit_gemm;

/** How a product is shared among teams. */
struct Plan {
  int members = 0;  // clusters of a team
  int teams = 0;
  int rowTiles = 0, tiles = 0;  // of teams
  int rounds() const { return (tiles + teams - 1) / teams; }
};

/** \param columns  of Y: as many rows, or columns, of W */
Plan planOf(Index tokens, Index columns, int multiprocessors) {
  const Index tokenTiles = ceilDiv(tokens, kTileTokens);
  Plan plan;
  plan.members = tokenTiles >= kMostMembers ? kMostMembers : tokenTiles >= 4 ? 4 : tokenTiles >= 2 ? 2 : 1;
  plan.rowTiles = static_cast<int>(ceilDiv(columns, kTileRows));
  plan.tiles = plan.rowTiles * static_cast<int>(ceilDiv(tokenTiles, plan.members));
  plan.teams = std::min(multiprocessors / kCluster / plan.members, plan.tiles);
  return plan;
}
Plan planOf(const QuantizedProduct& p, const Context& context) {
  return planOf(p.y.rows, p.y.cols, context.multiprocessors());
}

// Slabs' time over teams', W n×k in NF4 with plain statistics, bfloat16, on an H200, X·Wᵀ and X·W of so many rows:
// doc/perf.md, "Products of 2048 rows and more".
struct Measurement {
  Index n, k;
  double forward2048, forward4096, backward1024, backward2048, backward4096;
};
constexpr Measurement kMeasured[] = {
    {4096, 4096, 0.98, 0.94, 0.88, 1.00, 0.95},  {11008, 4096, 0.95, 0.97, 0.99, 1.08, 0.98},
    {4096, 11008, 1.07, 0.99, 0.91, 1.00, 1.00}, {14336, 4096, 1.09, 1.10, 1.16, 1.16, 1.08},
    {8192, 8192, 1.07, 1.01, 1.02, 1.16, 1.10},  {28672, 8192, 1.08, 1.10, 1.07, 1.19, 1.07},
};
constexpr double kLeastGain = 1.03;  // less is within what runs differ by
constexpr Index kMostRows = 4096;    // 8192 rows took as long as slabs, or longer
constexpr int kMeasuredMultiprocessors = 132;

/** What the gain over slabs depends on: filling and emptying the pipeline and launching teams take a share of few
 * steps, and teams pay for the parts of tiles that Y lacks and for multiprocessors that have no tile. */
struct Extent {
  int members;
  Index steps;        // of a team in all its rounds
  Index thousandths;  // of the multiprocessors' time that entries of Y take
  bool reaches(const Extent& other) const {
    return members == other.members && steps >= other.steps && thousandths >= other.thousandths;
  }
};
Extent extentOf(Index tokens, Index columns, Index depth, int multiprocessors) {
  const Plan plan = planOf(tokens, columns, multiprocessors);
  const Index clusters = multiprocessors / kCluster, room = plan.rounds() * clusters * kTileRows * kTileTokens;
  return {plan.members, plan.rounds() * ceilDiv(depth, kDeep), 1000 * tokens * columns / room};
}

/** Whether the product is as long and fills the device as well as one of the same kind that was measured to gain. */
bool gains(const QuantizedProduct& p, const Context& context) {
  if (p.y.rows == 0 || p.y.cols == 0) return false;
  const Extent extent = extentOf(p.y.rows, p.y.cols, p.x.cols, context.multiprocessors());
  const auto reaches = [&](double gain, Index tokens, Index columns, Index depth) {
    return gain >= kLeastGain && extent.reaches(extentOf(tokens, columns, depth, kMeasuredMultiprocessors));
  };
  const bool isLong = p.y.rows > 2048;  // cuBLASLt is closer to its limit there
  return std::any_of(std::begin(kMeasured), std::end(kMeasured), [&](const Measurement& m) {
    if (p.transposed) return isLong ? reaches(m.forward4096, 4096, m.n, m.k) : reaches(m.forward2048, 2048, m.n, m.k);
    if (isLong) return reaches(m.backward4096, 4096, m.k, m.n);
    return reaches(m.backward1024, 1024, m.k, m.n) || reaches(m.backward2048, 2048, m.k, m.n);
  });
}

/** Clusters that find room at once where the context's stream runs, which may be less than the device: a partition, or
 * what another process leaves. A launch would fail, where another row can compute the product. */
int clustersAtOnce(const Context& context) {
  const DeviceGuard guard(context.device());
  const auto kernel = multiplyFourBit<__nv_bfloat16, true>;  // the others take as much of a multiprocessor
  EIGENQ_CUDA_CHECK(allowSharedMemory(reinterpret_cast<const void*>(kernel), context.device(), kSharedBytes));
  cudaLaunchAttribute cluster = {};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {kCluster, 1, 1};
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(context.multiprocessors() / kCluster * kCluster));
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = kSharedBytes;
  config.stream = context.stream();
  config.attrs = &cluster;
  config.numAttrs = 1;
  int clusters = 0;
  EIGENQ_CUDA_CHECK(cudaOccupancyMaxActiveClusters(&clusters, kernel, &config));
  return clusters;
}

/** By what is known without asking the driver. */
const char* refuseOperands(const QuantizedProduct& p, const Context& context) {
  if (const char* why = refuseFourBitOperands(p, p.transposed)) return why;
  if (const char* why = refuseAllButHopper(context)) return why;
  if (const char* why = refuseFourBitRowsOfCodes(p.w)) return why;
  if (p.x.cols == 0) return "nothing to sum";
  if (p.x.rows > 1 && p.x.rowStride == 0) return "rows of X lie in one place";
  if (Index{1} << p.w.blockShift < kDeep) return "blocks of less than 64";
  constexpr Index kMost = std::numeric_limits<std::int32_t>::max() / 4;
  if (p.x.rows > kMost || p.w.rows > kMost || p.w.cols > kMost) return "more rows or columns than 32 bits count";
  if (context.multiprocessors() < kMostMembers * kCluster) return "fewer than 16 multiprocessors";
  return nullptr;
}

const char* refuseRoom(const QuantizedProduct& p, const Context& context) {
  if (p.y.rows == 0 || p.y.cols == 0) return nullptr;  // nothing is launched
  const Plan plan = planOf(p, context);
  if (clustersAtOnce(context) < plan.teams * plan.members) return "teams find no room on the device all at once";
  return nullptr;
}

/** Whether the copy engine may store Y, in pairs of columns and 16 bytes or more at a time. */
bool takesBoxes(const DenseView& y, const Epilogue& e) {
  const bool aligned = y.colStride == 1 && y.rowStride % 8 == 0 && y.rowStride >= y.cols && isAligned(y.data, 16);
  return aligned && y.cols % 2 == 0 && e.activation == Activation::kNone && e.biasAxis != BiasAxis::kPerRow;
}

/** What does not depend on X; weights and counters in scratch memory. */
Problem problemOf(const QuantizedProduct& p, Scratch& scratch, Context& context) {
  const Plan plan = planOf(p, context);
  const PackedAbsmax absmax = packAbsmax(p.w, scratch, context);
  Problem problem = {};
  problem.out = {p.y, p.epilogue, nullptr, wgmma_decode::Finish::kAny};
  problem.boxes = takesBoxes(p.y, p.epilogue);
  problem.plain = isPlain(p.epilogue);
  problem.codeTable = p.w.codeTable;
  problem.codes = static_cast<const std::uint8_t*>(p.w.codes) + p.w.offset / 2;
  problem.codeStride = p.w.stride / 2;
  problem.absmax = absmax.data;
  problem.absmaxStride = absmax.stride;
  problem.rows = static_cast<int>(p.w.rows);
  problem.cols = static_cast<int>(p.w.cols);
  problem.steps = static_cast<int>(ceilDiv(p.x.cols, kDeep));
  problem.rowTiles = plan.rowTiles;
  problem.tiles = plan.tiles;
  problem.teams = plan.teams;
  problem.members = plan.members;
  const Index places = Index{plan.teams} * kCluster;
  problem.weights = static_cast<uint4*>(scratch.bytes(static_cast<std::size_t>(places * kRing * kWBytes)));
  problem.counters = scratch.array<Counters>(places);
  EIGENQ_CUDA_CHECK(
      cudaMemsetAsync(problem.counters, 0, static_cast<std::size_t>(places) * sizeof(Counters), context.stream()));
  return problem;
}

/** \tparam kColumns  X·W: a step of the team is of 256 columns of W */
template <typename T, bool kColumns>
void launchTeams(const QuantizedProduct& p, Context& context) {
  Scratch scratch(context);
  const PackedRows x = packRows(p.x, p.x.scalar, scratch, context);
  const Index xStride = p.x.rows > 1 ? x.stride : roundUp(p.x.cols, 8);  // of one row it may be anything
  const Problem problem = problemOf(p, scratch, context);
  const CUtensorMap rows = tensorMap<2>(x.data, {2 * p.x.cols, p.x.rows}, {2 * xStride},
                                        {2 * kDeep, kTileTokens / kCluster}, CU_TENSOR_MAP_SWIZZLE_128B);
  CUtensorMap y = {};
  if (problem.boxes)
    y = tensorMap<2>(p.y.data, {2 * p.y.cols, p.y.rows}, {2 * p.y.rowStride}, {2 * kGroupRows, kStoreTokens},
                     CU_TENSOR_MAP_SWIZZLE_128B);

  LaunchShape shape{dim3(static_cast<unsigned>(problem.teams * problem.members * kCluster)), kThreads, kSharedBytes};
  shape.cluster = kCluster;
  shape.together = true;
  launch("wgmma.team", multiplyFourBit<T, kColumns>, shape, context, problem, rows, y);
}

template <typename T>
void launchFor(const QuantizedProduct& p, Context& context) {
  p.transposed ? launchTeams<T, false>(p, context) : launchTeams<T, true>(p, context);
}

}  // namespace

const char* refuseFourBitGemmAtAll(const QuantizedProduct& p, const Context& context) {
  if (const char* why = refuseOperands(p, context)) return why;
  return refuseRoom(p, context);
}

const char* refuseFourBitGemm(const QuantizedProduct& p, const Context& context) {
  if (const char* why = refuseOperands(p, context)) return why;
  if (p.x.rows > kMostRows) return "more than 4096 rows of X: decoding slabs of W is as fast";
  if (!gains(p, context)) return "decoding slabs of W is as fast, or nothing like it was measured";
  return refuseRoom(p, context);
}

void runFourBitGemm(const QuantizedProduct& p, Context& context) {
  if (p.y.rows == 0 || p.y.cols == 0) return;
  const DeviceGuard guard(context.device());
  dispatchSixteenBits(p.x.scalar, [&](auto tag) { launchFor<typename decltype(tag)::type>(p, context); });
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
