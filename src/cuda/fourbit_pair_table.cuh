// SPDX-License-Identifier: MPL-2.0
// fourbit_pair_table.cuh: a byte of 4-bit codes to its two weights, as one register for mma.sync.
//
//   shared memory, entry e of 256   │ pair (level[e / 16], level[e % 16]): 32 copies of 4 B │ 128 B free │
//
// A lane reads the copy in its own bank: no conflicts for any codes. Entries are 256 B apart, so that the byte of codes
// is byte 1 of the address and one PRMT makes it: 1 instruction a weight with the load.
#ifndef EIGENQ_CUDA_FOURBIT_PAIR_TABLE_CUH
#define EIGENQ_CUDA_FOURBIT_PAIR_TABLE_CUH

#include <eigen_q/src/FourBit.h>

#include <cstdint>

#include "scalar.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace fourbit {

constexpr int kTableEntries = 256, kEntryBytes = 256;
constexpr int kFreeOffset = 128;  // of the half of an entry that the table leaves to others
constexpr int kTableBytes = kTableEntries * kEntryBytes;

__device__ __forceinline__ std::uint32_t loadShared(std::uint32_t address) {
  std::uint32_t value;
  asm volatile("ld.shared.b32 %0, [%1];" : "=r"(value) : "r"(address) : "memory");
  return value;
}
__device__ __forceinline__ float loadSharedFloat(std::uint32_t address) { return __uint_as_float(loadShared(address)); }
__device__ __forceinline__ void storeShared(std::uint32_t address, float value) {
  asm volatile("st.shared.f32 [%0], %1;" ::"r"(address), "f"(value) : "memory");
}

/** The power of two that takes the largest of the levels to [1, 2): a stored dictionary may have any. NF4, FP4: 1. The
 * whole warp, a level a lane. */
__device__ __forceinline__ float normalizer(float level) {
  const unsigned largest = __reduce_max_sync(0xffffffffu, __float_as_uint(fabsf(level)));  // as floats compare
  constexpr unsigned kExponent = 0x7f800000u, kOne = 0x3f800000u, kMost = 0x7e800000u;
  return __uint_as_float(2 * kOne - min(largest & kExponent, kMost));
}

/** Levels are stored times this and absmax divided by it. NF4: least rms error for normal weights among 20000 factors
 * in [1, 2]: 7.8e-4 instead of 1.36e-3 in bfloat16, 8.0e-5 instead of 1.84e-4 in half. FP4: 1.5 makes levels exact. */
template <typename T>
constexpr float kNF4Scale = 1.4367f;
template <>
constexpr float kNF4Scale<__half> = 1.3662f;
constexpr float kFP4Scale = 1.5f;

/** Of 1 and the two factors the one that rounds these levels best. The whole warp, a level a lane. */
template <typename T>
__device__ __forceinline__ float bestScale(float level) {
  float best = 1, least = INFINITY;
#pragma unroll
  for (int candidate = 0; candidate < 3; ++candidate) {
    const float scale = candidate == 0 ? 1.0f : candidate == 1 ? kNF4Scale<T> : kFP4Scale;
    const float difference = toFloat(fromFloat<T>(level * scale)) / scale - level;
    float error = difference * difference;
#pragma unroll
    for (int mask = 1; mask < EigenQ::internal::kFourBitLevels; mask *= 2)
      error += __shfl_xor_sync(0xffffffffu, error, mask);
    if (error < least) {
      least = error;
      best = scale;
    }
  }
  return best;
}

/** \a bits  of a lane's level. The first \a threads of the block, whole warps, which synchronise then. */
__device__ __forceinline__ void fillPairs(std::uint32_t table, unsigned bits, int threads) {
  constexpr int kParts = 8;  // of 16 bytes, four copies
  for (int i = static_cast<int>(threadIdx.x); i < kTableEntries * kParts; i += threads) {
    const int code = i / kParts;
    const unsigned pair = __shfl_sync(0xffffffffu, bits, code / 16) | __shfl_sync(0xffffffffu, bits, code % 16) << 16;
    asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};" ::"r"(table + code * kEntryBytes + i % kParts * 16),
                 "r"(pair)
                 : "memory");
  }
}

/** Fills the table and \returns what absmax has to be multiplied by. Threads as for fillPairs(). */
template <typename T>
__device__ __forceinline__ float fillPairTable(std::uint32_t table, const float* codeTable, int threads) {
  const float stored = codeTable[threadIdx.x % EigenQ::internal::kFourBitLevels], unit = normalizer(stored);
  const float level = stored * unit, scale = bestScale<T>(level);
  const T mine = fromFloat<T>(level * scale);
  fillPairs(table, *reinterpret_cast<const std::uint16_t*>(&mine), threads);
  return 1.0f / (unit * scale);
}

/** The two weights of byte \a kByte of \a codes: {0, 0, byte, 4·lane} is the place in the table. The table never
 * changes and \a codes come from behind the barrier that follows its making: the load may move freely. */
template <int kByte>
__device__ __forceinline__ std::uint32_t decodePair(std::uint32_t codes, std::uint32_t lane4, std::uint32_t table) {
  std::uint32_t pair;
  asm("ld.shared.b32 %0, [%1];" : "=r"(pair) : "r"(__byte_perm(codes, lane4, 0x7604 | kByte << 4) + table));
  return pair;
}

/** The same where the table begins at a multiple of 64 KiB: \a place is table + 4·lane, and the permutation is the
 * whole address. */
template <int kByte>
__device__ __forceinline__ std::uint32_t decodeAlignedPair(std::uint32_t codes, std::uint32_t place) {
  std::uint32_t pair;
  asm("ld.shared.b32 %0, [%1];" : "=r"(pair) : "r"(__byte_perm(codes, place, 0x7604 | kByte << 4)));
  return pair;
}

// The same with more digits than half has: levels as integers of 16 bits, of which 32640 are 1. FP4's, multiples of
// 1/192, are exact; NF4's are off by 1.5e-5 at most.
constexpr float kFixedOne = 32640;
constexpr int kFixedZero = 32768;  // what stands for 0: an integer without a sign becomes a float by one PRMT

/** As fillPairTable(). */
__device__ __forceinline__ float fillFixedPairTable(std::uint32_t table, const float* codeTable, int threads) {
  const float stored = codeTable[threadIdx.x % EigenQ::internal::kFourBitLevels], unit = normalizer(stored);
  const float one = __any_sync(0xffffffffu, fabsf(stored * unit) > 1) ? kFixedOne / 2 : kFixedOne;
  fillPairs(table, static_cast<unsigned>(__float2int_rn(stored * unit * one) + kFixedZero), threads);
  return 1.0f / (unit * one);
}

/** The levels of such a pair, times kFixedOne. Bytes 0x4b00 above 16 bits are 2²³ and their value: the difference is
 * exact. */
__device__ __forceinline__ float2 fixedLevels(std::uint32_t pair) {
  constexpr float kZero = 8388608.0f + static_cast<float>(kFixedZero);
  return {__uint_as_float(__byte_perm(pair, 0x4b00u, 0x5410)) - kZero,
          __uint_as_float(__byte_perm(pair, 0x4b00u, 0x5432)) - kZero};
}

}  // namespace fourbit
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_FOURBIT_PAIR_TABLE_CUH
