// SPDX-License-Identifier: MPL-2.0
// One named function per PTX instruction that moves tiles to shared memory and on to the tensor cores, nothing else.
#ifndef EIGENQ_CUDA_PTX_SHARED_CUH
#define EIGENQ_CUDA_PTX_SHARED_CUH

#include <cstdint>

namespace EigenQ {
namespace gpu {
namespace internal {
namespace ptx {

/** 16 bytes from global to shared memory, in the background; 0 of them are read and zeros written where \a inside is
 * false. Both addresses are multiples of 16. */
__device__ __forceinline__ void copyAsync(void* to, const void* from, bool inside) {
  asm volatile(
      "cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(static_cast<std::uint32_t>(__cvta_generic_to_shared(to))),
      "l"(from), "r"(inside ? 16 : 0)
      : "memory");
}
/** The same to a shared address; its neighbours are next, so that the second-level cache fetches all 128 bytes. */
__device__ __forceinline__ void copyAsyncLine(std::uint32_t to, const void* from, bool inside) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(inside ? 16 : 0)
               : "memory");
}
/** Ends a group of copies. */
__device__ __forceinline__ void commitCopies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/** Waits for all groups of this thread but the last kPending. */
template <int kPending>
__device__ __forceinline__ void waitForCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

/** Four 8×8 matrices of 16-bit values; lane i gives the address of row i % 8 of matrix i / 8, 16 bytes. Lane 4g + c
 * gets of each row g at 2c, 2c + 1. */
__device__ __forceinline__ void loadMatrices(std::uint32_t (&m)[4], std::uint32_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(row)
               : "memory");
}
__device__ __forceinline__ void loadMatrices(std::uint32_t (&m)[4], const void* row) {
  loadMatrices(m, static_cast<std::uint32_t>(__cvta_generic_to_shared(row)));
}
/** Two of them; lanes 0 to 15 give the addresses, in the shared window. */
__device__ __forceinline__ void loadTwoMatrices(std::uint32_t (&m)[2], std::uint32_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
               : "=r"(m[0]), "=r"(m[1])
               : "r"(row)
               : "memory");
}
/** The same as loadMatrices, each matrix transposed: lane 4g + c gets of each rows 2c, 2c + 1 at g. */
__device__ __forceinline__ void loadMatricesTransposed(std::uint32_t (&m)[4], std::uint32_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(row)
               : "memory");
}
__device__ __forceinline__ void loadMatricesTransposed(std::uint32_t (&m)[4], const void* row) {
  loadMatricesTransposed(m, static_cast<std::uint32_t>(__cvta_generic_to_shared(row)));
}

}  // namespace ptx
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_PTX_SHARED_CUH
