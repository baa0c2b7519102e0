// SPDX-License-Identifier: MPL-2.0
// One named function per PTX instruction of portable kernels that the toolkit has no intrinsic for, nothing else.
#ifndef EIGENQ_CUDA_PTX_CUH
#define EIGENQ_CUDA_PTX_CUH

#include <cstdint>

namespace EigenQ {
namespace gpu {
namespace internal {
namespace ptx {

/** 16 bytes that are read once: past the first-level cache, and the second level fetches 128 bytes for them. */
__device__ __forceinline__ uint4 loadStreaming(const void* from) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from));
  return v;
}

/** 16 bytes that other warps and blocks read too. */
__device__ __forceinline__ uint4 loadCached(const void* from) {
  uint4 v;
  asm volatile("ld.global.nc.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(from));
  return v;
}

/** Asks the second-level cache for the 128 bytes around an address. */
__device__ __forceinline__ void prefetch(const void* at) { asm volatile("prefetch.global.L2 [%0];" ::"l"(at)); }

/** 2ˣ within two units in the last place, and 0 where that is below 2⁻¹²⁶; exp2f() takes four instructions. */
__device__ __forceinline__ float powerOfTwo(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/** d (16×8) += a (16×32)·b (32×8). Lane 4g + c holds of a rows g and g + 8 at 4c..4c+3 (a0, a1) and at 16 + 4c.. (a2,
 * a3), of b column g at the same places, of d rows g (d0, d1) and g + 8 (d2, d3) in columns 2c and 2c + 1. */
__device__ __forceinline__ void mmaS8(int (&d)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2,
                                      std::uint32_t a3, std::uint32_t b0, std::uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/** d (16×8) += a (16×16)·b (16×8) in float. Lane 4g + c holds of a rows g and g + 8 at 2c, 2c + 1 (a0, a1) and at 8 +
 * 2c, 9 + 2c (a2, a3), of b column g at the same places; d as above. */
__device__ __forceinline__ void mmaBFloat16(float (&d)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2,
                                            std::uint32_t a3, std::uint32_t b0, std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
__device__ __forceinline__ void mmaHalf(float (&d)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2,
                                        std::uint32_t a3, std::uint32_t b0, std::uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

}  // namespace ptx
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_PTX_CUH
