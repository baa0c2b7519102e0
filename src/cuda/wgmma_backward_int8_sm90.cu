// SPDX-License-Identifier: MPL-2.0
// wgmma_backward_int8_sm90.cu: which of the kernels of wgmma_backward_sm90.cuh multiplies with int8 weights.
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
    if (p.y.rows <= 8) return launchShape<T, Shape<Int8, 8, 4, 4, true, true>>(p, 0.52, context);
    if (p.y.rows <= 16) return launchShape<T, Shape<Int8, 16, 4, 4, true, true>>(p, 0.6, context);
  }
  if (p.y.rows <= 32) return launchShape<T, Shape<Int8, 32, 2, 2, false>>(p, 0.62, context);
  if (p.y.rows <= 64) return launchShape<T, Shape<Int8, 64, 2, 2, false>>(p, 0.65, context);
  if (p.y.rows <= 128) return launchShape<T, Shape<Int8, 128, 1, 2, false>>(p, 0.46, context);
  launchShape<T, Shape<Int8, 256, 1, 2, false>>(p, 0.75, context);
}

}  // namespace

const char* refuseInt8Backward(const QuantizedProduct& p, const Context& context) {
  if (p.w.format != WeightFormat::kInt8) return "needs int8 weights";
  if (p.transposed) return "W is used transposed";
  if (p.x.scalar != ScalarType::kHalf && p.x.scalar != ScalarType::kBFloat16) return "X is neither half nor bfloat16";
  if (p.y.scalar != p.x.scalar) return "X and Y differ in their scalars";
  if (const char* why = refuseAllButHopper(context)) return why;
  if (p.x.rows > kInt8BackwardRows) return "more than 2048 rows of X: a product with decoded weights is faster";
  constexpr Index kMultiple = 16;
  if (p.w.cols % kMultiple != 0 || (p.w.rows > 1 && p.w.stride % kMultiple != 0) ||
      !isAligned(static_cast<const char*>(p.w.codes) + p.w.offset, kMultiple))
    return "rows of W do not begin and end at multiples of 16 bytes";
  constexpr Index kMost = std::numeric_limits<std::int32_t>::max() / 4;
  if (p.w.rows > kMost || p.w.cols > kMost) return "more rows or columns than 32 bits count";
  return nullptr;
}

void runInt8Backward(const QuantizedProduct& p, Context& context) {
  if (p.y.rows == 0 || p.y.cols == 0) return;
  const DeviceGuard guard(context.device());
  dispatchSixteenBits(p.x.scalar, [&](auto tag) { runFor<typename decltype(tag)::type>(p, context); });
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
