// SPDX-License-Identifier: MPL-2.0
// The way round a ring of stages, which every pair of a copying and a computing warp goes at its own pace.
#ifndef EIGENQ_CUDA_RING_CUH
#define EIGENQ_CUDA_RING_CUH

#include <cstdint>

namespace EigenQ {
namespace gpu {
namespace internal {

/** A slot of a ring, and the parity that the phases of its barriers have in this round. */
struct Slot {
  int index = 0;
  std::uint32_t parity = 0;

  __device__ __forceinline__ void advance(int slots) {
    if (++index == slots) {
      index = 0;
      parity ^= 1;
    }
  }
  __device__ __forceinline__ void goBack(int slots) {
    if (--index < 0) {
      index = slots - 1;
      parity ^= 1;
    }
  }
};

/** The same in a ring whose size the compiler knows. */
template <int kSlots>
struct Ring : Slot {
  __device__ __forceinline__ void advance() { Slot::advance(kSlots); }
  /** \a by  at most kSlots */
  __device__ __forceinline__ void skip(int by) {
    index += by;
    if (index >= kSlots) {
      index -= kSlots;
      parity ^= 1;
    }
  }
  __device__ __forceinline__ void skipFar(int by) {
    const int at = index + by;
    parity ^= at / kSlots & 1;
    index = at % kSlots;
  }
};

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_RING_CUH
