// SPDX-License-Identifier: MPL-2.0
// fourbit_rows_sm90.cu: which of the kernels of fourbit_rows_sm90.cuh computes a product, on how many blocks.
#include "fourbit_rows_sm90.cuh"

#include <algorithm>
#include <limits>

#include "alignment.h"
#include "fourbit_decode.h"
#include "fourbit_operands.h"
#include "fourbit_rows.h"
#include "wgmma_decode.h"
#include "op_launch.cuh"
#include "tensor_map.h"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

using namespace fourbit_rows;

constexpr Index kMostRows = 32;
constexpr Index kMostTiles = Tiling<16, 4>::kMostTiles;      // of a block
constexpr Index kMostTilesOf32 = Tiling<32, 2>::kMostTiles;  // the same for more than 16 rows of X

/** Blocks as many as there are multiprocessors, or a multiple of that where they would own too many rows. */
int blocksFor(Index tiles, int multiprocessors) {
  const Index rounds = ceilDiv(tiles, kMostTiles * multiprocessors);
  return static_cast<int>(std::min(std::max<Index>(tiles, 1), std::max<Index>(rounds, 1) * multiprocessors));
}
int tilesOfBlock(Index rows, int multiprocessors) {
  const Index tiles = ceilDiv(rows, kTileRows);
  return static_cast<int>(ceilDiv(tiles, blocksFor(tiles, multiprocessors)));
}

template <typename T, typename Tiles>
void launch(const QuantizedProduct& p, Context& context) {
  Scratch scratch(context);
  const WeightView& w = p.w;
  const PackedRows x = packRows(p.x, p.x.scalar, scratch, context);
  const PackedAbsmax absmax = packAbsmax(w, scratch, context);

  Problem problem;
  problem.codeTable = w.codeTable;
  problem.y = p.y;
  problem.epilogue = p.epilogue;
  problem.tiles = static_cast<int>(ceilDiv(w.rows, kTileRows));
  problem.tilesOfBlock = tilesOfBlock(w.rows, context.multiprocessors());
  problem.parts = static_cast<int>(w.cols / kDeep);
  problem.pairs = storesPairs(p.y, p.epilogue);

  // A single row may claim any stride; the copy engine wants multiples of 16 bytes.
  const Index rows = Index{problem.tilesOfBlock} * kTileRows, stride = w.rows > 1 ? w.stride : w.cols;
  const Index xStride = p.x.rows > 1 ? x.stride : w.cols;
  const Maps maps = {tensorMap<2>(static_cast<const char*>(w.codes) + w.offset / 2, {w.cols / 2, w.rows}, {stride / 2},
                                  {kLine, rows}, CU_TENSOR_MAP_SWIZZLE_128B),
                     tensorMap<2>(absmax.data, {w.cols / kDeep * 4, w.rows}, {absmax.stride * 4},
                                  {kLineParts * 4, rows}, CU_TENSOR_MAP_SWIZZLE_NONE),
                     tensorMap<3>(x.data, {2 * kDeep, p.x.rows, w.cols / kDeep}, {2 * xStride, 2 * kDeep},
                                  {2 * kDeep, Tiles::kTokens, Tiles::kParts}, CU_TENSOR_MAP_SWIZZLE_128B)};
  const auto blocks = static_cast<unsigned>(blocksFor(problem.tiles, context.multiprocessors()));
  launchEarly("rows.decode", rowsProduct<T, Tiles>, {dim3(blocks), kThreads, kSharedBytes}, context, problem, maps);
}

// Microseconds on an H200 by groups of warps, for the most rows of X of each kernel (harness, weights cold, graphs):
//
//   N×K, tiles of a block   4096×4096, 2    4096×11008, 2     8192×8192, 4      11008×4096, 6   14336×4096, 7
//   groups                  1    2    4     1    2    4       1    2    4       2    4          2    4
//    8 rows                 6.3  6.7  8.2   10.0 11.1 16.2    12.9 13.2 14.0    10.7 12.1       12.2 13.0
//   16 rows                 7.0  7.6  9.3   11.5 12.9 18.6    14.6 14.5 16.6    12.3 14.4       14.1 14.6
//   32 rows                 –    9.6  11.7  –    17.5 23.4    –    20.4 22.8    19.3 20.2       23.6 21.0
//
// Fewer groups have longer stages, so fewer waits, and read W in longer runs. Sums of four tiles by 32 rows of X do not
// fit into a thread's registers; wgmma.decode takes 21.3 us at 14336×4096, 56 at 28672×8192, where four groups take 76.
template <typename T, int kTokens>
void launchFor(const QuantizedProduct& p, Context& context) {
  const int tiles = tilesOfBlock(p.w.rows, context.multiprocessors());
  if (tiles <= Tiling<kTokens, 1>::kMostTiles) return launch<T, Tiling<kTokens, 1>>(p, context);
  if (tiles <= Tiling<kTokens, 2>::kMostTiles) return launch<T, Tiling<kTokens, 2>>(p, context);
  launch<T, Tiling<kTokens, 4>>(p, context);
}

template <typename T>
void launchFor(const QuantizedProduct& p, Context& context) {
  if (p.x.rows <= 8) return launchFor<T, 8>(p, context);
  if (p.x.rows <= 16) return launchFor<T, 16>(p, context);
  launch<T, Tiling<32, 2>>(p, context);
}

}  // namespace

const char* refuseFourBitRows(const QuantizedProduct& p, const Context& context) {
  if (const char* why = refuseFourBitOperands(p, /*transposed=*/true)) return why;
  if (const char* why = refuseAllButHopper(context)) return why;
  if (p.x.rows > kMostRows) return "more than 32 rows of X";
  if (p.x.rows > 1 && p.x.rowStride == 0) return "rows of X lie in one place";
  if (p.w.cols == 0) return "nothing to sum";
  if (const char* why = refuseFourBitRowsOfCodes(p.w)) return why;
  if (Index{1} << p.w.blockShift < kDeep) return "blocks of less than 64";
  constexpr Index kMost = std::numeric_limits<std::int32_t>::max();
  if (p.w.rows > kMost - kTileRows || p.w.cols > kMost) return "more rows or columns than 32 bits count";
  // Microseconds for one row on an H200: 4096×4096, nested 9.2 here and 7.7 there, 28672×8192 49 and 46, others 2 to 7
  // % less here; with absmax that need no launch before, 1 to 12 % less here everywhere.
  if (p.x.rows <= 2 && !absmaxLiesPacked(p.w) && !refuseFourBitDecodeStream(p, context))
    return "one or two rows of X and absmax to decode first: stream.decode's";
  if (p.x.rows > 16 && tilesOfBlock(p.w.rows, context.multiprocessors()) > kMostTilesOf32)
    return "more than 16 rows of X and 96 rows of W a multiprocessor: sums do not fit into registers";
  return nullptr;
}

void runFourBitRows(const QuantizedProduct& p, Context& context) {
  if (p.y.rows == 0 || p.y.cols == 0) return;
  const DeviceGuard guard(context.device());
  dispatchSixteenBits(p.x.scalar, [&](auto tag) { launchFor<typename decltype(tag)::type>(p, context); });
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
