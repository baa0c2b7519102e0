// SPDX-License-Identifier: MPL-2.0
// wgmma_decode_sm90_weights.cuh: codes in shared memory to the fragments of W that wgmma takes from registers.
//
//   codes of a row   │ 16 B │ 16 B │ … 8 pieces: 256 k of 4 bits, 128 of 8 │   piece q of row r lies at q ^ (r % 8)
//   64 k of a row    │ lane 0: k 0 … 15 │ lane 1: k 16 … 31 │ lane 2 │ lane 3 │
//
// The order of a sum is free: the fragments' k 2c, 2c + 1, 2c + 8, 2c + 9 of product j of four stand for
// 16c + 4j + {0, 1, 2, 3}, so that a lane's codes are one load. X lies in that order in shared memory
// (wgmma_decode_pack.cu). The order of rows is free too: a lane holds two that are neighbours in a row of Y, and lanes
// of a group those that a load finds in different banks.
#ifndef EIGENQ_CUDA_WGMMA_DECODE_SM90_WEIGHTS_CUH
#define EIGENQ_CUDA_WGMMA_DECODE_SM90_WEIGHTS_CUH

#include <cstdint>
#include <type_traits>

#include "fourbit_pair_table.cuh"
#include "int8_pairs.cuh"
#include "scalar.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace wgmma_decode {

constexpr int kDeep = 64;          // k of a step: a block of W of 4 bits, 128 bytes of X
constexpr int kMmas = kDeep / 16;  // of a step
constexpr int kLine = 128;         // bytes of a row of W in a stage of codes

/** What a warp multiplies in a step: 16 rows by 64 k. */
using Fragments = std::uint32_t[kMmas][4];

// Reads of what has arrived: volatile keeps them behind the wait, and nothing else has to stand still for them.
__device__ __forceinline__ uint2 loadPair(std::uint32_t address) {
  uint2 v;
  asm volatile("ld.shared.v2.b32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "r"(address));
  return v;
}
__device__ __forceinline__ uint4 loadFour(std::uint32_t address) {
  uint4 v;
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(address));
  return v;
}
__device__ __forceinline__ float4 loadFloats(std::uint32_t address) {
  float4 v;
  asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "r"(address));
  return v;
}
__device__ __forceinline__ void storeFloats(std::uint32_t address, const float4& v) {
  asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(address), "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w)
               : "memory");
}

/** The order of a warp's eight pairs of rows: that of group g of its lanes. */
struct InOrder {
  static __device__ __forceinline__ int pairOf(int g) { return g; }
};
/** Two groups that read 16 bytes a lane at the same time find half of the banks each. */
struct Crossed {
  static __device__ __forceinline__ int pairOf(int g) { return (g & 4) | (g & 1) << 1 | (g & 2) >> 1; }
};

/** A lane's codes of a step. */
struct FourBitCodes {
  uint2 low, high;  // rows 2g and 2g + 1

  /** \param stage  where the codes of the warp's 16 rows begin */
  __device__ __forceinline__ FourBitCodes(std::uint32_t stage, int lane, int step) {
    const std::uint32_t g = static_cast<std::uint32_t>(lane) / 4, c = static_cast<std::uint32_t>(lane) % 4;
    const std::uint32_t piece = 2 * static_cast<std::uint32_t>(step) + c / 2, row = stage + 2 * g * kLine + c % 2 * 8;
    low = loadPair(row + ((piece ^ 2 * g % 8) * 16));
    high = loadPair(row + kLine + ((piece ^ (2 * g + 1) % 8) * 16));
  }
};

/** A lane's codes of a step. */
struct Int8Codes {
  uint4 low, high;  // of its first row and the next

  /** \param stage  where the codes of the warp's 16 rows begin */
  __device__ __forceinline__ Int8Codes(std::uint32_t stage, int lane, int step) {
    const std::uint32_t r = 2 * static_cast<std::uint32_t>(Crossed::pairOf(lane / 4));
    const std::uint32_t piece = 4 * static_cast<std::uint32_t>(step) + static_cast<std::uint32_t>(lane) % 4;
    low = loadFour(stage + r * kLine + (piece ^ r % 8) * 16);
    high = loadFour(stage + (r + 1) * kLine + (piece ^ (r + 1) % 8) * 16);
  }
};

/** NF4 and FP4. Two weights are one PRMT and one load from a table of 64 KiB, which begins at a multiple of its size.
 * \tparam kScaled_  whether absmax multiplies the weights rather than the sums */
template <bool kScaled_>
struct FourBit : InOrder {
  using Codes = FourBitCodes;
  static constexpr bool kHasTable = true, kScalesSums = !kScaled_;
  static constexpr int kChunk = 256, kSteps = kChunk / kDeep;  // k and steps of a stage of codes
  static constexpr int kScaleBytes = kSteps * 4;               // absmax of a row of a stage

