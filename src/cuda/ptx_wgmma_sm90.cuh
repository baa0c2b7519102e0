// SPDX-License-Identifier: MPL-2.0
// wgmma on 16-bit values for every width that the kernels use, A in registers or in shared memory, and what goes with
// it.
#ifndef EIGENQ_CUDA_PTX_WGMMA_SM90_CUH
#define EIGENQ_CUDA_PTX_WGMMA_SM90_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "scalar.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace ptx {

// A list of the registers of a sum, as names in an instruction's text and as constraints.
#define EIGENQ_NAMES_8 "%0, %1, %2, %3, %4, %5, %6, %7"
#define EIGENQ_NAMES_16 EIGENQ_NAMES_8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define EIGENQ_NAMES_32 \
  EIGENQ_NAMES_16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define EIGENQ_NAMES_64                                                                \
  EIGENQ_NAMES_32                                                                      \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define EIGENQ_NAMES_128                                                                   \
  EIGENQ_NAMES_64                                                                          \
  ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "     \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "       \
  "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, " \
  "%111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, "   \
  "%125, %126, %127"
#define EIGENQ_SUMS_8(i)                                                                                      \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), \
      "+f"(d[i + 7])
#define EIGENQ_SUMS_16(i) EIGENQ_SUMS_8(i), EIGENQ_SUMS_8(i + 8)
#define EIGENQ_SUMS_32(i) EIGENQ_SUMS_16(i), EIGENQ_SUMS_16(i + 16)
#define EIGENQ_SUMS_64(i) EIGENQ_SUMS_32(i), EIGENQ_SUMS_32(i + 32)

/** d = a·bᵀ, or d += that: a 64×16 in registers, b N×16 in shared memory, by rows along k, or along its columns where
 * \a kColumns. Thread 32w + 4g + c of the warpgroup holds of a: rows 16w + g (a[0], a[2]) and 16w + g + 8 (a[1], a[3]),
 * at k 2c, 2c + 1 (a[0], a[1]) and 2c + 8, 2c + 9; of d: the same rows (d[4i], d[4i + 1]) and (d[4i + 2], d[4i + 3]) in
 * columns 8i + 2c, 8i + 2c + 1. \a a must not change before wgmmaWait(). */
#define EIGENQ_WGMMA(kSums, kShape, kType, T, kNames, kConstraints, kRest, kFlag, kLast)                              \
  template <bool kColumns = false>                                                                                    \
  __device__ __forceinline__ void wgmma(float(&d)[kSums], const std::uint32_t(&a)[4], std::uint64_t b,                \
                                        bool accumulate, TypeTag<T>) {                                                \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " kFlag ", 0;\nwgmma.mma_async.sync.aligned." kShape ".f32." kType \
                 "." kType " {" kNames "}, " kRest ", p, 1, 1, " kLast ";\n}"                                         \
                 : kConstraints                                                                                       \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(accumulate)),             \
                   "n"(kColumns ? 1 : 0));                                                                            \
  }
#define EIGENQ_WGMMAS(kSums, kShape, kNames, kConstraints, kRest, kFlag, kLast)                              \
  EIGENQ_WGMMA(kSums, kShape, "bf16", __nv_bfloat16, kNames, EIGENQ_LIST(kConstraints), kRest, kFlag, kLast) \
  EIGENQ_WGMMA(kSums, kShape, "f16", __half, kNames, EIGENQ_LIST(kConstraints), kRest, kFlag, kLast)
#define EIGENQ_LIST(...) __VA_ARGS__

EIGENQ_WGMMAS(8, "m64n16k16", EIGENQ_NAMES_8, EIGENQ_LIST(EIGENQ_SUMS_8(0)), "{%8, %9, %10, %11}, %12", "%13", "%14")
EIGENQ_WGMMAS(16, "m64n32k16", EIGENQ_NAMES_16, EIGENQ_LIST(EIGENQ_SUMS_16(0)), "{%16, %17, %18, %19}, %20", "%21",
              "%22")
EIGENQ_WGMMAS(32, "m64n64k16", EIGENQ_NAMES_32, EIGENQ_LIST(EIGENQ_SUMS_32(0)), "{%32, %33, %34, %35}, %36", "%37",
              "%38")
