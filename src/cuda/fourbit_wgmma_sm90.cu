// SPDX-License-Identifier: MPL-2.0
// fourbit_wgmma_sm90.cu: which of the kernels of fourbit_wgmma_sm90.cuh computes a product, and how it is shared among
// blocks.
#include "fourbit_wgmma_sm90.cuh"

#include <algorithm>
#include <limits>

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
constexpr double kChunkTime<Of64> = 1.25;
template <>
constexpr double kChunkTime<Of128> = 2.0;
template <>
constexpr double kChunkTime<Of128Scaled> = 1.9;
template <>
constexpr double kChunkTime<Of256Scaled> = 3.2;

/** Microseconds that differ from schedule to schedule. */
template <typename Tiles>
double estimate(const Schedule& s) {
  constexpr double kSecondKernel = 2.5, kPartPerMicrosecond = 8e6;  // bytes written and read again
  const double whole = static_cast<double>(s.rounds) * s.chunks * kChunkTime<Tiles>;
  if (s.sharing == 0) return whole;
  const double partBytes = 8.0 * Tiles::kRows * Tiles::kTokens;
  const double share = static_cast<double>(ceilDiv(Index{s.shared()} * s.chunks, s.sharing)) * kChunkTime<Tiles>;
  return whole + share + kSecondKernel + (s.shared() + s.sharing) * partBytes / kPartPerMicrosecond;
}

/** Whole tiles, or equal shares of at least so many chunks for what is left of them. */
template <typename Tiles>
Schedule scheduleOf(const QuantizedProduct& p, int multiprocessors) {
  Schedule best;
  best.tiles = static_cast<int>(ceilDiv(p.w.rows, Tiles::kRows) * ceilDiv(p.x.rows, Tiles::kTokens));
  best.chunks = static_cast<int>(ceilDiv(p.w.cols, kChunk));
  best.blocks = std::min(best.tiles, multiprocessors);
  best.rounds = static_cast<int>(ceilDiv(best.tiles, best.blocks));
  double least = estimate<Tiles>(best);
  for (const int share : {1, 2, 4}) {
    Schedule s = best;
    s.rounds = s.tiles / multiprocessors;
    const Index left = s.tiles - Index{s.rounds} * multiprocessors;
    if (left == 0) continue;
    s.sharing = static_cast<int>(std::min<Index>(multiprocessors, std::max<Index>(left, left * s.chunks / share)));
    s.blocks = s.rounds > 0 ? multiprocessors : s.sharing;
    const double time = estimate<Tiles>(s);
    if (time >= least) continue;
    least = time;
    best = s;
  }
  return best;
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
  problem.out = {p.y, p.epilogue, nullptr, storesPairs(p.y, p.epilogue) ? Finish::kPairs : Finish::kAny};
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
              {dim3(static_cast<unsigned>(s.blocks)), Tiles::kThreads, kSharedBytes}, context, problem, codes, scales);
  if (s.sharing == 0) return;
  const dim3 grid(static_cast<unsigned>(s.shared()), Tiles::kGroups, Tiles::kTokens / kPartTokens);
  launchEarly("addParts", addParts<T, Tiles>, {grid, kGroup}, context, problem);
}

template <typename T, typename Tiles>
void launch(const QuantizedProduct& p, Context& context) {
  launch<T, Tiles>(p, scheduleOf<Tiles>(p, context.multiprocessors()), context);
}

template <typename T, typename First, typename Second>
void launchFaster(const QuantizedProduct& p, Context& context) {
  const Schedule first = scheduleOf<First>(p, context.multiprocessors());
  const Schedule second = scheduleOf<Second>(p, context.multiprocessors());
  if (estimate<First>(first) <= estimate<Second>(second)) return launch<T, First>(p, first, context);
  launch<T, Second>(p, second, context);
}

/** In bfloat16 wide tiles scale the weights: as exact as decoding first, and the tensor cores need not wait for sums to
 * be scaled. In half that rounding would follow the one of the levels. */
template <typename T>
void launchFor(const QuantizedProduct& p, Context& context) {
  if (p.x.rows <= 32) return launchFaster<T, Of32, Of32Tall>(p, context);
  if (p.x.rows <= 64) return launch<T, Of64>(p, context);
  if constexpr (std::is_same_v<T, __half>) {
    launch<T, Of128>(p, context);
  } else {
    if (p.x.rows <= 128) return launch<T, Of128Scaled>(p, context);
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
