// SPDX-License-Identifier: MPL-2.0
// quantize_blocks.cu: NF4 and FP4 codes of blocks; the walk over blocks is in quantize_blocks.cuh.
//
//   value·(1/absmax) → key → y = 16·key + 17, rounded → bits 8…13 of y │ lane → {threshold, rank}
//                       └──────────────────────────────────────── code = rank + (key > threshold)
//
// Shared  64 bins × 32 lanes × 8 B = 16 KB: a copy of the bins for each lane, so that no two lanes meet in a bank and a
//         lookup costs two wavefronts whatever the data. The last bin takes the NaN of blocks of zeros and infinities.
// Work    NF4 a value: unpack, multiply, fma, mask, load, shift in, compare, add: 8 instructions instead of the 15
//         comparisons that define the code, 11 with all else, where 17 fit in the time of the traffic. FP4: the sign
//         costs two more, and the flush of subnormals two.
#include "four_bit_bins.h"
#include "quantize_blocks.cuh"
#include "quantizers.h"

#include <math_constants.h>

#include <cassert>
#include <type_traits>

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

constexpr int kNaNBin = kBinMask >> kBinShift;  // whose bits are all ones
static_assert(kNaNBin >= kFourBitBins, "no key but NaN comes there");

struct LaneBins {
  uint2 entry[(kNaNBin + 1) * 32];  // (bin, lane): bits of the threshold, rank
};
static_assert(sizeof(uint2) * 32 == 1 << kBinShift, "the masked bits of y are the byte offset of a bin");

/** What NF4 and FP4 differ in. */
struct NF4Rule {
  static constexpr FourBitType kType = FourBitType::kNF4;
  /** 2⁻¹²⁶/absmax stays below the threshold next to zero, 2⁻⁵: a subnormal value takes the code of zero by itself. */
  static constexpr Flush kFlush = Flush::kSmallBlocks;

  static __device__ __forceinline__ float key(float quotient) { return quotient; }
  static __device__ __forceinline__ std::uint32_t sign(float) { return 0; }
  static __device__ __forceinline__ std::uint32_t codes(std::uint32_t ranks) { return ranks; }
};

struct FP4Rule {
  static constexpr FourBitType kType = FourBitType::kFP4;
  /** The sign of a subnormal value must not show. */
  static constexpr Flush kFlush = Flush::kEverywhere;

  static __device__ __forceinline__ float key(float quotient) { return fabsf(quotient); }
  static __device__ __forceinline__ std::uint32_t sign(float quotient) { return quotient <= -FLT_MIN ? 8 : 0; }
  /** Of eight ranks at once: FP4Codec.h does it with one. */
  static __device__ __forceinline__ std::uint32_t codes(std::uint32_t ranks) {
    return ranks ^ (ranks & 0x22222222u) << 1;
  }
};

/** count += a > b, in two instructions: the compiler takes four. */
__device__ __forceinline__ void addIfGreater(std::uint32_t& count, float a, float b) {
  asm("{\n.reg .pred p;\nsetp.gt.f32 p, %1, %2;\n@p add.u32 %0, %0, 1;\n}" : "+r"(count) : "f"(a), "f"(b));
}

template <typename Rule>
struct FourBitEncoder {
  using Shared = LaneBins;
  static constexpr int kBytes = 4;

  FourBitBins bins;

  /** A NaN takes rank 0 in both codecs. */
  __device__ __forceinline__ void fill(LaneBins& shared) const {
    for (int i = static_cast<int>(threadIdx.x); i < kFourBitBins * 32; i += kQuantizeThreads)
      shared.entry[i] = make_uint2(__float_as_uint(bins.threshold[i / 32]), bins.rank[i / 32]);
    if (threadIdx.x < 32) shared.entry[kNaNBin * 32 + threadIdx.x] = make_uint2(__float_as_uint(CUDART_INF_F), 0);
  }
  __device__ __forceinline__ void join(LaneBins&) const { __syncthreads(); }

  template <typename T>
  __device__ __forceinline__ void prepare(const LaneBins&, const EightValues<T>&, Index) const {}

  /** Every half is a normal float, or zero. */
  template <typename T>
  static constexpr Flush kFlush = std::is_same_v<T, __half> ? Flush::kNever : Rule::kFlush;

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
      addIfGreater(ranks, key, __uint_as_float(bin.x));
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
