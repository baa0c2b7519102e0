// SPDX-License-Identifier: MPL-2.0
// One named function per PTX instruction by which blocks of Hopper work together through memory, and by which the copy
// engine writes; nothing else.
#ifndef EIGENQ_CUDA_PTX_TEAM_SM90_CUH
#define EIGENQ_CUDA_PTX_TEAM_SM90_CUH

#include <cuda.h>

#include <cstdint>

namespace EigenQ {
namespace gpu {
namespace internal {
namespace ptx {

/** What this thread wrote to shared memory is visible to the copy engine and to wgmma behind a barrier that follows. */
__device__ __forceinline__ void fenceAsyncProxy() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

/** The same for memory of the device, on either side of a barrier or count. */
__device__ __forceinline__ void fenceAsyncProxyEverywhere() { asm volatile("fence.proxy.async;" ::: "memory"); }

/** Counts what this warp has written before, __syncwarp() included. */
__device__ __forceinline__ void countWritten(unsigned* counter) {
  asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(counter) : "memory");
}
/** Counts reads that are over. */
__device__ __forceinline__ void count(unsigned* counter) {
  asm volatile("red.relaxed.gpu.global.add.u32 [%0], 1;" ::"l"(counter) : "memory");
}
/** A count; what was counted is visible behind this. */
__device__ __forceinline__ unsigned loadCount(const unsigned* counter) {
  unsigned now;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(now) : "l"(counter) : "memory");
  return now;
}
/** The same, not to see what was counted: to write once others have read. */
__device__ __forceinline__ unsigned peekCount(const unsigned* counter) {
  unsigned now;
  asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(now) : "l"(counter) : "memory");
  return now;
}

/** A box from shared memory to a matrix; what lies outside of it is left out. Belongs to the group that the thread ends
 * next. */
__device__ __forceinline__ void storeBox(const CUtensorMap* map, int x, int y, std::uint32_t from) {
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];" ::"l"(map), "r"(x), "r"(y),
               "r"(from)
               : "memory");
}
/** Ends a group of stores. */
__device__ __forceinline__ void commitStores() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
/** Waits until the shared memory of all groups of this thread but the last kPending has been read. */
template <int kPending>
__device__ __forceinline__ void waitForReads() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kPending) : "memory");
}

}  // namespace ptx
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_PTX_TEAM_SM90_CUH
