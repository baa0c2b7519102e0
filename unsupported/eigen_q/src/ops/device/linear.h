// SPDX-License-Identifier: MPL-2.0
// Quantised weights on the device as operands of linear() and loraLinear(), whose text is that of every place.
#ifndef EIGENQ_OPS_DEVICE_LINEAR_H
#define EIGENQ_OPS_DEVICE_LINEAR_H

#include <type_traits>

#include "../linear_quantized.h"
#include "helpers.h"

namespace EigenQ {
namespace ad {
namespace internal {

/** gpu::Int8Matrix and gpu::FourBitMatrix are kept by address; windows, transposes and W.withThreshold(t) as the
 * references that they are. */
template <typename T>
struct FrozenWeight<T, Device> {
  static constexpr bool value = gpu::internal::IsDeviceQuantized<T>::value;
  static constexpr bool kIsReference = std::is_same_v<T, gpu::DeviceQuantizedView>;
};

}  // namespace internal
}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPS_DEVICE_LINEAR_H
