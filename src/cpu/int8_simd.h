// SPDX-License-Identifier: MPL-2.0
// Dot products of int8 codes, one struct per instruction set; as in simd.h, each exists only where the compiler may use
// that set, in an unnamed namespace. All are exact for any codes, -128 included:
//
//   pmaddwd   codes are widened to 16 bits and multiplied in pairs: a pair's sum is at most 2·2¹⁴. vpmaddubsw takes
//   twice
//             the codes at once, but saturates at 2¹⁵.
//   pairs     (a₀ + b₁)(a₁ + b₀) = a₀b₀ + a₁b₁ + a₀a₁ + b₀b₁: Winograd's inner product has one multiplication for two
//             codes. The sums of a₀a₁ and b₀b₁ belong to a row of A or of B alone; 32 codes cost two vpaddw, one
//             vpmaddwd and one vpaddd, as many instructions as without, but two ports that multiply no longer hold four
//             that add. Zen 5, AVX2: 34 codes a clock in L1 where plain pmaddwd reaches 24 to 29, and saturating
//             vpmaddubsw 34.
//   vpdpbusd  multiplies unsigned by signed: b + 128 by a; 128·Σa is known before the first product.
//   sdot      is signed by signed, and vmull_s8 fits 16 bits by itself.
//
// Code is what A is prepared as, and B where it is copied into a panel; kStep of them are a Vec. Tiles are up to
// kBlockRows rows by kTileCols columns: their sums, the vectors of the columns and what a row takes fit the registers.
// Up to kStreamRows rows are one block where they are all there is, with a column less if need be. kDepth codes of a
// block of rows and of kPanelCols columns fit a first-level cache of 32 KiB.
#ifndef EIGENQ_CPU_INT8_SIMD_H
#define EIGENQ_CPU_INT8_SIMD_H

#include "int_vectors.h"

#if defined(__ARM_NEON)
#include <arm_neon.h>
#endif

namespace EigenQ {
namespace internal {
namespace {

/** What the sums hold beside the products. */
enum class Int8Correction {
  kNone,
  kOffset,  // 128·Σa of the row
  kPairs,   // Σ first·second of the row of A, and of that of B, where B is a panel
};

#if defined(__AVX2__)

/** The sums of four vectors' lanes, in order. */
inline __m128i sumLanes(__m256i a, __m256i b, __m256i c, __m256i d) {
  const __m256i ab = _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
  const __m256i cd = _mm256_add_epi32(_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
  const __m256i all = _mm256_add_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
  return _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
}

/** Sums in 256 bits. */
struct Int8Sums256 {
  using Sums = __m256i;
  static Sums zero() { return _mm256_setzero_si256(); }
  static EIGENQ_STRONG_INLINE void keep(Sums& v) { EIGENQ_IN_ORDER(v); }
  static void sumFour(Sums a, Sums b, Sums c, Sums d, std::int32_t* to) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), sumLanes(a, b, c, d));
  }
};

#endif

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)

/** Sums in 512 bits. */
struct Int8Sums512 {
  using Sums = __m512i;
  static Sums zero() { return _mm512_setzero_si512(); }
  static EIGENQ_STRONG_INLINE void keep(Sums& v) { EIGENQ_IN_ORDER(v); }
  static __m256i half(Sums v) { return _mm256_add_epi32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1)); }
  static void sumFour(Sums a, Sums b, Sums c, Sums d, std::int32_t* to) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), sumLanes(half(a), half(b), half(c), half(d)));
  }
};

#if defined(__AVX512VNNI__)

struct Int8Avx512Vnni : Int8Sums512 {
  using Code = std::int8_t;
  using Vec = __m512i;
  static constexpr int kStep = 64, kBlockRows = 6, kStreamRows = 8, kTileCols = 4, kPanelCols = 8, kDepth = 2048;
  static constexpr Int8Correction kCorrection = Int8Correction::kOffset;

  static Vec loadA(const Code* codes) { return _mm512_loadu_si512(codes); }
  static Vec loadB(const std::int8_t* codes) {
    return _mm512_xor_si512(_mm512_loadu_si512(codes), _mm512_set1_epi8(-128));
  }
  static void store(Code* to, Vec v) { _mm512_storeu_si512(to, v); }
  static Sums multiplyAdd(Vec a, Vec b, Sums c) { return _mm512_dpbusd_epi32(c, b, a); }
};

#else

struct Int8Avx512 : Int8Sums512 {
  using Code = std::int16_t;
  using Vec = __m512i;
  static constexpr int kStep = 32, kBlockRows = 6, kStreamRows = 8, kTileCols = 4, kPanelCols = 8, kDepth = 1024;
  static constexpr Int8Correction kCorrection = Int8Correction::kNone;

  static Vec loadA(const Code* codes) { return _mm512_loadu_si512(codes); }
  static Vec loadB(const std::int8_t* codes) {
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes)));
  }
  static void store(Code* to, Vec v) { _mm512_storeu_si512(to, v); }
  static Sums multiplyAdd(Vec a, Vec b, Sums c) { return _mm512_add_epi32(c, _mm512_madd_epi16(a, b)); }
};

#endif

#elif defined(__AVX2__) && defined(__AVXVNNI__)

struct Int8AvxVnni : Int8Sums256 {
  using Code = std::int8_t;
  using Vec = __m256i;
  static constexpr int kStep = 32, kBlockRows = 6, kStreamRows = 6, kTileCols = 2, kPanelCols = 8, kDepth = 2048;
  static constexpr Int8Correction kCorrection = Int8Correction::kOffset;

