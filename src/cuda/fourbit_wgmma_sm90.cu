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

/** Microseconds for the whole product. \param chunk  of 256 k of a tile, measured on an H200 */
template <typename Tiles>
double estimate(const Schedule& s, double chunk) {
  constexpr double kSecondKernel = 2.5, kPartPerMicrosecond = 8e6;  // bytes written and read again
  const double whole = static_cast<double>(s.rounds) * s.chunks * chunk;
  if (s.sharing == 0) return whole;
  const double partBytes = 8.0 * Tiles::kRows * Tiles::kTokens;
  return whole + static_cast<double>(ceilDiv(Index{s.shared()} * s.chunks, s.sharing)) * chunk + kSecondKernel +
         (s.shared() + s.sharing) * partBytes / kPartPerMicrosecond;
}

/** Whole tiles, or equal shares of at least so many chunks for what is left of them. */
template <typename Tiles>
Schedule scheduleOf(const QuantizedProduct& p, int multiprocessors, double chunk) {
  Schedule best;
  best.tiles = static_cast<int>(ceilDiv(p.w.rows, Tiles::kRows) * ceilDiv(p.x.rows, Tiles::kTokens));
  best.chunks = static_cast<int>(ceilDiv(p.w.cols, kChunk));
  best.blocks = std::min(best.tiles, multiprocessors);
  best.rounds = static_cast<int>(ceilDiv(best.tiles, best.blocks));
  double least = estimate<Tiles>(best, chunk);
  for (const int share : {1, 2, 4}) {
    Schedule s = best;
    s.rounds = s.tiles / multiprocessors;
    const Index left = s.tiles - Index{s.rounds} * multiprocessors;
    if (left == 0) continue;
    s.sharing = static_cast<int>(std::min<Index>(multiprocessors, std::max<Index>(left, left * s.chunks / share)));
    s.blocks = s.rounds > 0 ? multiprocessors : s.sharing;
    const double time = estimate<Tiles>(s, chunk);
    if (time >= least) continue;
    least = time;
    best = s;
  }
  return best;
}

Finish finishOf(const DenseView& y, const Epilogue& e) {
  const bool pairs = y.colStride == 1 && y.rowStride % 2 == 0 && y.cols % 2 == 0 && isAligned(y.data, 4);
  const bool plain = e.activation == Activation::kNone && e.biasAxis != BiasAxis::kPerRow;
  return pairs && plain ? Finish::kPairs : Finish::kAny;
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
  problem.out = {p.y, p.epilogue, nullptr, finishOf(p.y, p.epilogue)};
  if (s.sharing > 0) problem.out.parts = scratch.array<float>(Index{2} * s.sharing * Tiles::kRows * Tiles::kTokens);

  const PackedAbsmax absmax = packAbsmax(p.w, scratch, context);
  problem.x = packTokens(p.x, Tiles::kTokens, scratch, context);
  const char* const first = static_cast<const char*>(p.w.codes) + p.w.offset / 2;
  const Index stride =
      p.w.rows > 1 ? p.w.stride : p.w.cols;  // codes; a single row's need not be a multiple of anything
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

/** A kind of tile, with the microseconds that 256 k of one take where a block has a multiprocessor: on an H200. */
template <typename Tiles_>
struct Way {
  using Tiles = Tiles_;
  double chunk;
};

/** Runs the first or the second way, by their estimates. */
template <typename T, typename First, typename Second>
void launchFaster(const First& first, const Second& second, const QuantizedProduct& p, Context& context) {
  using A = typename First::Tiles;
  using B = typename Second::Tiles;
  const Schedule a = scheduleOf<A>(p, context.multiprocessors(), first.chunk);
  const Schedule b = scheduleOf<B>(p, context.multiprocessors(), second.chunk);
  estimate<A>(a, first.chunk) <= estimate<B>(b, second.chunk) ? launch<T, A>(p, a, context)
                                                              : launch<T, B>(p, b, context);
}

/** In bfloat16 wide tiles scale the weights: as exact as decoding first, and the tensor cores need not wait for sums to
 * be scaled. In half that rounding would follow the one of the levels. */
template <typename T>
void launchFor(const QuantizedProduct& p, Context& context) {
  constexpr bool kScaled = std::is_same_v<T, __nv_bfloat16>;
  const Way<Tiling<64, 2, false>> of64{1.25};
  const Way<Tiling<128, 2, kScaled>> of128{kScaled ? 1.9 : 2.0};
  if (p.x.rows <= 32)
    return launchFaster<T>(Way<Tiling<32, 2, false>>{1.0}, Way<Tiling<32, 4, false>>{1.75}, p, context);
  if (p.x.rows <= 64)
    return launch<T, Tiling<64, 2, false>>(
        p, scheduleOf<Tiling<64, 2, false>>(p, context.multiprocessors(), of64.chunk), context);
  if (p.x.rows <= 128 || !kScaled)
    return launch<T, Tiling<128, 2, kScaled>>(
        p, scheduleOf<Tiling<128, 2, kScaled>>(p, context.multiprocessors(), of128.chunk), context);
  if constexpr (kScaled) launchFaster<T>(Way<Tiling<256, 2, true>>{3.2}, of128, p, context);
}

}  // namespace

const char* refuseFourBitWgmma(const QuantizedProduct& p, const Context& context) {
  if (p.w.format != WeightFormat::kFourBit) return "W is not in 4 bits";
  if (!p.transposed) return "W is not used transposed";
  const DeviceProperties& device = context.properties();
  if (device.major != 9 || device.minor != 0) return "the device is not of compute capability 9.0";
  if (p.x.rows < kLeastRows) return "fewer than 17 rows of X";
  if (p.x.rows > kMostRows) return "more than 1024 rows of X: a product with decoded weights is faster";
  if (p.x.scalar != ScalarType::kHalf && p.x.scalar != ScalarType::kBFloat16) return "X is neither half nor bfloat16";
  if (p.y.scalar != p.x.scalar) return "X and Y differ in their scalars";
  if (p.w.cols % kDeep != 0 || p.w.offset % kDeep != 0 || (p.w.rows > 1 && p.w.stride % kDeep != 0))
    return "rows of W do not begin and end at multiples of 64 codes";
  if (p.w.cols == 0) return "nothing to sum";
  if (Index{1} << p.w.blockShift < kDeep) return "blocks of less than 64";
  if (!isAligned(p.w.codes, 16)) return "codes are not aligned to 16 bytes";
  constexpr Index kMost = std::numeric_limits<std::int32_t>::max();
  if (p.w.rows > kMost / kMostRows || p.w.cols > kMost / 2 / kPackedChunk)
    return "more rows or columns than 32 bits count";
  if (context.state().sharedMemoryPerBlock < kSharedBytes) return "a block has less than 227 KiB of shared memory";
  return nullptr;
}

void runFourBitWgmma(const QuantizedProduct& p, Context& context) {
  if (p.y.rows == 0 || p.y.cols == 0) return;
  const DeviceGuard guard(context.device());
  if (p.x.scalar == ScalarType::kHalf) {
    launchFor<__half>(p, context);
  } else {
    launchFor<__nv_bfloat16>(p, context);
  }
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