  /** Of a stage of X, for tiles of so many tokens. */
  static constexpr int stepsOfX(int tokens) { return tokens <= 32 ? 4 : tokens == 64 ? 2 : 1; }
  /** Stages of codes that lie before the table. */
  static constexpr int stagesBefore(int tokens, int groups) { return groups > 2 && tokens <= 64 ? 2 : 1; }
};

/** int8. A code is exact in 16 bits: the scale of its row multiplies the sum, in the end. */
struct Int8 : Crossed {
  using Codes = Int8Codes;
  static constexpr bool kHasTable = false, kScalesSums = false;
  static constexpr int kChunk = 128, kSteps = kChunk / kDeep;
  static constexpr int kScaleBytes = 0;

  static constexpr int stepsOfX(int tokens) { return tokens <= 64 ? 2 : 1; }
  /** All of them: with few tokens copies of W take the time. */
  static constexpr int stagesBefore(int tokens, int groups) {
    return (tokens <= 64 ? 16 : tokens == 128 ? 12 : 10) / groups;
  }
};

// What becomes of a pair of the table. fillTable() returns what absmax has to be multiplied by; row is 0 or 1.

/** Levels as they are, rounded to T; absmax multiplies the sums. */
template <typename T>
struct Plain {
  static __device__ __forceinline__ float fillTable(std::uint32_t table, const float* codeTable, int threads) {
    return fourbit::fillPairTable<T>(table, codeTable, threads);
  }
  __device__ __forceinline__ std::uint32_t operator()(std::uint32_t pair, int) const { return pair; }
};

/** Levels times absmax, rounded once, as bitsandbytes' dequantisation rounds them: levels have so many more bits than T
 * that only that rounding counts. */
template <typename T>
struct Scaled {
  static constexpr bool kIsHalf = std::is_same_v<T, __half>;
  float absmax[2];  // of the two rows

  static __device__ __forceinline__ float fillTable(std::uint32_t table, const float* codeTable, int threads) {
    return kIsHalf ? fourbit::fillFixedPairTable(table, codeTable, threads)
                   : fourbit::fillPairTable<__half>(table, codeTable, threads);
  }
  __device__ __forceinline__ std::uint32_t operator()(std::uint32_t pair, int row) const {
    const float2 levels =
        kIsHalf ? fourbit::fixedLevels(pair) : __half22float2(*reinterpret_cast<const __half2*>(&pair));
    return packPair<T>(levels.x * absmax[row], levels.y * absmax[row]);
  }
};

/** \param place  the table's beginning + 4·lane */
template <typename Scale>
__device__ __forceinline__ void decodeStep(const FourBitCodes& codes, std::uint32_t place, const Scale& scale,
                                           Fragments& a) {
#pragma unroll
  for (int j = 0; j < kMmas; ++j) {
    const std::uint32_t low = j < 2 ? codes.low.x : codes.low.y, high = j < 2 ? codes.high.x : codes.high.y;
    if (j % 2 == 0) {
      a[j][0] = scale(fourbit::decodeAlignedPair<0>(low, place), 0);
      a[j][1] = scale(fourbit::decodeAlignedPair<0>(high, place), 1);
      a[j][2] = scale(fourbit::decodeAlignedPair<1>(low, place), 0);
      a[j][3] = scale(fourbit::decodeAlignedPair<1>(high, place), 1);
    } else {
      a[j][0] = scale(fourbit::decodeAlignedPair<2>(low, place), 0);
      a[j][1] = scale(fourbit::decodeAlignedPair<2>(high, place), 1);
      a[j][2] = scale(fourbit::decodeAlignedPair<3>(low, place), 0);
      a[j][3] = scale(fourbit::decodeAlignedPair<3>(high, place), 1);
    }
  }
}

/** Codes divided by CodePairs<T>::kUnit. */
template <typename T>
__device__ __forceinline__ void decodeStep(const Int8Codes& codes, Fragments& a) {
  const std::uint32_t low[kMmas] = {codes.low.x, codes.low.y, codes.low.z, codes.low.w};
  const std::uint32_t high[kMmas] = {codes.high.x, codes.high.y, codes.high.z, codes.high.w};
#pragma unroll
  for (int j = 0; j < kMmas; ++j) {
    CodePairs<T>::pairs(low[j], a[j][0], a[j][2]);
    CodePairs<T>::pairs(high[j], a[j][1], a[j][3]);
  }
}

}  // namespace wgmma_decode
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_WGMMA_DECODE_SM90_WEIGHTS_CUH