  static Vec loadA(const Code* codes) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes)); }
  static Vec loadB(const std::int8_t* codes) { return _mm256_xor_si256(loadA(codes), _mm256_set1_epi8(-128)); }
  static void store(Code* to, Vec v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), v); }
  static Sums multiplyAdd(Vec a, Vec b, Sums c) { return _mm256_dpbusd_avx_epi32(c, b, a); }
};

#elif defined(__AVX2__)

struct Int8Avx2 : Int8Sums256 {
  using Code = std::int16_t;
  /** 32 codes: pairs are (k, k + 16). */
  struct Vec {
    __m256i first, second;
  };
  static constexpr int kStep = 32, kBlockRows = 4, kStreamRows = 4, kTileCols = 2, kPanelCols = 8, kDepth = 1024;
  static constexpr Int8Correction kCorrection = Int8Correction::kPairs;

  using Int8Sums256::keep;
  static EIGENQ_STRONG_INLINE void keep(Vec& v) {
    EIGENQ_IN_ORDER(v.first);
    EIGENQ_IN_ORDER(v.second);
  }
  static Vec loadA(const Code* codes) {
    const auto* from = reinterpret_cast<const __m256i*>(codes);
    return {_mm256_loadu_si256(from), _mm256_loadu_si256(from + 1)};
  }
  static Vec loadB(const std::int8_t* codes) {
    const auto* from = reinterpret_cast<const __m128i*>(codes);
    return {_mm256_cvtepi8_epi16(_mm_loadu_si128(from)), _mm256_cvtepi8_epi16(_mm_loadu_si128(from + 1))};
  }
  static void store(Code* to, Vec v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), v.first);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 16), v.second);
  }
  static Sums multiplyAdd(Vec a, Vec b, Sums c) {
    c = _mm256_add_epi32(c, _mm256_madd_epi16(a.first, b.first));
    return _mm256_add_epi32(c, _mm256_madd_epi16(a.second, b.second));
  }
  static Sums multiplyAddPairs(Vec a, Vec b, Sums c) {
    const __m256i u = _mm256_add_epi16(a.first, b.second), v = _mm256_add_epi16(a.second, b.first);
    return _mm256_add_epi32(c, _mm256_madd_epi16(u, v));
  }
  /** c + Σ first·second. */
  static Sums addPairs(Vec v, Sums c) { return _mm256_add_epi32(c, _mm256_madd_epi16(v.first, v.second)); }
};

#endif

#if defined(__ARM_NEON)

/** Sums in four lanes. */
struct Int8SumsNeon {
  using Code = std::int8_t;
  using Vec = int8x16_t;
  using Sums = int32x4_t;
  static constexpr int kStep = 16, kBlockRows = 6, kStreamRows = 6, kTileCols = 4, kPanelCols = 8, kDepth = 2048;
  static constexpr Int8Correction kCorrection = Int8Correction::kNone;

  static Sums zero() { return vdupq_n_s32(0); }
  template <typename Any>
  static void keep(Any&) {}
  static Vec loadA(const Code* codes) { return vld1q_s8(codes); }
  static Vec loadB(const std::int8_t* codes) { return vld1q_s8(codes); }
  static void store(Code* to, Vec v) { vst1q_s8(to, v); }
  static void sumFour(Sums a, Sums b, Sums c, Sums d, std::int32_t* to) {
    vst1q_s32(to, vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d)));
  }
};

#if defined(__ARM_FEATURE_DOTPROD)

struct Int8NeonDot : Int8SumsNeon {
  static Sums multiplyAdd(Vec a, Vec b, Sums c) { return vdotq_s32(c, b, a); }
};

#else

struct Int8Neon : Int8SumsNeon {
  // One product a lane: the sum of two of -128·-128 would not fit.
  static Sums multiplyAdd(Vec a, Vec b, Sums c) {
    c = vpadalq_s16(c, vmull_s8(vget_low_s8(a), vget_low_s8(b)));
    return vpadalq_s16(c, vmull_high_s8(a, b));
  }
};

#endif

#endif

#if !defined(__AVX2__)

/** Plain loops that the compiler turns into what the baseline has. */
struct Int8Portable {
  using Code = std::int16_t;
  struct Vec {
    std::int16_t lane[8];
  };
  struct Sums {
    std::int32_t lane[4];
  };
  static constexpr int kStep = 8, kBlockRows = 4, kStreamRows = 4, kTileCols = 2, kPanelCols = 8, kDepth = 1024;
  static constexpr Int8Correction kCorrection = Int8Correction::kNone;

  static Sums zero() { return {{0, 0, 0, 0}}; }
  template <typename Any>
  static void keep(Any&) {}
  static Vec loadA(const Code* codes) {
    Vec v;
    std::memcpy(v.lane, codes, sizeof v.lane);
    return v;
  }
  static Vec loadB(const std::int8_t* codes) {
    Vec v;
    for (int i = 0; i < kStep; ++i) v.lane[i] = codes[i];
    return v;
  }
  static void store(Code* to, const Vec& v) { std::memcpy(to, v.lane, sizeof v.lane); }
  static Sums multiplyAdd(const Vec& a, const Vec& b, Sums c) {
    for (int i = 0; i < 4; ++i) c.lane[i] += a.lane[2 * i] * b.lane[2 * i] + a.lane[2 * i + 1] * b.lane[2 * i + 1];
    return c;
  }
  static void sumFour(Sums a, Sums b, Sums c, Sums d, std::int32_t* to) {
    const auto sum = [](const Sums& v) { return v.lane[0] + v.lane[1] + v.lane[2] + v.lane[3]; };
    to[0] = sum(a), to[1] = sum(b), to[2] = sum(c), to[3] = sum(d);
  }
};

#endif

}  // namespace
}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_INT8_SIMD_H
