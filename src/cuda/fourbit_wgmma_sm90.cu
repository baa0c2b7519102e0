// SPDX-License-Identifier: MPL-2.0
// fourbit_wgmma_sm90.cu: which of the kernels of fourbit_wgmma_sm90.cuh computes a product, and how it is shared among
// blocks.
#include "fourbit_wgmma_sm90.cuh"

#include <algorithm>
#include <limits>
#include <map>
#include <mutex>
#include <utility>

#include "alignment.h"
#include "fourbit_wgmma.h"
#include "op_launch.cuh"
#include "tensor_map.h"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

using namespace fourbit_wgmma;

constexpr Index kLeastRows = 17, kMostRows = 1024;

using Of32 = Tiling<32, 2, false>;
using Of32Tall = Tiling<32, 4, false>;
using Of64 = Tiling<64, 2, false>;
using Of128 = Tiling<128, 2, false>;
using Of128Scaled = Tiling<128, 2, true>;
using Of256Scaled = Tiling<256, 2, true>;

/** Microseconds that 256 k of a tile take a block, all others being at work too: on an H200. */
template <typename Tiles>
constexpr double kChunkTime = 0;
template <>
constexpr double kChunkTime<Of32> = 1.0;
template <>
constexpr double kChunkTime<Of32Tall> = 1.75;
template <>
constexpr double kChunkTime<Of64> = 1.2;
template <>
constexpr double kChunkTime<Of128> = 2.0;
template <>
constexpr double kChunkTime<Of128Scaled> = 1.9;
template <>
constexpr double kChunkTime<Of256Scaled> = 3.1;

/** Microseconds that differ from schedule to schedule. */
template <typename Tiles>
double estimate(const Schedule& s) {
  constexpr double kExchange = 1.5, kSecondKernel = 3.8, kPartPerMicrosecond = 8e6;  // bytes written and read again
  const double tile = static_cast<double>(ceilDiv(s.chunks, s.cluster)) * kChunkTime<Tiles>;
  const double rounds = s.rounds * (s.cluster > 1 ? tile + kExchange : tile);
  if (s.sharing == 0) return rounds;
  const double partBytes = 8.0 * Tiles::kRows * Tiles::kTokens;
  const double share = static_cast<double>(ceilDiv(Index{s.shared()} * s.chunks, s.sharing)) * kChunkTime<Tiles>;
  return rounds + share + kSecondKernel + (s.shared() + s.sharing) * partBytes / kPartPerMicrosecond;
}

/** Clusters of so many blocks that find room at once. Which multiprocessors may form one differs among devices of the
 * same name: 132 of an H200 hold 66 clusters of two, 39 of three and 30 of four. */
int clustersAtOnce(int cluster, const Context& context) {
  static std::mutex mutex;
  static std::map<std::pair<int, int>, int> known;  // by device and size: the driver takes its time to answer
  const std::lock_guard<std::mutex> lock(mutex);
  const auto [entry, isNew] = known.try_emplace({context.device(), cluster}, 0);
  if (!isNew) return entry->second;
  const auto kernel = wgmmaProduct<__half, Of64>;  // the others take as much of a multiprocessor
  EIGENQ_CUDA_CHECK(allowSharedMemory(reinterpret_cast<const void*>(kernel), context.device(), kSharedBytes));
  cudaLaunchAttribute size = {};
  size.id = cudaLaunchAttributeClusterDimension;
  size.val.clusterDim = {static_cast<unsigned>(cluster), 1, 1};
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(context.multiprocessors() / cluster * cluster));
  config.blockDim = dim3(Of64::kThreads);
  config.dynamicSmemBytes = kSharedBytes;
  config.attrs = &size;
  config.numAttrs = 1;
  EIGENQ_CUDA_CHECK(cudaOccupancyMaxActiveClusters(&entry->second, kernel, &config));
  return entry->second;
}

/** The fastest of: a tile a block; the same, with what is left of whole rounds in equal shares of at least so many
 * chunks; a tile a cluster. */
template <typename Tiles>
Schedule scheduleOf(const QuantizedProduct& p, const Context& context) {
  const int multiprocessors = context.multiprocessors();
  Schedule whole;
  whole.tiles = static_cast<int>(ceilDiv(p.w.rows, Tiles::kRows) * ceilDiv(p.x.rows, Tiles::kTokens));
  whole.chunks = whole.chunksOfBlock = static_cast<int>(ceilDiv(p.w.cols, kChunk));
  whole.blocks = whole.clusters = std::min(whole.tiles, multiprocessors);
  whole.rounds = static_cast<int>(ceilDiv(whole.tiles, whole.blocks));
  Schedule best = whole;
  double least = estimate<Tiles>(whole);
  const auto consider = [&](const Schedule& s) {
    const double time = estimate<Tiles>(s);
    if (time >= least) return;
    least = time;
    best = s;
  };
  for (const int share : {1, 2, 4}) {
    Schedule s = whole;
    s.rounds = s.tiles / multiprocessors;
    const Index left = s.tiles - Index{s.rounds} * multiprocessors;
    if (left == 0) break;
    s.sharing = static_cast<int>(std::min<Index>(multiprocessors, std::max<Index>(left, left * s.chunks / share)));
    s.blocks = s.clusters = s.rounds > 0 ? multiprocessors : s.sharing;
    consider(s);
  }
  for (int cluster = 2; cluster <= std::min(kMostBlocks, whole.chunks); ++cluster) {
    const int clusters = clustersAtOnce(cluster, context);
    if (clusters == 0) continue;
    Schedule s = whole;
    s.cluster = cluster;
    s.chunksOfBlock = s.chunks / cluster;
    s.longer = s.chunks % cluster;
    s.rounds = static_cast<int>(ceilDiv(s.tiles, clusters));
    s.clusters = static_cast<int>(ceilDiv(s.tiles, s.rounds));
    s.blocks = s.clusters * cluster;
    consider(s);
  }
  return best;
}

