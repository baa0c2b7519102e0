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

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace EigenQ {
namespace internal {
namespace {

constexpr Index kGroup = kMinBlockSize;

#if defined(__AVX512F__)

/** 32 quotients to 16 bytes. */
struct NF4Search {
  using Vec = __m512;
  static constexpr int kLanes = 16;

  static EIGENQ_STRONG_INLINE Vec normalizedLanes(const float* values, float reciprocal) {
    const __m512 v = _mm512_loadu_ps(values);
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
  static EIGENQ_STRONG_INLINE void encodeGroup(const float* values, float reciprocal, std::uint8_t* packed) {
    const __m128i low = _mm512_cvtepi32_epi8(search(normalizedLanes(values, reciprocal)));
    const __m128i high = _mm512_cvtepi32_epi8(search(normalizedLanes(values + 16, reciprocal)));
    const __m128i weights = _mm_set1_epi16(0x0110);  // the first code of a pair is the high nibble
    const __m128i pairs = _mm_packus_epi16(_mm_maddubs_epi16(low, weights), _mm_maddubs_epi16(high, weights));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(packed), pairs);
  }
};

#elif defined(__AVX2__)

struct NF4Search {
  using Vec = __m256;

  static EIGENQ_STRONG_INLINE Vec normalizedLanes(const float* values, float reciprocal) {
    const __m256 v = _mm256_loadu_ps(values);
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
  static EIGENQ_STRONG_INLINE void encodeGroup(const float* values, float reciprocal, std::uint8_t* packed) {
    const auto codes = [&](int i) { return search(normalizedLanes(values + 8 * i, reciprocal)); };
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

struct NF4Search {
  static EIGENQ_STRONG_INLINE void encodeGroup(const float* values, float reciprocal, std::uint8_t* packed) {
    std::uint8_t codes[kGroup];
    for (Index j = 0; j < kGroup; ++j) codes[j] = encodeNF4(normalized(values[j], reciprocal));
    for (Index j = 0; j < kGroup / 2; ++j) packed[j] = packPair(codes[2 * j], codes[2 * j + 1]);
  }
};

#endif

struct FP4Search {
  static EIGENQ_STRONG_INLINE void encodeGroup(const float* values, float reciprocal, std::uint8_t* packed) {
    std::uint8_t codes[kGroup];
    for (Index j = 0; j < kGroup; ++j) codes[j] = encodeFP4(normalized(values[j], reciprocal));
    for (Index j = 0; j < kGroup / 2; ++j) packed[j] = packPair(codes[2 * j], codes[2 * j + 1]);
  }
};

EIGENQ_STRONG_INLINE std::int32_t larger(std::int32_t a, std::int32_t b) { return a > b ? a : b; }

float absmaxOf(const float* values, Index count) {
  std::int32_t largest = 0;
  for (Index i = 0; i < count; ++i) largest = larger(largest, magnitudeBits(values[i]));
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

bool holdsNaN(const float* values, Index count) {
  std::int32_t largest = 0;
  for (Index i = 0; i < count; ++i) {
    largest = larger(largest, static_cast<std::int32_t>(bitsOf(values[i]) & ~kFloatSign));
  }
  return largest > static_cast<std::int32_t>(kFloatInfinity);
}

void encodeInt8Values(const float* __restrict values, Index count, float scale, std::int8_t* __restrict codes) {
  for (Index i = 0; i < count; ++i) codes[i] = encodeInt8(values[i], scale);
}

template <typename Search>
EIGENQ_STRONG_INLINE void encodeFourBitAs(const float* values, Index count, float reciprocal, std::uint8_t* packed) {
  Index i = 0;
  for (; i + kGroup <= count; i += kGroup) Search::encodeGroup(values + i, reciprocal, packed + i / 2);
  if (i == count) return;
  float group[kGroup] = {};  // zeros fill the last nibble of an odd count
  for (Index j = i; j < count; ++j) group[j - i] = values[j];
  std::uint8_t bytes[kGroup / 2];
  Search::encodeGroup(group, reciprocal, bytes);
  for (Index j = 0; j < packedSize(count - i); ++j) packed[i / 2 + j] = bytes[j];
}

void encodeFourBitValues(FourBitType type, const float* values, Index count, float reciprocal, std::uint8_t* packed) {
  if (type == FourBitType::kNF4) {
    encodeFourBitAs<NF4Search>(values, count, reciprocal, packed);
  } else {
    encodeFourBitAs<FP4Search>(values, count, reciprocal, packed);
  }
}

void encodeByteValues(const float* __restrict values, Index count, float reciprocal, const float* __restrict thresholds,
                      std::uint8_t* __restrict codes) {
  for (Index i = 0; i < count; ++i) codes[i] = encodeByte(normalized(values[i], reciprocal), thresholds);
}

void toFloatValues(ScalarType scalar, const void* values, Index count, float* __restrict out) {
  const auto convert = [=](auto storage, auto toFloat) {
    const auto* const from = static_cast<const decltype(storage)*>(values);
    for (Index i = 0; i < count; ++i) out[i] = toFloat(from[i]);
  };
  switch (scalar) {
    case ScalarType::kHalf:
      return convert(std::uint16_t{}, [](std::uint16_t v) { return halfToFloat(v); });
    case ScalarType::kBFloat16:
      return convert(std::uint16_t{}, [](std::uint16_t v) { return bfloat16ToFloat(v); });
    case ScalarType::kDouble:
      return convert(double{}, [](double v) { return static_cast<float>(v); });
    case ScalarType::kFloat:
      break;
  }
  convert(float{}, [](float v) { return v; });
}

constexpr ConvertKernels kKernels = {absmaxOf,         absmaxBelow,  holdsNaN, encodeInt8Values, encodeFourBitValues,
                                     encodeByteValues, toFloatValues};

}  // namespace
}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_FORMATS_CONVERT_KERNELS_H
