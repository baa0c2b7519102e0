// SPDX-License-Identifier: MPL-2.0
// fourbit_wgmma_sm90_decode.cuh: codes in shared memory to the fragments of W that wgmma takes from registers.
//
//   codes of a row   │ 16 B │ 16 B │ … 8 pieces, 256 k │      piece q of row r lies at q ^ (r % 8)
//   64 k of a row    │ lane 0: 8 B, k 0 … 15 │ lane 1: k 16 … 31 │ lane 2 │ lane 3 │
//
// The order of a sum is free: the fragments' k 2c, 2c + 1, 2c + 8, 2c + 9 of product j of four stand for
// 16c + 4j + {0, 1, 2, 3}, so that a lane's codes are one load. X lies in that order in shared memory
// (fourbit_wgmma_pack.cu). The order of rows is free too: lanes of group g hold rows 2g and 2g + 1, whose codes half a
// warp finds in different banks, and which are neighbours in a row of Y. Two weights are one PRMT and one load.
#ifndef EIGENQ_CUDA_FOURBIT_WGMMA_SM90_DECODE_CUH
#define EIGENQ_CUDA_FOURBIT_WGMMA_SM90_DECODE_CUH

#include <cstdint>

#include "fourbit_pair_table.cuh"
#include "scalar.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace fourbit_wgmma {

constexpr int kDeep = 64;          // k of a step: a block of W, 128 bytes of X
constexpr int kMmas = kDeep / 16;  // of a step
constexpr int kChunk = 256;        // k of a stage of codes
constexpr int kSteps = kChunk / kDeep;
constexpr int kLine = kChunk / 2;  // bytes

/** What a warp multiplies in a step: 16 rows by 64 k. */
using Fragments = std::uint32_t[kMmas][4];

// Reads of what has arrived: volatile keeps them behind the wait, and nothing else has to stand still for them.
__device__ __forceinline__ uint2 loadPair(std::uint32_t address) {
  uint2 v;
  asm volatile("ld.shared.v2.b32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "r"(address));
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

/** A lane's codes of a step. */
struct Codes {
  uint2 low, high;  // rows 2g and 2g + 1

  /** \param stage  where the codes of the warp's 16 rows begin */
  __device__ __forceinline__ Codes(std::uint32_t stage, int lane, int step) {
    const std::uint32_t g = static_cast<std::uint32_t>(lane) / 4, c = static_cast<std::uint32_t>(lane) % 4;
    const std::uint32_t piece = 2 * static_cast<std::uint32_t>(step) + c / 2, row = stage + 2 * g * kLine + c % 2 * 8;
    low = loadPair(row + ((piece ^ 2 * g % 8) * 16));
    high = loadPair(row + kLine + ((piece ^ (2 * g + 1) % 8) * 16));
  }
};

/** Levels as they are; absmax multiplies the sums. */
struct Plain {
  __device__ __forceinline__ std::uint32_t operator()(std::uint32_t pair, int) const { return pair; }
};

/** Levels times absmax, rounded once, as bitsandbytes' dequantisation rounds them. Levels are half, whose 11 bits leave
 * that rounding the only one that counts. */
template <typename T>
struct Scaled {
  float absmax[2];  // of the two rows

  __device__ __forceinline__ std::uint32_t operator()(std::uint32_t pair, int row) const {
    const float2 levels = __half22float2(*reinterpret_cast<const __half2*>(&pair));
    return packPair<T>(levels.x * absmax[row], levels.y * absmax[row]);
  }
};

/** \param place  the table's beginning + 4·lane */
template <typename Scale>
__device__ __forceinline__ void decodeStep(const Codes& codes, std::uint32_t place, const Scale& scale, Fragments& a) {
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

}  // namespace fourbit_wgmma
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_FOURBIT_WGMMA_SM90_DECODE_CUH
