// SPDX-License-Identifier: MPL-2.0
// convert_kernels.h: the loops of convert.h for the instruction set of the file that includes this.
//
//   values of a block ─ max of |v| as bits ─▶ absmax        one pass from memory
//                     ─ v·(1/absmax), search, pack ─▶ codes  one pass from L1
//
// Traffic  4 B in and half a byte (NF4, FP4) or a byte out for each value.
// Work     NF4: a binary search of 15 thresholds by lookups in registers: 4 comparisons and 3 permutations for a
// vector,
//          where comparing with each threshold takes 15 comparisons and 15 subtractions.
// Shape    all else are plain loops of a constant count, which the compiler vectorises at any -O level. Unnamed
//          namespace and always inlined functions only: nothing here may be merged by the linker with the code of
//          another instruction set.
#ifndef EIGENQ_FORMATS_CONVERT_KERNELS_H
#define EIGENQ_FORMATS_CONVERT_KERNELS_H

#include <eigen_q/src/BlockScale.h>
#include <eigen_q/src/DynamicMap.h>
#include <eigen_q/src/FourBitCodec.h>
#include <eigen_q/src/Int8Codec.h>
#include <eigen_q/src/ScalarConvert.h>

#include "convert.h"

#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace EigenQ {
namespace internal {
namespace {

constexpr Index kGroup = kMinBlockSize;

/** NF4 takes what is flushed and all else below 1/64 of the absmax for the same code: with a reciprocal of up to this,
 * nothing needs to be flushed. */
struct NF4Flush {
  static constexpr float kNeverFlushes = 1 / (64 * FLT_MIN);
};

#if defined(__AVX512F__)

/** 32 quotients to 16 bytes. */
struct NF4Search : NF4Flush {
  using Vec = __m512;
  static constexpr int kLanes = 16;

  template <bool Flush>
  static EIGENQ_STRONG_INLINE Vec normalizedLanes(const float* values, float reciprocal) {
    const __m512 v = _mm512_loadu_ps(values);
    if (!Flush) return _mm512_mul_ps(v, _mm512_set1_ps(reciprocal));
    const __mmask16 normal = _mm512_cmp_ps_mask(_mm512_abs_ps(v), _mm512_set1_ps(FLT_MIN), _CMP_NLT_UQ);
    return _mm512_mul_ps(_mm512_maskz_mov_ps(normal, v), _mm512_set1_ps(reciprocal));
  }
  /** 2·index + (v > table[index]); the tables repeat, so that only the low bits of an index count. */
  static EIGENQ_STRONG_INLINE __m512i step(Vec v, __m512i index, Vec table) {
    const __mmask16 above = _mm512_cmp_ps_mask(v, _mm512_permutexvar_ps(index, table), _CMP_GT_OQ);
    const __m512i twice = _mm512_add_epi32(index, index);
    return _mm512_mask_add_epi32(twice, above, twice, _mm512_set1_epi32(1));
  }
  static EIGENQ_STRONG_INLINE __m512i search(Vec v) {
    constexpr NF4Thresholds t = nf4Thresholds();
    const auto four = [&](int a, int b, int c, int d) {
      return _mm512_broadcast_f32x4(_mm_setr_ps(t.at[a], t.at[b], t.at[c], t.at[d]));
    };
    const __m512 all = _mm512_broadcast_f32x8(
        _mm256_setr_ps(t.at[0], t.at[2], t.at[4], t.at[6], t.at[8], t.at[10], t.at[12], t.at[14]));
    __m512i index = step(v, _mm512_setzero_si512(), _mm512_set1_ps(t.at[7]));
    index = step(v, index, four(3, 11, 3, 11));
    index = step(v, index, four(1, 5, 9, 13));
    return step(v, index, all);
  }
  template <bool Flush>
  static EIGENQ_STRONG_INLINE void encodeGroup(const float* values, float reciprocal, std::uint8_t* packed) {
    const __m128i low = _mm512_cvtepi32_epi8(search(normalizedLanes<Flush>(values, reciprocal)));
    const __m128i high = _mm512_cvtepi32_epi8(search(normalizedLanes<Flush>(values + 16, reciprocal)));
    const __m128i weights = _mm_set1_epi16(0x0110);  // the first code of a pair is the high nibble
    const __m128i pairs = _mm_packus_epi16(_mm_maddubs_epi16(low, weights), _mm_maddubs_epi16(high, weights));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(packed), pairs);
  }
};

#elif defined(__AVX2__)

struct NF4Search : NF4Flush {
  using Vec = __m256;

