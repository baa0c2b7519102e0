// SPDX-License-Identifier: MPL-2.0
// Dot products of int8 codes, one struct per instruction set; as in simd.h, each exists only where the compiler may use
// that set, in an unnamed namespace.
//
// Codes are widened to 16 bits and multiplied in pairs (pmaddwd): a pair's sum is at most 2·2¹⁴, so nothing saturates,
// whatever the codes. vpmaddubsw would take twice the codes at once, but saturates at 2¹⁵.
#ifndef EIGENQ_CPU_INT8_SIMD_H
#define EIGENQ_CPU_INT8_SIMD_H

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace EigenQ {
namespace internal {
namespace {

#if defined(__AVX512F__) && defined(__AVX512BW__)

struct Int8Avx512 {
  using Words = __m512i;
  using Sums = __m512i;
  static constexpr int kStep = 32;            // codes of a load
  static constexpr int kRows = 4, kCols = 4;  // 16 sums + 4 + 1 of 32 registers

  static Sums zero() { return _mm512_setzero_si512(); }
  static Words load(const std::int8_t* codes) {
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes)));
  }
  static Sums multiplyAdd(Words a, Words b, Sums c) { return _mm512_add_epi32(c, _mm512_madd_epi16(a, b)); }
  static std::int32_t sum(Sums v) { return _mm512_reduce_add_epi32(v); }
};

#elif defined(__AVX2__)

struct Int8Avx2 {
  using Words = __m256i;
  using Sums = __m256i;
  static constexpr int kStep = 16;
  static constexpr int kRows = 2, kCols = 4;  // 8 sums + 4 + 1 of 16 registers

  static Sums zero() { return _mm256_setzero_si256(); }
  static Words load(const std::int8_t* codes) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes)));
  }
  static Sums multiplyAdd(Words a, Words b, Sums c) { return _mm256_add_epi32(c, _mm256_madd_epi16(a, b)); }
  static std::int32_t sum(Sums v) {
    const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    const __m128i two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 1)));
  }
};

#else

/** Plain loops that the compiler turns into what the baseline has. */
struct Int8Portable {
  struct Words {
    std::int16_t lane[8];
  };
  struct Sums {
    std::int32_t lane[4];
  };
  static constexpr int kStep = 8;
  static constexpr int kRows = 2, kCols = 2;

  static Sums zero() { return {{0, 0, 0, 0}}; }
  static Words load(const std::int8_t* codes) {
    Words w;
    for (int i = 0; i < kStep; ++i) w.lane[i] = codes[i];
    return w;
  }
  static Sums multiplyAdd(const Words& a, const Words& b, Sums c) {
    for (int i = 0; i < 4; ++i) c.lane[i] += a.lane[2 * i] * b.lane[2 * i] + a.lane[2 * i + 1] * b.lane[2 * i + 1];
    return c;
  }
  static std::int32_t sum(const Sums& v) { return v.lane[0] + v.lane[1] + v.lane[2] + v.lane[3]; }
};

#endif

}  // namespace
}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_INT8_SIMD_H
