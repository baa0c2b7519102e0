// SPDX-License-Identifier: MPL-2.0
// wgmma_decode_fourbit_sm90.cu: which of the kernels of wgmma_decode_sm90.cuh multiplies with 4-bit weights.
#include <type_traits>

#include "wgmma_decode_sm90_launch.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace wgmma_decode {

using Of32 = Tiling<FourBit<false>, 32, 2>;
using Of32Tall = Tiling<FourBit<false>, 32, 4>;
using Of64 = Tiling<FourBit<false>, 64, 2>;
using Of128 = Tiling<FourBit<false>, 128, 2>;
using Of128Scaled = Tiling<FourBit<true>, 128, 2>;
using Of256Scaled = Tiling<FourBit<true>, 256, 2>;

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

}  // namespace wgmma_decode

namespace {

using namespace wgmma_decode;

/** Wide tiles scale the weights: as exact as decoding first, and the tensor cores need not wait for sums to be scaled.
 * In half, where that takes longer and is less exact, those of 128 tokens leave it. */
template <typename T>
void launchFor(const QuantizedProduct& p, Context& context) {
  constexpr bool kIsHalf = std::is_same_v<T, __half>;
  if (p.x.rows <= 32) return launchFaster<T, Of32, Of32Tall>(p, context);
  if (p.x.rows <= 64) return launch<T, Of64>(p, context);
  if (p.x.rows <= 128) return launchFaster<T, Of64, std::conditional_t<kIsHalf, Of128, Of128Scaled>>(p, context);
  launchFaster<T, Of256Scaled, Of128Scaled>(p, context);
}

}  // namespace

const char* refuseFourBitWgmma(const QuantizedProduct& p, const Context& context) {
  if (const char* why = refuseFourBitOperands(p, /*transposed=*/true)) return why;
  if (const char* why = refuseAllButHopper(context)) return why;
  if (p.x.rows < 17) return "fewer than 17 rows of X";
  if (p.x.rows > 1024 && p.w.rows < kManyRows) return "more than 1024 rows of X for fewer than 8192 of W";
  if (const char* why = refuseFourBitRowsOfCodes(p.w)) return why;
  if (p.w.cols == 0) return "nothing to sum";
  if (Index{1} << p.w.blockShift < kDeep) return "blocks of less than 64";
  if (const char* why = refuseWhatIsNotCounted(p.w)) return why;
  return nullptr;
}

void runFourBitWgmma(const QuantizedProduct& p, Context& context) {
  if (p.y.rows == 0 || p.y.cols == 0) return;
  const DeviceGuard guard(context.device());
  dispatchSixteenBits(p.x.scalar, [&](auto tag) {
    forRowsOfX(p, [&](const QuantizedProduct& part) { launchFor<typename decltype(tag)::type>(part, context); });
  });
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