EIGENQ_WGMMAS(64, "m64n128k16", EIGENQ_NAMES_64, EIGENQ_LIST(EIGENQ_SUMS_64(0)), "{%64, %65, %66, %67}, %68", "%69",
              "%70")
EIGENQ_WGMMAS(128, "m64n256k16", EIGENQ_NAMES_128, EIGENQ_LIST(EIGENQ_SUMS_64(0), EIGENQ_SUMS_64(64)),
              "{%128, %129, %130, %131}, %132", "%133", "%134")

#undef EIGENQ_WGMMAS
#undef EIGENQ_WGMMA

/** The same with a in shared memory, 64×16 and by rows along k, or along its columns where \a kColumns; b by rows. */
#define EIGENQ_WGMMA_SHARED(kSums, kShape, kType, T, kNames, kConstraints, kRest, kFlag, kLast)                       \
  template <bool kColumns = false>                                                                                    \
  __device__ __forceinline__ void wgmmaShared(float(&d)[kSums], std::uint64_t a, std::uint64_t b, bool accumulate,    \
                                              TypeTag<T>) {                                                           \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " kFlag ", 0;\nwgmma.mma_async.sync.aligned." kShape ".f32." kType \
                 "." kType " {" kNames "}, " kRest ", p, 1, 1, " kLast ", 0;\n}"                                      \
                 : kConstraints                                                                                       \
                 : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)), "n"(kColumns ? 1 : 0));                         \
  }
#define EIGENQ_WGMMAS_SHARED(kSums, kShape, kNames, kConstraints, kRest, kFlag, kLast)                              \
  EIGENQ_WGMMA_SHARED(kSums, kShape, "bf16", __nv_bfloat16, kNames, EIGENQ_LIST(kConstraints), kRest, kFlag, kLast) \
  EIGENQ_WGMMA_SHARED(kSums, kShape, "f16", __half, kNames, EIGENQ_LIST(kConstraints), kRest, kFlag, kLast)

EIGENQ_WGMMAS_SHARED(32, "m64n64k16", EIGENQ_NAMES_32, EIGENQ_LIST(EIGENQ_SUMS_32(0)), "%32, %33", "%34", "%35")
EIGENQ_WGMMAS_SHARED(64, "m64n128k16", EIGENQ_NAMES_64, EIGENQ_LIST(EIGENQ_SUMS_64(0)), "%64, %65", "%66", "%67")
EIGENQ_WGMMAS_SHARED(128, "m64n256k16", EIGENQ_NAMES_128, EIGENQ_LIST(EIGENQ_SUMS_64(0), EIGENQ_SUMS_64(64)),
                     "%128, %129", "%130", "%131")

#undef EIGENQ_WGMMAS_SHARED
#undef EIGENQ_WGMMA_SHARED
#undef EIGENQ_LIST

// Registers that held integers, as bits.
#define EIGENQ_BITS_8(i)                                                                                      \
  "+r"(d[i]), "+r"(d[i + 1]), "+r"(d[i + 2]), "+r"(d[i + 3]), "+r"(d[i + 4]), "+r"(d[i + 5]), "+r"(d[i + 6]), \
      "+r"(d[i + 7])
#define EIGENQ_BITS_32(i) EIGENQ_BITS_8(i), EIGENQ_BITS_8(i + 8), EIGENQ_BITS_8(i + 16), EIGENQ_BITS_8(i + 24)
#define EIGENQ_BITS_64(i) EIGENQ_BITS_32(i), EIGENQ_BITS_32(i + 32)

/** d += a·bᵀ as above, of floats in the registers of a sum of integers: in an array of their own the compiler would
 * hold both at once. */
