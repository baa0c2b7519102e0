// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_CUDA_ALIGNMENT_H
#define EIGENQ_CUDA_ALIGNMENT_H

#include <eigen_q/src/Views.h>

#include <cstdint>

namespace EigenQ {
namespace gpu {
namespace internal {

inline bool isAligned(const void* data, Index bytes) {
  return reinterpret_cast<std::uintptr_t>(data) % static_cast<std::uintptr_t>(bytes) == 0;
}
constexpr Index ceilDiv(Index value, Index by) { return (value + by - 1) / by; }
constexpr Index roundUp(Index value, Index multiple) { return ceilDiv(value, multiple) * multiple; }

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_ALIGNMENT_H
