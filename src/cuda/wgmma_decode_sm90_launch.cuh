// SPDX-License-Identifier: MPL-2.0
// wgmma_decode_sm90_launch.cuh: how a product is shared among blocks, and the launches.
#ifndef EIGENQ_CUDA_WGMMA_DECODE_SM90_LAUNCH_CUH
#define EIGENQ_CUDA_WGMMA_DECODE_SM90_LAUNCH_CUH

#include <algorithm>
#include <limits>
#include <map>
#include <mutex>
#include <utility>

#include "alignment.h"
#include "dense_view.h"
#include "op_launch.cuh"
#include "tensor_map.h"
#include "wgmma_decode.h"
#include "wgmma_decode_sm90.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace wgmma_decode {

/** Rows of X that are packed together: this bounds the memory that takes. */
constexpr Index kRowsAtOnce = 4096;

/** From so many rows of W on, packing many rows of X costs less than decoding W into memory. */
constexpr Index kManyRows = 8192;

/** Microseconds that a chunk of K of a tile takes a block, all others being at work too: on an H200. */
template <typename Tiles>
constexpr double kChunkTime = 0;

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
template <typename T, typename Tiles>
int clustersAtOnce(int cluster, const Context& context) {
  static std::mutex mutex;
  static std::map<std::pair<int, int>, int> known;  // by device and size: the driver takes its time to answer
  const std::lock_guard<std::mutex> lock(mutex);
  const auto [entry, isNew] = known.try_emplace({context.device(), cluster}, 0);
  if (!isNew) return entry->second;
  const auto kernel = wgmmaProduct<T, Tiles>;
  EIGENQ_CUDA_CHECK(allowSharedMemory(reinterpret_cast<const void*>(kernel), context.device(), kSharedBytes));
  cudaLaunchAttribute size = {};
  size.id = cudaLaunchAttributeClusterDimension;
  size.val.clusterDim = {static_cast<unsigned>(cluster), 1, 1};
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(context.multiprocessors() / cluster * cluster));
  config.blockDim = dim3(Tiles::kThreads);
  config.dynamicSmemBytes = kSharedBytes;
  config.attrs = &size;
  config.numAttrs = 1;
  EIGENQ_CUDA_CHECK(cudaOccupancyMaxActiveClusters(&entry->second, kernel, &config));
  return entry->second;
}

/** The fastest of: a tile a block; the same, with what is left of whole rounds in equal shares of at least so many
 * chunks; a tile a cluster. */
