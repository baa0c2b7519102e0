// SPDX-License-Identifier: MPL-2.0
// quantize_blocks.cu: NF4 and FP4 codes of blocks; the walk over blocks is in quantize_blocks.cuh.
//
//   value·(1/absmax) → key → y = 16·key + 17, rounded → bits 8…13 of y │ lane → {threshold, rank} → rank + (key >
//   threshold)
//
// Shared  34 bins × 32 lanes × 8 B = 8.5 KB: a copy of the bins for each lane, so that no two lanes meet in a bank and
// a
//         lookup costs two wavefronts whatever the data.
// Work    NF4 a value: multiply, clamp, fma, mask, load, compare, shift in, add: 8 instructions instead of the 15
//         comparisons that define the code. FP4: the sign costs two more, and the flush of subnormals two.
#include "four_bit_bins.h"
#include "quantize_blocks.cuh"
#include "quantizers.h"

#include <cassert>
#include <type_traits>

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

struct LaneBins {
  uint2 entry[kFourBitBins * 32];  // (bin, lane): bits of the threshold, rank
};
static_assert(sizeof(uint2) * 32 == 1 << kBinShift, "the masked bits of y are the byte offset of a bin");

/** What NF4 and FP4 differ in. */
struct NF4Rule {
  static constexpr FourBitType kType = FourBitType::kNF4;

  /** A NaN takes the lowest code, 0, as encodeNF4 has it. */
  static __device__ __forceinline__ float key(float quotient) { return fmaxf(quotient, -1.0f); }
  static __device__ __forceinline__ std::uint32_t sign(float) { return 0; }
  static __device__ __forceinline__ std::uint32_t codes(std::uint32_t ranks) { return ranks; }

  /** 2⁻¹²⁶/absmax stays below the threshold next to zero, 2⁻⁵: a subnormal value takes the code of zero by itself. */
  template <typename T>
  static __device__ __forceinline__ bool needsFlush(float absmax) {
    return absmax < 0x1p-120f;
  }
};

struct FP4Rule {
  static constexpr FourBitType kType = FourBitType::kFP4;

  static __device__ __forceinline__ float key(float quotient) { return fmaxf(fabsf(quotient), 0.0f); }  // 0 for NaN
  static __device__ __forceinline__ std::uint32_t sign(float quotient) { return quotient <= -FLT_MIN ? 8 : 0; }
  /** Of eight ranks at once: FP4Codec.h does it with one. */
  static __device__ __forceinline__ std::uint32_t codes(std::uint32_t ranks) {
    return ranks ^ (ranks & 0x22222222u) << 1;
  }
  /** The sign of a subnormal value must not show. */
  template <typename T>
  static __device__ __forceinline__ bool needsFlush(float) {
    return true;
  }
};

template <typename Rule>
struct FourBitEncoder {
  using Shared = LaneBins;
  static constexpr int kBytes = 4;

  FourBitBins bins;

  __device__ __forceinline__ void fill(LaneBins& shared) const {
    for (int i = static_cast<int>(threadIdx.x); i < kFourBitBins * 32; i += kQuantizeThreads)
      shared.entry[i] = make_uint2(__float_as_uint(bins.threshold[i / 32]), bins.rank[i / 32]);
    __syncthreads();
  }

  template <typename T>
  __device__ __forceinline__ void prepare(const EightValues<T>&, Index) const {}

  template <typename T>
  static __device__ __forceinline__ bool needsFlush(float absmax) {
    if constexpr (std::is_same_v<T, __half>) return false;  // every half is a normal float, or zero
    return Rule::template needsFlush<T>(absmax);
  }

  __device__ __forceinline__ std::uint32_t encode(const LaneBins& shared, const float (&f)[kEight],
                                                  float reciprocal) const {
    const std::uint32_t lane = threadIdx.x % 32 * sizeof(uint2);
    std::uint32_t ranks = 0;  // the first value in the highest nibble
#pragma unroll
    for (int k = 0; k < kEight; ++k) {
      const float quotient = f[k] * reciprocal, key = Rule::key(quotient);
      const std::uint32_t offset = (__float_as_uint(fmaf(key, kBinScale, kBinOffset)) & kBinMask) | lane;
      const uint2 bin = *reinterpret_cast<const uint2*>(reinterpret_cast<const char*>(shared.entry) + offset);
      ranks = ranks * 16 + bin.y;
      if (key > __uint_as_float(bin.x)) ranks += 1;
      ranks += Rule::sign(quotient);
    }
    return __byte_perm(Rule::codes(ranks), 0, 0x0123);  // to memory order: the first pair in the lowest byte
  }
};

}  // namespace

void quantizeFourBit(const ConstDenseView& a, FourBitType type, Index blockSize, std::uint8_t* packed, float* absmax,
                     Context& context) {
  assert(EigenQ::internal::isBlockSize(blockSize));
  if (type == FourBitType::kNF4) {
    quantizeView(a, FourBitEncoder<NF4Rule>{fourBitBins(NF4Rule::kType)}, blockSize, packed, absmax, context);
  } else {
    quantizeView(a, FourBitEncoder<FP4Rule>{fourBitBins(FP4Rule::kType)}, blockSize, packed, absmax, context);
  }
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