  template <bool Flush>
  static EIGENQ_STRONG_INLINE Vec normalizedLanes(const float* values, float reciprocal) {
    const __m256 v = _mm256_loadu_ps(values);
    if (!Flush) return _mm256_mul_ps(v, _mm256_set1_ps(reciprocal));
    const __m256 magnitude = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v);
    const __m256 normal = _mm256_cmp_ps(magnitude, _mm256_set1_ps(FLT_MIN), _CMP_NLT_UQ);
    return _mm256_mul_ps(_mm256_and_ps(normal, v), _mm256_set1_ps(reciprocal));
  }
  /** 2·index + (v > threshold). */
  static EIGENQ_STRONG_INLINE __m256i step(Vec v, __m256i index, Vec threshold) {
    const __m256i above = _mm256_castps_si256(_mm256_cmp_ps(v, threshold, _CMP_GT_OQ));
    return _mm256_sub_epi32(_mm256_add_epi32(index, index), above);
  }
  static EIGENQ_STRONG_INLINE __m256i search(Vec v) {
    constexpr NF4Thresholds t = nf4Thresholds();
    const __m256 four = _mm256_setr_ps(t.at[1], t.at[5], t.at[9], t.at[13], 0, 0, 0, 0);
    const __m256 eight = _mm256_setr_ps(t.at[0], t.at[2], t.at[4], t.at[6], t.at[8], t.at[10], t.at[12], t.at[14]);
    const __m256 upper = _mm256_cmp_ps(v, _mm256_set1_ps(t.at[7]), _CMP_GT_OQ);
    __m256i index = _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_castps_si256(upper));
    index = step(v, index, _mm256_blendv_ps(_mm256_set1_ps(t.at[3]), _mm256_set1_ps(t.at[11]), upper));
    index = step(v, index, _mm256_permutevar8x32_ps(four, index));
    return step(v, index, _mm256_permutevar8x32_ps(eight, index));
  }
  template <bool Flush>
  static EIGENQ_STRONG_INLINE void encodeGroup(const float* values, float reciprocal, std::uint8_t* packed) {
    const auto codes = [&](int i) { return search(normalizedLanes<Flush>(values + 8 * i, reciprocal)); };
    // Packing keeps to the halves of a register: 16 bits 0-3 8-11 4-7 12-15, pairs in the same order, then put right.
    const __m256i words01 = _mm256_packs_epi32(codes(0), codes(1)), words23 = _mm256_packs_epi32(codes(2), codes(3));
    const __m256i bytes = _mm256_packus_epi16(words01, words23);
    const __m256i pairs = _mm256_maddubs_epi16(bytes, _mm256_set1_epi16(0x0110));  // the first code is the high nibble
    const __m256i twice = _mm256_packus_epi16(pairs, pairs);
    // 2 bytes each of values 0-3 8-11 16-19 24-27, and in the other half of 4-7 12-15 20-23 28-31.
    const __m128i even = _mm256_castsi256_si128(twice), odd = _mm256_extracti128_si256(twice, 1);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(packed), _mm_unpacklo_epi16(even, odd));
  }
};

#else

struct NF4Search : NF4Flush {
  template <bool Flush>
  static EIGENQ_STRONG_INLINE void encodeGroup(const float* values, float reciprocal, std::uint8_t* packed) {
    std::uint8_t codes[kGroup];
    for (Index j = 0; j < kGroup; ++j) codes[j] = encodeNF4(normalized(values[j], reciprocal));
    for (Index j = 0; j < kGroup / 2; ++j) packed[j] = packPair(codes[2 * j], codes[2 * j + 1]);
  }
};

