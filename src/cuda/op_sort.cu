// SPDX-License-Identifier: MPL-2.0
#include "op_sort.cuh"

#include <cub/device/device_radix_sort.cuh>

namespace EigenQ {
namespace gpu {
namespace internal {

void sortPairs(const std::uint32_t* keys, std::uint32_t* sortedKeys, const std::int32_t* values,
               std::int32_t* sortedValues, std::int32_t count, int keyBits, Scratch& scratch, Context& context) {
  const DeviceGuard guard(context.device());
  std::size_t bytes = 0;
  EIGENQ_CUDA_CHECK(cub::DeviceRadixSort::SortPairs(nullptr, bytes, keys, sortedKeys, values, sortedValues, count, 0,
                                                    keyBits, context.stream()));
  void* const memory = scratch.bytes(bytes);
  EIGENQ_CUDA_CHECK(cub::DeviceRadixSort::SortPairs(memory, bytes, keys, sortedKeys, values, sortedValues, count, 0,
                                                    keyBits, context.stream()));
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