Finish finishOf(const QuantizedProduct& p) {
  const Epilogue& e = p.epilogue;
  if (!storesPairs(p.y, e)) return Finish::kAny;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const bool unbounded = e.lower == -kInfinity && e.upper == kInfinity;
  const bool isPlain = e.alpha == 1 && e.sign == 1 && e.biasAxis == BiasAxis::kNone && unbounded && !e.residual.data;
  return isPlain ? Finish::kPlain : Finish::kPairs;
}

template <typename T, typename Tiles>
void launch(const QuantizedProduct& p, const Schedule& schedule, Context& context) {
  Scratch scratch(context);
  Problem problem;
  problem.codeTable = p.w.codeTable;
  problem.schedule = schedule;
  problem.rowTiles = static_cast<int>(ceilDiv(p.w.rows, Tiles::kRows));
  problem.tokenTiles = static_cast<int>(ceilDiv(p.x.rows, Tiles::kTokens));
  const Schedule& s = problem.schedule;
  problem.out = {p.y, p.epilogue, nullptr, finishOf(p)};
  if (s.sharing > 0) problem.out.parts = scratch.array<float>(Index{2} * s.sharing * Tiles::kRows * Tiles::kTokens);

  const PackedAbsmax absmax = packAbsmax(p.w, scratch, context);
  problem.x = packTokens(p.x, Tiles::kTokens, scratch, context);
  const char* const first = static_cast<const char*>(p.w.codes) + p.w.offset / 2;
  const Index stride = p.w.rows > 1 ? p.w.stride : p.w.cols;  // a single row's need not be a multiple of anything
  const CUtensorMap codes =
      tensorMap<2>(first, {p.w.cols / 2, p.w.rows}, {stride / 2}, {kLine, Tiles::kRows}, CU_TENSOR_MAP_SWIZZLE_128B);
  const Index perRow = p.w.cols / kDeep * 4;  // bytes
  const CUtensorMap scales = tensorMap<2>(absmax.data, {perRow, p.w.rows}, {absmax.stride * 4},
                                          {kSteps * 4, Tiles::kRows}, CU_TENSOR_MAP_SWIZZLE_NONE);

  launchEarly("wgmmaProduct", wgmmaProduct<T, Tiles>,
              {dim3(static_cast<unsigned>(s.blocks)), Tiles::kThreads, kSharedBytes, static_cast<unsigned>(s.cluster)},
              context, problem, codes, scales);
  if (s.sharing == 0) return;
  const dim3 grid(static_cast<unsigned>(s.shared()), Tiles::kGroups, Tiles::kTokens / kPartTokens);
  launchEarly("addParts", addParts<T, Tiles>, {grid, kGroup}, context, problem);
}

template <typename T, typename Tiles>
void launch(const QuantizedProduct& p, Context& context) {
  launch<T, Tiles>(p, scheduleOf<Tiles>(p, context), context);
}

template <typename T, typename First, typename Second>
void launchFaster(const QuantizedProduct& p, Context& context) {
  const Schedule first = scheduleOf<First>(p, context);
  const Schedule second = scheduleOf<Second>(p, context);
  if (estimate<First>(first) <= estimate<Second>(second)) return launch<T, First>(p, first, context);
  launch<T, Second>(p, second, context);
}

/** In bfloat16 wide tiles scale the weights: as exact as decoding first, and the tensor cores need not wait for sums to
 * be scaled. In half that rounding would follow the one of the levels. */
template <typename T>
void launchFor(const QuantizedProduct& p, Context& context) {
  constexpr bool kIsHalf = std::is_same_v<T, __half>;
  if (p.x.rows <= 32) return launchFaster<T, Of32, Of32Tall>(p, context);
  if (p.x.rows <= 64) return launch<T, Of64>(p, context);
  if (p.x.rows <= 128) return launchFaster<T, Of64, std::conditional_t<kIsHalf, Of128, Of128Scaled>>(p, context);
  if constexpr (kIsHalf) {
    launch<T, Of128>(p, context);
  } else {
    launchFaster<T, Of256Scaled, Of128Scaled>(p, context);
  }
}

}  // namespace

const char* refuseFourBitWgmma(const QuantizedProduct& p, const Context& context) {
  if (const char* why = refuseFourBitOperands(p, /*transposed=*/true)) return why;
  if (const char* why = refuseAllButHopper(context)) return why;
  if (p.x.rows < kLeastRows) return "fewer than 17 rows of X";
  if (p.x.rows > kMostRows) return "more than 1024 rows of X: a product with decoded weights is faster";
  if (const char* why = refuseFourBitRowsOfCodes(p.w)) return why;
  if (p.w.cols == 0) return "nothing to sum";
  if (Index{1} << p.w.blockShift < kDeep) return "blocks of less than 64";
  constexpr Index kMost = std::numeric_limits<std::int32_t>::max();
  if (p.w.rows > kMost / kMostRows || p.w.cols > kMost / 2 / kPackedChunk)
    return "more rows or columns than 32 bits count";
  return nullptr;
}

void runFourBitWgmma(const QuantizedProduct& p, Context& context) {
  if (p.y.rows == 0 || p.y.cols == 0) return;
  const DeviceGuard guard(context.device());
  dispatchSixteenBits(p.x.scalar, [&](auto tag) { launchFor<typename decltype(tag)::type>(p, context); });
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