#endif

struct FP4Search {
  static constexpr float kNeverFlushes = -1;  // the sign of what is flushed is lost
  template <bool>
  static EIGENQ_STRONG_INLINE void encodeGroup(const float* values, float reciprocal, std::uint8_t* packed) {
    std::uint8_t codes[kGroup];
    for (Index j = 0; j < kGroup; ++j) codes[j] = encodeFP4(normalized(values[j], reciprocal));
    for (Index j = 0; j < kGroup / 2; ++j) packed[j] = packPair(codes[2 * j], codes[2 * j + 1]);
  }
};

EIGENQ_STRONG_INLINE std::int32_t larger(std::int32_t a, std::int32_t b) { return a > b ? a : b; }

/** |v| as its bits: NaN lies above infinity. */
EIGENQ_STRONG_INLINE std::int32_t plainBits(float v) { return static_cast<std::int32_t>(bitsOf(v) & ~kFloatSign); }

constexpr std::int32_t kInfinityBits = 0x7f800000, kSmallestNormalBits = 0x00800000;

EIGENQ_STRONG_INLINE std::int32_t largestPlainBits(const float* values, Index count) {
  std::int32_t largest = 0;
  for (Index i = 0; i < count; ++i) largest = larger(largest, plainBits(values[i]));
  return largest;
}

float absmaxOf(const float* values, Index count) {
  std::int32_t largest = largestPlainBits(values, count);
  if (largest < kSmallestNormalBits) return 0;
  if (largest > kInfinityBits) {  // a NaN hides what counts
    largest = 0;
    for (Index i = 0; i < count; ++i) largest = larger(largest, magnitudeBits(values[i]));
  }
  return floatOf(static_cast<std::uint32_t>(largest));
}

float absmaxBelow(const float* values, Index count, float threshold) {
  std::int32_t largest = 0;
  const auto limit = static_cast<std::int32_t>(bitsOf(threshold));  // positive: orders as its bits
  for (Index i = 0; i < count; ++i) {
    const std::int32_t bits = magnitudeBits(values[i]);
    largest = larger(largest, bits < limit ? bits : 0);
  }
  return floatOf(static_cast<std::uint32_t>(largest));
}

bool holdsNonFinite(const float* values, Index count) { return largestPlainBits(values, count) >= kInfinityBits; }

bool holdsNaN(const float* values, Index count) { return largestPlainBits(values, count) > kInfinityBits; }

void encodeInt8Values(const float* __restrict values, Index count, float scale, std::int8_t* __restrict codes) {
  for (Index i = 0; i < count; ++i) codes[i] = encodeInt8(values[i], scale);
}

template <typename Search, bool Flush>
EIGENQ_STRONG_INLINE void encodeFourBitBlock(const float* values, Index count, float reciprocal, std::uint8_t* packed) {
  Index i = 0;
  for (; i + kGroup <= count; i += kGroup) {
    Search::template encodeGroup<Flush>(values + i, reciprocal, packed + i / 2);
  }
  if (i == count) return;
  float group[kGroup] = {};  // zeros fill the last nibble of an odd count
  for (Index j = i; j < count; ++j) group[j - i] = values[j];
  std::uint8_t bytes[kGroup / 2];
  Search::template encodeGroup<Flush>(group, reciprocal, bytes);
  for (Index j = 0; j < packedSize(count - i); ++j) packed[i / 2 + j] = bytes[j];
}

