// SPDX-License-Identifier: MPL-2.0
// wgmma_decode_int8_sm90.cu: which of the kernels of wgmma_decode_sm90.cuh multiplies with int8 weights, X staying as
// it is.
#include <limits>

#include "int8_kernels.h"
#include "wgmma_decode_sm90_launch.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace wgmma_decode {

using Of32Tall = Tiling<Int8, 32, 4>;
using Of64 = Tiling<Int8, 64, 2>;
using Of64Tall = Tiling<Int8, 64, 4>;
using Of128 = Tiling<Int8, 128, 2>;
using Of256 = Tiling<Int8, 256, 2>;

template <>
constexpr double kChunkTime<Of32Tall> = 1.1;
template <>
constexpr double kChunkTime<Of64> = 0.68;
template <>
constexpr double kChunkTime<Of64Tall> = 1.25;
template <>
constexpr double kChunkTime<Of128> = 0.76;
template <>
constexpr double kChunkTime<Of256> = 1.38;

}  // namespace wgmma_decode

namespace {

using namespace wgmma_decode;

template <typename T>
void launchFor(const QuantizedProduct& p, Context& context) {
  if (p.x.rows <= 32) return launchFaster<T, Of64, Of32Tall>(p, context);
  if (p.x.rows <= 64) return launchFaster<T, Of64, Of64Tall>(p, context);
  if (p.x.rows <= 128) return launchFaster<T, Of64, Of128>(p, context);
  launchFaster<T, Of256, Of128>(p, context);
}

}  // namespace

const char* refuseInt8WeightOnlyWgmma(const QuantizedProduct& p, const Context& context) {
  if (p.w.format != WeightFormat::kInt8) return "needs int8 weights";
  if (!p.transposed) return "computes X·Wᵀ only";
  if (p.w.int8Activations) return "the activations are to be quantised";
  if (p.x.scalar != ScalarType::kHalf && p.x.scalar != ScalarType::kBFloat16) return "X is neither half nor bfloat16";
  if (p.y.scalar != p.x.scalar) return "X and Y differ in their scalars";
  if (const char* why = refuseAllButHopper(context)) return why;
  if (p.x.rows < (p.w.rows < 12288 ? 17 : 9)) return "fewer than 17 rows of X, or 9 where W has 12288";
  if (p.x.rows > 2048 && p.w.rows < kManyRows) return "more than 2048 rows of X for fewer than 8192 of W";
  if (!hasAlignedRows(p.w)) return "rows of W do not begin and end at multiples of 16 codes";
  if (p.w.cols == 0) return "nothing to sum";
  if (const char* why = refuseWhatIsNotCounted(p.w)) return why;
  return nullptr;
}

void runInt8WeightOnlyWgmma(const QuantizedProduct& p, Context& context) {
  if (p.y.rows == 0 || p.y.cols == 0) return;
  const DeviceGuard guard(context.device());
  dispatchSixteenBits(p.x.scalar, [&](auto tag) {
    forRowsOfX(p, [&](const QuantizedProduct& part) { launchFor<typename decltype(tag)::type>(part, context); });
  });
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
