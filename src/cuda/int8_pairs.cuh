// SPDX-License-Identifier: MPL-2.0
// int8_pairs.cuh: int8 codes as pairs of 16-bit floats, for the tensor cores. Exact: both types have room for 8 bits.
#ifndef EIGENQ_CUDA_INT8_PAIRS_CUH
#define EIGENQ_CUDA_INT8_PAIRS_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace EigenQ {
namespace gpu {
namespace internal {

/** pairs() makes of four codes in memory order those at 0 and 1, and at 2 and 3, each divided by kUnit; crossedPairs()
 * those at 0 and 2, and at 1 and 3. */
template <typename T>
struct CodePairs;

/** Codes carry a factor 2⁻¹², which costs nothing: so a sum with codes leaves the range of float no sooner than the
 * host's sum with weights of ordinary size. */
template <>
struct CodePairs<__nv_bfloat16> {
  static constexpr float kUnit = 4096;

  /** Bits below 0x0100 are integers times 2⁻¹³³: subnormal numbers and those of the first exponent are equally far
   * apart. Those of code + 128 become code·2⁻¹² by one fused multiply-add. */
  static __device__ __forceinline__ void pairs(std::uint32_t codes, std::uint32_t& first, std::uint32_t& second) {
    const std::uint32_t shifted = codes ^ 0x80808080u;
    first = pair(__byte_perm(shifted, 0, 0x4140));
    second = pair(__byte_perm(shifted, 0, 0x4342));
  }
  static __device__ __forceinline__ void crossedPairs(std::uint32_t codes, std::uint32_t& first,
                                                      std::uint32_t& second) {
    const std::uint32_t shifted = codes ^ 0x80808080u;
    first = pair(__byte_perm(shifted, 0, 0x4240));
    second = pair(__byte_perm(shifted, 0, 0x4341));
  }

 private:
  static __device__ __forceinline__ __nv_bfloat162 asFloats(std::uint32_t bits) {
    return *reinterpret_cast<__nv_bfloat162*>(&bits);
  }
  static __device__ __forceinline__ std::uint32_t pair(std::uint32_t bits) {
    constexpr std::uint32_t kTwoTo121 = 0x7c007c00u, kMinusTwoToMinus5 = 0xbd00bd00u;
    const __nv_bfloat162 codes = __hfma2(asFloats(bits), asFloats(kTwoTo121), asFloats(kMinusTwoToMinus5));
    return *reinterpret_cast<const std::uint32_t*>(&codes);
  }
};

/** Codes carry a factor 2⁻⁶: a scale of them in half, and what it is short of its float, have room for their digits,
 * and none that weights of half could have overflows. */
template <>
struct CodePairs<__half> {
  static constexpr float kUnit = 64;

  /** A byte 0x4c above code + 128 is 18 + code·2⁻⁶. */
  static __device__ __forceinline__ void pairs(std::uint32_t codes, std::uint32_t& first, std::uint32_t& second) {
    const std::uint32_t shifted = codes ^ 0x80808080u;
    first = pair(__byte_perm(shifted, 0x4c4c4c4cu, 0x4140));
    second = pair(__byte_perm(shifted, 0x4c4c4c4cu, 0x4342));
  }
  static __device__ __forceinline__ void crossedPairs(std::uint32_t codes, std::uint32_t& first,
                                                      std::uint32_t& second) {
    const std::uint32_t shifted = codes ^ 0x80808080u;
    first = pair(__byte_perm(shifted, 0x4c4c4c4cu, 0x4240));
    second = pair(__byte_perm(shifted, 0x4c4c4c4cu, 0x4341));
  }

 private:
  static __device__ __forceinline__ std::uint32_t pair(std::uint32_t bits) {
    constexpr std::uint32_t kZero = 0x4c804c80u;
    const __half2 codes = __hsub2(*reinterpret_cast<__half2*>(&bits), *reinterpret_cast<const __half2*>(&kZero));
    return *reinterpret_cast<const std::uint32_t*>(&codes);
  }
};

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_INT8_PAIRS_CUH