/** Statistics come some blocks before their codes, or else each block would wait for its own maximum and quotient. */
template <typename Search>
EIGENQ_STRONG_INLINE void quantizeFourBitAs(const float* values, Index count, Index blockSize, std::uint8_t* packed,
                                            float* absmax) {
  constexpr Index kAhead = 8;
  const Index chunk = kAhead * blockSize;
  for (Index begin = 0; begin < count; begin += chunk) {
    const Index end = chunk < count - begin ? begin + chunk : count;
    float* const largest = absmax + begin / blockSize;
    for (Index i = begin, b = 0; i < end; i += blockSize, ++b) {
      largest[b] = absmaxOf(values + i, blockSize < end - i ? blockSize : end - i);
    }
    for (Index i = begin, b = 0; i < end; i += blockSize, ++b) {
      const Index size = blockSize < end - i ? blockSize : end - i;
      const float reciprocal = blockReciprocal(largest[b]);
      if (reciprocal <= Search::kNeverFlushes) {
        encodeFourBitBlock<Search, false>(values + i, size, reciprocal, packed + i / 2);
      } else {
        encodeFourBitBlock<Search, true>(values + i, size, reciprocal, packed + i / 2);
      }
    }
  }
}

void quantizeFourBitValues(FourBitType type, const float* values, Index count, Index blockSize, std::uint8_t* packed,
                           float* absmax) {
  if (type == FourBitType::kNF4) {
    quantizeFourBitAs<NF4Search>(values, count, blockSize, packed, absmax);
  } else {
    quantizeFourBitAs<FP4Search>(values, count, blockSize, packed, absmax);
  }
}

void quantizeByteValues(const float* values, Index count, Index blockSize, const float* __restrict thresholds,
                        std::uint8_t* codes, float* absmax) {
  for (Index i = 0; i < count; i += blockSize) {
    const Index size = blockSize < count - i ? blockSize : count - i;
    const float largest = *absmax++ = absmaxOf(values + i, size);
    const float reciprocal = blockReciprocal(largest);
    const float* __restrict const from = values + i;
    std::uint8_t* __restrict const to = codes + i;
    for (Index j = 0; j < size; ++j) to[j] = encodeByte(normalized(from[j], reciprocal), thresholds);
  }
}

#if defined(__AVX512F__)

EIGENQ_STRONG_INLINE void decodeFourBitGroup(const std::uint8_t* packed, __m512 table, __m512 scale, float* out) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(packed));
  const __m512i twice = _mm512_cvtepu8_epi32(_mm_unpacklo_epi8(bytes, bytes));
  const __m512i codes = _mm512_srlv_epi32(twice, _mm512_set1_epi64(4));  // 4, 0, 4, 0, …: high nibble first
  _mm512_storeu_ps(out, _mm512_mul_ps(_mm512_permutexvar_ps(codes, table), scale));  // reads the low four bits only
}

EIGENQ_STRONG_INLINE Index decodeFourBitGroups(const std::uint8_t* packed, Index count, const float* table16,
                                               float scale, float* out) {
  const __m512 table = _mm512_loadu_ps(table16), scales = _mm512_set1_ps(scale);
  Index i = 0;
  for (; i + 16 <= count; i += 16) decodeFourBitGroup(packed + i / 2, table, scales, out + i);
  return i;
}

#elif defined(__AVX2__)

/** The scaled table lies in two registers; bit 3 of a code chooses between their lanes. Scaling sixteen levels before
 * the lookups gives the same products as scaling after them. */
EIGENQ_STRONG_INLINE Index decodeFourBitGroups(const std::uint8_t* packed, Index count, const float* table16,
                                               float scale, float* out) {
  const __m256 scales = _mm256_set1_ps(scale);
  const __m256 low = _mm256_mul_ps(_mm256_loadu_ps(table16), scales);
  const __m256 high = _mm256_mul_ps(_mm256_loadu_ps(table16 + 8), scales);
  Index i = 0;
  for (; i + 8 <= count; i += 8) {
    std::int32_t four;
    std::memcpy(&four, packed + i / 2, 4);
    const __m256i all = _mm256_set1_epi32(four);
    // Code j of the eight stands at bits 4, 0, 12, 8, …: a lookup reads the low three, the sign takes the fourth.
    const __m256i codes = _mm256_srlv_epi32(all, _mm256_setr_epi32(4, 0, 12, 8, 20, 16, 28, 24));
    const __m256 chooses = _mm256_castsi256_ps(_mm256_slli_epi32(codes, 28));
    const __m256 lower = _mm256_permutevar8x32_ps(low, codes), upper = _mm256_permutevar8x32_ps(high, codes);
    _mm256_storeu_ps(out + i, _mm256_blendv_ps(lower, upper, chooses));
  }
  return i;
}

