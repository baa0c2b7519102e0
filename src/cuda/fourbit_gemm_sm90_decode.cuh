// SPDX-License-Identifier: MPL-2.0
// fourbit_gemm_sm90_decode.cuh: codes to what wgmma reads from shared memory, for fourbit_gemm_sm90.cuh.
//
//   a line               64 codes that share an absmax  ──►  128 B, 8 pieces of 16 B, swizzled by its number
//   levels × absmax      low bytes  │ 0 … 3 │ 4 … 7 │ 8 … 11 │ 12 … 15 │    in 8 registers, rounded once to 16 bits,
//                        high bytes │ 0 … 3 │ 4 … 7 │ 8 … 11 │ 12 … 15 │    as dequantising rounds
//   four codes           PRMT picks 4 bytes of 8 by the codes' low three bits, from either half; another of the two by
//                        bit 3; two more put low and high bytes together: 2.6 slots a code, and no table in memory
//
// W·Xᵀ gives a thread rows g and g + 8 of 16, which should be neighbours of a row of Y: rows 2g and 2g + 1 go there, by
// the order of lines (X·Wᵀ, a line is of one row of W) or within them (X·W, a line is 64 columns).
#ifndef EIGENQ_CUDA_FOURBIT_GEMM_SM90_DECODE_CUH
#define EIGENQ_CUDA_FOURBIT_GEMM_SM90_DECODE_CUH

#include <cstdint>

#include "scalar.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace fourbit_gemm {

/** Bytes of a (0 … 3) and b (4 … 7), one for each of the selector's low four nibbles. __byte_perm() would clear the
 * nibbles' top bits first, which are 0 here. */
__device__ __forceinline__ std::uint32_t permute(std::uint32_t a, std::uint32_t b, std::uint32_t selector) {
  std::uint32_t bytes;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(bytes) : "r"(a), "r"(b), "r"(selector));
  return bytes;
}

/** Four weights as two pairs of 16 bits. */
struct Pairs {
  std::uint32_t first, second;
};

/** The 16 weights that a block's codes may stand for. */
class BlockLevels {
 public:
  template <typename T>
  __device__ __forceinline__ BlockLevels(const float (&levels)[16], float absmax, TypeTag<T>) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const std::uint32_t a = packPair<T>(levels[4 * i] * absmax, levels[4 * i + 1] * absmax);
      const std::uint32_t b = packPair<T>(levels[4 * i + 2] * absmax, levels[4 * i + 3] * absmax);
      m_low[i] = permute(a, b, 0x6420);
      m_high[i] = permute(a, b, 0x7531);
    }
  }

  /** Of the four codes in \a index's low 16 bits. \param index  their low three bits \param half  nibble i is i + 4
   * times the top bit of code i \param kFirst, kSecond  which bytes, of low and high ones, make which pair */
  template <std::uint32_t kFirst, std::uint32_t kSecond>
  __device__ __forceinline__ Pairs four(std::uint32_t index, std::uint32_t half) const {
    const std::uint32_t low = permute(permute(m_low[0], m_low[1], index), permute(m_low[2], m_low[3], index), half);
    const std::uint32_t high =
        permute(permute(m_high[0], m_high[1], index), permute(m_high[2], m_high[3], index), half);
    return {permute(low, high, kFirst), permute(low, high, kSecond)};
  }

  /** Of the eight codes in a word, the first in the high nibble of its lowest byte. */
  template <std::uint32_t kFirst, std::uint32_t kSecond>
  __device__ __forceinline__ void eight(std::uint32_t codes, Pairs (&pairs)[2]) const {
    const std::uint32_t index = codes & 0x77777777u, half = (codes >> 1 & 0x44444444u) | 0x32103210u;
    pairs[0] = four<kFirst, kSecond>(index, half);
    pairs[1] = four<kFirst, kSecond>(index >> 16, half >> 16);
  }

 private:
  std::uint32_t m_low[4], m_high[4];
};

/** Eight weights in their order. */
__device__ __forceinline__ uint4 decodeEight(const BlockLevels& levels, std::uint32_t codes) {
  Pairs p[2];
  levels.eight<0x4051, 0x6273>(codes, p);
  return make_uint4(p[0].first, p[0].second, p[1].first, p[1].second);
}
/** Sixteen, those at even places and those at odd ones. */
__device__ __forceinline__ void decodeSixteen(const BlockLevels& levels, std::uint32_t codes, std::uint32_t more,
                                              uint4& even, uint4& odd) {
  Pairs p[2], q[2];
  levels.eight<0x7351, 0x6240>(codes, p);
  levels.eight<0x7351, 0x6240>(more, q);
  even = make_uint4(p[0].first, p[1].first, q[0].first, q[1].first);
  odd = make_uint4(p[0].second, p[1].second, q[0].second, q[1].second);
}

__device__ __forceinline__ void storeShared(std::uint32_t address, std::uint32_t v) {
  asm volatile("st.shared.b32 [%0], %1;" ::"r"(address), "r"(v) : "memory");
}

/** Decodes a line, 32 bytes of codes, to where it lies in memory. \param number  of the line, by which its pieces are
 * swizzled */
template <bool kInterleaved>
__device__ __forceinline__ void decodeLine(uint4* line, int number, const uint4 (&codes)[2],
                                           const BlockLevels& levels) {
  const std::uint32_t words[8] = {codes[0].x, codes[0].y, codes[0].z, codes[0].w,
                                  codes[1].x, codes[1].y, codes[1].z, codes[1].w};
#pragma unroll
  for (int q = 0; q < 8; q += 2) {
    uint4 first, second;
    if constexpr (kInterleaved) {
      decodeSixteen(levels, words[q], words[q + 1], first, second);
    } else {
      first = decodeEight(levels, words[q]);
      second = decodeEight(levels, words[q + 1]);
    }
    line[q ^ number % 8] = first;
    line[(q + 1) ^ number % 8] = second;
  }
}

}  // namespace fourbit_gemm
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_FOURBIT_GEMM_SM90_DECODE_CUH