template <typename T, typename Tiles>
Schedule scheduleOf(const QuantizedProduct& p, const Context& context) {
  const int multiprocessors = context.multiprocessors();
  Schedule whole;
  whole.tiles = static_cast<int>(ceilDiv(p.w.rows, Tiles::kRows) * ceilDiv(p.x.rows, Tiles::kTokens));
  whole.chunks = whole.chunksOfBlock = static_cast<int>(ceilDiv(p.w.cols, Tiles::Weights::kChunk));
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
    const int clusters = clustersAtOnce<T, Tiles>(cluster, context);
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

inline Finish finishOf(const QuantizedProduct& p) {
  const Epilogue& e = p.epilogue;
  if (!storesPairs(p.y, e)) return Finish::kAny;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const bool unbounded = e.lower == -kInfinity && e.upper == kInfinity;
  const bool isPlain = e.alpha == 1 && e.sign == 1 && e.biasAxis == BiasAxis::kNone && unbounded && !e.residual.data;
  return isPlain ? Finish::kPlain : Finish::kPairs;
}

/** Kernels count W's rows and chunks in 32 bits. */
inline const char* refuseWhatIsNotCounted(const WeightView& w) {
  constexpr Index kMost = std::numeric_limits<std::int32_t>::max();
  return w.rows > kMost - kRowsAtOnce || w.cols > kMost >> 9 ? "more rows or columns of W than 32 bits count" : nullptr;
}

/** Calls \a launch with the product, or of many rows of X with parts of it. */
template <typename Launch>
void forRowsOfX(const QuantizedProduct& p, const Launch& launch) {
  for (Index row = 0; row < p.x.rows; row += kRowsAtOnce) {
    const Index count = std::min(kRowsAtOnce, p.x.rows - row);
    QuantizedProduct part = p;
    part.x = rows(p.x, row, count);
    part.y = rows(p.y, row, count);
    part.epilogue = rows(p.epilogue, p.y.scalar, row, count);
    launch(part);
  }
}

/** Where the kernel finds W. */
template <typename Tiles>
void describeWeights(const QuantizedProduct& p, Scratch& scratch, Context& context, Problem& problem,
                     CUtensorMap& codes, CUtensorMap& scales) {
  const WeightView& w = p.w;
  const bool isFourBit = Tiles::Weights::kHasTable;
  const Index perByte = isFourBit ? 2 : 1;
  const Index stride = w.rows > 1 ? w.stride / perByte : 16;  // a single row's need not be a multiple of anything
  codes = tensorMap<2>(static_cast<const char*>(w.codes) + w.offset / perByte, {w.cols / perByte, w.rows}, {stride},
                       {kLine, Tiles::kRows}, CU_TENSOR_MAP_SWIZZLE_128B);
  if (!isFourBit) {
    problem.rowAbsmax = w.rowAbsmax;
    return;
  }
  problem.codeTable = w.codeTable;
  const PackedAbsmax absmax = packAbsmax(w, scratch, context);
  const Index perRow = w.cols / kDeep * 4;  // bytes
  scales = tensorMap<2>(absmax.data, {perRow, w.rows}, {absmax.stride * 4}, {Tiles::Weights::kScaleBytes, Tiles::kRows},
                        CU_TENSOR_MAP_SWIZZLE_NONE);
}

template <typename T, typename Tiles>
void launch(const QuantizedProduct& p, const Schedule& schedule, Context& context) {
  Scratch scratch(context);
  Problem problem;
  problem.schedule = schedule;
  problem.rowTiles = static_cast<int>(ceilDiv(p.w.rows, Tiles::kRows));
  problem.tokenTiles = static_cast<int>(ceilDiv(p.x.rows, Tiles::kTokens));
  const Schedule& s = problem.schedule;
  problem.out = {p.y, p.epilogue, nullptr, finishOf(p)};
  if (s.sharing > 0) problem.out.parts = scratch.array<float>(Index{2} * s.sharing * Tiles::kRows * Tiles::kTokens);

  CUtensorMap codes, scales = {};
  describeWeights<Tiles>(p, scratch, context, problem, codes, scales);
  problem.x = packTokens(p.x, Tiles::kTokens, Tiles::Weights::kChunk, scratch, context);
  launchEarly("wgmmaProduct", wgmmaProduct<T, Tiles>,
              {dim3(static_cast<unsigned>(s.blocks)), Tiles::kThreads, kSharedBytes, static_cast<unsigned>(s.cluster)},
              context, problem, codes, scales);
  if (s.sharing == 0) return;
  const dim3 grid(static_cast<unsigned>(s.shared()), Tiles::kGroups, Tiles::kTokens / kPartTokens);
  launchEarly("addParts", addParts<T, Tiles>, {grid, kGroup}, context, problem);
}

template <typename T, typename Tiles>
void launch(const QuantizedProduct& p, Context& context) {
  launch<T, Tiles>(p, scheduleOf<T, Tiles>(p, context), context);
}

template <typename T, typename First, typename Second>
void launchFaster(const QuantizedProduct& p, Context& context) {
  const Schedule first = scheduleOf<T, First>(p, context);
  const Schedule second = scheduleOf<T, Second>(p, context);
  if (estimate<First>(first) <= estimate<Second>(second)) return launch<T, First>(p, first, context);
  launch<T, Second>(p, second, context);
}

}  // namespace wgmma_decode
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_WGMMA_DECODE_SM90_LAUNCH_CUH
