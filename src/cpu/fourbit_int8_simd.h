// SPDX-License-Identifier: MPL-2.0
// 4-bit codes times int8 activations, one struct per instruction set; as in simd.h, each exists only where the compiler
// may use that set, in an unnamed namespace. Lanes are outputs, and a lane sums four products at once:
//
//   vpmaddubsw, vpmaddwd, vpaddd   W unsigned by X signed. The first adds two products in 16 bits: |u₀x₀ + u₁x₁| ≤
//                                  2·152·107 < 2¹⁵, so that levels take 7 bits and X has 107 steps, and nothing
//                                  saturates.
//   vpdpbusd                       four products in 32 bits: levels in 8 bits, 127 steps.
//
// A level is q/count, |q| ≤ kOffset, and its code's byte u = q + kOffset. The counts were searched for the least error
// of NF4's levels, weighted as normal values choose them, and of FP4's. Root of the mean square over that of the
// levels: 6.3e-3 with 7 bits (c = 76.28: less than with 63 steps for W and 127 for X, 9.5e-3), 4.7e-3 with 8.
#ifndef EIGENQ_CPU_FOURBIT_INT8_SIMD_H
#define EIGENQ_CPU_FOURBIT_INT8_SIMD_H

#include "dword_transpose.h"

#include <cstring>

/** Keeps a vector's computation where it is written; see int8_simd.h. */
#if defined(__GNUC__) && !defined(__clang__)
#define EIGENQ_IN_ORDER(vector) __asm__ volatile("" : "+v"(vector))
#else
#define EIGENQ_IN_ORDER(vector) (void)(vector)
#endif

namespace EigenQ {
namespace internal {
namespace {

/** Integers that stand for levels and for X, where pairs of products meet in 16 bits. */
struct SevenBitLevels {
  static constexpr float kCounts[] = {76.28f, 72.0f};  // of NF4, of FP4
  static constexpr int kOffset = 76, kSteps = 107;
  static_assert(2 * 2 * kOffset * kSteps < (1 << 15), "a sum of two products fits int16");
};

/** The same where they meet in 32 bits. */
struct EightBitLevels {
  static constexpr float kCounts[] = {124.11f, 120.0f};
  static constexpr int kOffset = 127, kSteps = 127;
};

#if defined(__AVX512F__) && defined(__AVX512BW__)

struct FourBitInt8Vectors512 {
  using Ints = __m512i;
  using Floats = __m512;
  static constexpr int kLanes = 16, kTileRows = 6;  // 6×2 sums, 2 vectors of W, what a row takes

  static EIGENQ_STRONG_INLINE void keep(Ints& v) { EIGENQ_IN_ORDER(v); }
  static Ints load(const void* p) { return _mm512_loadu_si512(p); }
  static void store(void* p, Ints v) { _mm512_storeu_si512(p, v); }
  static Ints broadcast(std::int32_t v) { return _mm512_set1_epi32(v); }
  static Ints broadcastTable(const std::uint8_t* bytes16) { return _mm512_broadcast_i32x4(load16(bytes16)); }
  static Ints earlier(Ints pairs) { return later(_mm512_srli_epi16(pairs, 4)); }
  static Ints later(Ints pairs) { return _mm512_and_si512(pairs, _mm512_set1_epi8(15)); }
  static Ints lookUp(Ints table, Ints codes) { return _mm512_shuffle_epi8(table, codes); }
  /** sums[lanes] = to[lanes] + float(sum)·(w[lanes]·x). */
  static void addScaled(Ints sum, const float* w, float x, float* to) {
    const Floats scale = _mm512_mul_ps(_mm512_loadu_ps(w), _mm512_set1_ps(x));
    _mm512_storeu_ps(to, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, _mm512_loadu_ps(to)));
  }
};

#if defined(__AVX512VNNI__)
struct FourBitInt8Avx512Vnni : FourBitInt8Vectors512, EightBitLevels {
  static EIGENQ_STRONG_INLINE Ints multiplyAdd(Ints w, Ints x, Ints c) { return _mm512_dpbusd_epi32(c, w, x); }
};
#else
struct FourBitInt8Avx512 : FourBitInt8Vectors512, SevenBitLevels {
  static EIGENQ_STRONG_INLINE Ints multiplyAdd(Ints w, Ints x, Ints c) {
    return _mm512_add_epi32(c, _mm512_madd_epi16(_mm512_maddubs_epi16(w, x), _mm512_set1_epi16(1)));
  }
};
#endif

#elif defined(__AVX2__)

struct FourBitInt8Vectors256 {
  using Ints = __m256i;
  using Floats = __m256;
  static constexpr int kLanes = 8, kTileRows = 4;  // 4×2 sums, 2 vectors of W, ones, what a row takes

  static EIGENQ_STRONG_INLINE void keep(Ints& v) { EIGENQ_IN_ORDER(v); }
  static Ints load(const void* p) { return _mm256_loadu_si256(static_cast<const Ints*>(p)); }
  static void store(void* p, Ints v) { _mm256_storeu_si256(static_cast<Ints*>(p), v); }
  static Ints broadcast(std::int32_t v) { return _mm256_set1_epi32(v); }
  static Ints broadcastTable(const std::uint8_t* bytes16) { return _mm256_broadcastsi128_si256(load16(bytes16)); }
  static Ints earlier(Ints pairs) { return later(_mm256_srli_epi16(pairs, 4)); }
  static Ints later(Ints pairs) { return _mm256_and_si256(pairs, _mm256_set1_epi8(15)); }
  static Ints lookUp(Ints table, Ints codes) { return _mm256_shuffle_epi8(table, codes); }
  static void addScaled(Ints sum, const float* w, float x, float* to) {
    const Floats scale = _mm256_mul_ps(_mm256_loadu_ps(w), _mm256_set1_ps(x));
    _mm256_storeu_ps(to, _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), scale, _mm256_loadu_ps(to)));
  }
};

#if defined(__AVXVNNI__)
struct FourBitInt8AvxVnni : FourBitInt8Vectors256, EightBitLevels {
  static EIGENQ_STRONG_INLINE Ints multiplyAdd(Ints w, Ints x, Ints c) { return _mm256_dpbusd_avx_epi32(c, w, x); }
};
#else
struct FourBitInt8Avx2 : FourBitInt8Vectors256, SevenBitLevels {
  static EIGENQ_STRONG_INLINE Ints multiplyAdd(Ints w, Ints x, Ints c) {
    return _mm256_add_epi32(c, _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1)));
  }
};
#endif

#endif

}  // namespace
}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_FOURBIT_INT8_SIMD_H