#define EIGENQ_WGMMA_BITS(kSums, kShape, kType, T, kNames, kConstraints, kRest)                                        \
  __device__ __forceinline__ void wgmmaBits(int(&d)[kSums], const std::uint32_t(&a)[4], std::uint64_t b, TypeTag<T>) { \
    asm volatile("wgmma.mma_async.sync.aligned." kShape ".f32." kType "." kType " {" kNames "}, " kRest                \
                 ", 1, 1, 1, 0;"                                                                                       \
                 : kConstraints                                                                                        \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                                                \
  }
#define EIGENQ_LIST(...) __VA_ARGS__
#define EIGENQ_WGMMAS_BITS(kSums, kShape, kNames, kConstraints, kRest)                              \
  EIGENQ_WGMMA_BITS(kSums, kShape, "bf16", __nv_bfloat16, kNames, EIGENQ_LIST(kConstraints), kRest) \
  EIGENQ_WGMMA_BITS(kSums, kShape, "f16", __half, kNames, EIGENQ_LIST(kConstraints), kRest)
EIGENQ_WGMMAS_BITS(64, "m64n128k16", EIGENQ_NAMES_64, EIGENQ_LIST(EIGENQ_BITS_64(0)), "{%64, %65, %66, %67}, %68")
EIGENQ_WGMMAS_BITS(128, "m64n256k16", EIGENQ_NAMES_128, EIGENQ_LIST(EIGENQ_BITS_64(0), EIGENQ_BITS_64(64)),
                   "{%128, %129, %130, %131}, %132")
#undef EIGENQ_WGMMAS_BITS
#undef EIGENQ_WGMMA_BITS
#undef EIGENQ_LIST

/** What was computed by wgmma is in the registers from here on: no use of them moves before this. */
template <int kCount>
__device__ __forceinline__ void settle(float (&d)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(d[i])::"memory");
}
template <int kCount>
__device__ __forceinline__ void settle(int (&d)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+r"(d[i])::"memory");
}
/** Registers that wgmma is to read are written before this: what defines them must not move between wgmmaFence() and
 * the instruction, as the compiler would then wait for each product by itself. */
__device__ __forceinline__ void settle(std::uint32_t (&a)[4]) {
  asm volatile("" : "+r"(a[0]), "+r"(a[1]), "+r"(a[2]), "+r"(a[3])::"memory");
}
/** Keeps what wgmma reads in its registers up to here. */
__device__ __forceinline__ void keep(const std::uint32_t (&a)[4]) {
  asm volatile("" ::"r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]) : "memory");
}

/** What wgmma reads at a shared address that is a multiple of 1024, or 32·j bytes (a slice of k) behind one: rows of
 * 128 bytes one after another, swizzled. Bits 0-13: address/16. 16-29: distance between slices of k within the pattern,
 * which has none: 1. 32-45: from one group of eight rows to the next, 1024/16. 62-63: pattern of 128 bytes, 1. */
__device__ __forceinline__ std::uint64_t swizzledOperand(std::uint32_t address) {
  return static_cast<std::uint64_t>((address & 0x3ffff) >> 4) | std::uint64_t{1} << 16 |
         std::uint64_t{1024 >> 4} << 32 | std::uint64_t{1} << 62;
}
/** The same of rows that are not swizzled: pieces of eight rows by 16 bytes along k lie one after another along the
 * rows, and \a bytes (a multiple of 16) from one slice of 16 bytes along k to the next. The address is a multiple
 * of 16. */
__device__ __forceinline__ std::uint64_t slicedOperand(std::uint32_t address, int bytes) {
  return static_cast<std::uint64_t>((address & 0x3ffff) >> 4) | static_cast<std::uint64_t>(bytes >> 4) << 16 |
         std::uint64_t{128 >> 4} << 32;
}

/** As swizzledOperand() for an operand that is read along its columns: a row of 128 bytes is one k of 64 columns, the
 * next 64 columns lie \a strip bytes on. Bits 16-29 have that distance, 32-45 the one from eight k to the next. */
__device__ __forceinline__ std::uint64_t swizzledColumns(std::uint32_t address, std::uint32_t strip) {
  return static_cast<std::uint64_t>((address & 0x3ffff) >> 4) | static_cast<std::uint64_t>(strip >> 4) << 16 |
         std::uint64_t{1024 >> 4} << 32 | std::uint64_t{1} << 62;
}

}  // namespace ptx
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_PTX_WGMMA_SM90_CUH