#else

EIGENQ_STRONG_INLINE Index decodeFourBitGroups(const std::uint8_t*, Index, const float*, float, float*) { return 0; }

#endif

void decodeFourBitValues(const std::uint8_t* packed, Index count, const float* table16, float scale, float* out) {
  for (Index i = decodeFourBitGroups(packed, count, table16, scale, out); i < count; i += 2) {
    out[i] = table16[packed[i / 2] >> 4] * scale;
    if (i + 1 < count) out[i + 1] = table16[packed[i / 2] & 15] * scale;
  }
}

void decodeByteValues(const std::uint8_t* __restrict codes, Index count, const float* __restrict table256, float scale,
                      float* __restrict out) {
  for (Index i = 0; i < count; ++i) out[i] = table256[codes[i]] * scale;
}

void decodeInt8Values(const std::int8_t* __restrict codes, Index count, float absmax, float* __restrict out) {
  const Int8Factors factors(absmax);
  const float first = factors.first, second = factors.second;
  for (Index i = 0; i < count; ++i) out[i] = static_cast<float>(codes[i]) * first * second;
}

void fromFloatValues(const float* __restrict values, Index count, ScalarType scalar, void* out) {
  const auto convert = [=](auto* __restrict to, auto fromFloat) {
    for (Index i = 0; i < count; ++i) to[i] = fromFloat(values[i]);
  };
  switch (scalar) {
    case ScalarType::kHalf: {
      auto* const to = static_cast<std::uint16_t*>(out);
      Index i = 0;
#if defined(__AVX2__)
      for (; i + 8 <= count; i += 8) {
        const __m128i halves = _mm256_cvtps_ph(_mm256_loadu_ps(values + i), _MM_FROUND_TO_NEAREST_INT);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i), halves);
      }
#endif
      for (; i < count; ++i) to[i] = floatToHalf(values[i]);
      return;
    }
    case ScalarType::kBFloat16:
      return convert(static_cast<std::uint16_t*>(out), [](float v) { return floatToBFloat16(v); });
    case ScalarType::kDouble:
      return convert(static_cast<double*>(out), [](float v) { return static_cast<double>(v); });
    case ScalarType::kFloat:
      break;
  }
  convert(static_cast<float*>(out), [](float v) { return v; });
}

void toFloatValues(ScalarType scalar, const void* values, Index count, float* __restrict out) {
  const auto convert = [=](auto storage, auto toFloat) {
    const auto* const from = static_cast<const decltype(storage)*>(values);
    for (Index i = 0; i < count; ++i) out[i] = toFloat(from[i]);
  };
  switch (scalar) {
    case ScalarType::kHalf: {
      const auto* const from = static_cast<const std::uint16_t*>(values);
      Index i = 0;
#if defined(__AVX2__)
      for (; i + 8 <= count; i += 8) {
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i))));
      }
#endif
      for (; i < count; ++i) out[i] = halfToFloat(from[i]);
      return;
    }
    case ScalarType::kBFloat16:
      return convert(std::uint16_t{}, [](std::uint16_t v) { return bfloat16ToFloat(v); });
    case ScalarType::kDouble:
      return convert(double{}, [](double v) { return static_cast<float>(v); });
    case ScalarType::kFloat:
      break;
  }
  convert(float{}, [](float v) { return v; });
}

constexpr ConvertKernels kKernels = {absmaxOf,         absmaxBelow,           holdsNonFinite,     holdsNaN,
                                     encodeInt8Values, quantizeFourBitValues, quantizeByteValues, decodeFourBitValues,
                                     decodeByteValues, decodeInt8Values,      toFloatValues,      fromFloatValues};

}  // namespace
}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_FORMATS_CONVERT_KERNELS_H
