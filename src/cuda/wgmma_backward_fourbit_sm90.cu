// SPDX-License-Identifier: MPL-2.0
// wgmma_backward_fourbit_sm90.cu: which of the kernels of wgmma_backward_sm90.cuh multiplies with 4-bit weights.
#include "wgmma_backward.h"

#include <limits>
#include <type_traits>

#include "fourbit_operands.h"
#include "wgmma_backward_sm90_launch.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

using namespace backward;

/** With the microseconds of a stage, measured on an H200 at 8192×8192: what slices are chosen by. */
template <typename T>
void runFor(const QuantizedProduct& p, Context& context) {
  if constexpr (std::is_same<T, __nv_bfloat16>::value) {
    if (p.y.rows <= 8) return launchShape<T, Shape<FourBit, 8, 4, 4, true, true>>(p, 0.35, context);
    if (p.y.rows <= 16) return launchShape<T, Shape<FourBit, 16, 4, 4, true, true>>(p, 0.5, context);
  }
  if (p.y.rows <= 32) return launchShape<T, Shape<FourBit, 32, 4, 3, true>>(p, 0.6, context);
  if (p.y.rows <= 64) return launchShape<T, Shape<FourBit, 64, 2, 2, false>>(p, 0.8, context);
  if (p.y.rows <= 128) return launchShape<T, Shape<FourBit, 128, 2, 2, false>>(p, 0.9, context);
  launchShape<T, Shape<FourBit, 256, 1, 2, false>>(p, 0.87, context);
}

}  // namespace

const char* refuseFourBitBackward(const QuantizedProduct& p, const Context& context) {
  if (const char* why = refuseFourBitOperands(p, /*transposed=*/false)) return why;
  if (const char* why = refuseAllButHopper(context)) return why;
  if (p.x.rows > kFourBitBackwardRows) return "more than 512 rows of X";
  if (Index{1} << p.w.blockShift != kBlockSize) return "blocks of other than 64";
  constexpr Index kMultiple = 256;
  if (p.w.cols % kMultiple != 0 || p.w.offset % kMultiple != 0 || p.w.stride % kMultiple != 0)
    return "rows of W do not begin and end at multiples of 256 codes";
  constexpr Index kMost = std::numeric_limits<std::int32_t>::max() / 4;
  if (p.w.rows > kMost || p.w.cols > kMost) return "more rows or columns than 32 bits count";
  const AbsmaxView& absmax = p.w.absmax;
  if (!absmax.plain && absmax.nestedBlockShift < 2) return "nested absmax in blocks of less than 4";
  if (!isAligned(p.w.codes, 16) || !isAligned(absmax.plain, 16) || !isAligned(absmax.codes, 4))
    return "codes and absmax are not aligned to 16 bytes";
  return nullptr;
}

void runFourBitBackward(const QuantizedProduct& p, Context& context) {
  if (p.y.rows == 0 || p.y.cols == 0) return;
  const DeviceGuard guard(context.device());
  dispatchSixteenBits(p.x.scalar, [&](auto tag) { runFor<typename decltype(tag)::type>(p, context); });
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
