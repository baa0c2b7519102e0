// SPDX-License-Identifier: MPL-2.0
// fourbit_decode_mma.cu: which of the kernels of fourbit_decode_mma.cuh computes a product, on how many CTAs.
#include "alignment.h"
#include "fourbit_decode_mma.cuh"

#include <algorithm>

#include "fourbit_decode.h"
#include "fourbit_operands.h"
#include "op_launch.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

using namespace fourbit;

constexpr int kFewUnits = 2, kManyUnits = 4;  // registers hold X: 16 of a thread for each unit and 8 rows
static_assert(kTileRows == kDecodeTileRows, "the spread is in tiles");

struct Plan : DecodeSpread {
  int units = 2;  // most units of a warp's share
};

Plan planOf(const QuantizedProduct& p, int multiprocessors) {
  const Index units = std::max<Index>(ceilDiv(p.w.cols, kUnit), 1);
  const bool narrow = p.x.rows <= kColumns && (Index{1} << p.w.blockShift) >= kChunk;
  const Index most = kWarps * (narrow ? kManyUnits : kFewUnits);  // units that a slice may have
  Plan plan{spreadDecode(p.w.rows, p.w.cols, kUnit, ceilDiv(units, most), multiprocessors)};
  plan.units = ceilDiv(ceilDiv(units, plan.slices), kWarps) <= kFewUnits ? kFewUnits : kManyUnits;
  return plan;
}

/** Whether a block of the device has room for rings of so many stages. */
bool fits(int stages, const Context& context) { return context.state().sharedMemoryPerBlock >= sharedBytes(stages); }

template <typename T, int kGroups, int kUnits, int kPerChunk>
void launchFor(const Problem& problem, const Plan& plan, Context& context) {
  const dim3 grid(static_cast<unsigned>(plan.ctas), static_cast<unsigned>(plan.slices));
  if (fits(kManyStages, context))
    return launch("mma.decode", decodeProduct<T, kGroups, kUnits, kPerChunk, kManyStages>,
                  {grid, kThreads, sharedBytes(kManyStages)}, context, problem);
  launch("mma.decode", decodeProduct<T, kGroups, kUnits, kPerChunk, kFewStages>,
         {grid, kThreads, sharedBytes(kFewStages)}, context, problem);
}

template <typename T>
void launchFor(const Problem& problem, const Plan& plan, Context& context) {
  const bool smallBlocks = (Index{1} << problem.w.blockShift) < kChunk;
  if (problem.y.rows > kColumns) {
    if (smallBlocks) return launchFor<T, 2, kFewUnits, 2>(problem, plan, context);
    return launchFor<T, 2, kFewUnits, 1>(problem, plan, context);
  }
  if (smallBlocks) return launchFor<T, 1, kFewUnits, 2>(problem, plan, context);
  if (plan.units == kFewUnits) return launchFor<T, 1, kFewUnits, 1>(problem, plan, context);
  launchFor<T, 1, kManyUnits, 1>(problem, plan, context);
}

}  // namespace

const char* refuseFourBitDecodeMma(const QuantizedProduct& p, const Context& context) {
  if (const char* why = refuseFourBitOperands(p, /*transposed=*/true)) return why;
  if (p.x.rows > kDecodeRows) return "more than 16 rows of X";
  if (const char* why = refuseFourBitRowsOfCodes(p.w)) return why;
  if (!fits(kFewStages, context)) return "a block has less than 97 KiB of shared memory";
  return nullptr;
}

void runFourBitDecodeMma(const QuantizedProduct& p, Context& context) {
  if (p.y.rows == 0 || p.y.cols == 0) return;
  Scratch scratch(context);
  const DeviceGuard guard(context.device());
  const Plan plan = planOf(p, context.multiprocessors());
  const PackedRows x = packRows(p.x, p.x.scalar, scratch, context);
  float* const sums = plan.slices > 1 ? scratch.array<float>(plan.slices * p.y.rows * p.y.cols) : nullptr;
  const Problem problem{p.w, x.data, x.stride, p.y, p.epilogue, sums};
  dispatchSixteenBits(p.x.scalar, [&](auto tag) { launchFor<typename decltype(tag)::type>(problem, plan, context); });
  if (sums) addSlices(sums, static_cast<int>(plan.slices), p.y, p.epilogue, context);
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
