// SPDX-License-Identifier: MPL-2.0
// Vectors of integers as wide as the instruction set of the file has them. Internal linkage; see simd.h for the reason.
#ifndef EIGENQ_CPU_INT_VECTORS_H
#define EIGENQ_CPU_INT_VECTORS_H

#include <cstddef>
#include <cstdint>
#include <cstring>

#include <eigen_q/src/Macros.h>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

/** Keeps a vector's computation where it is written: g++ 12 gathers all products of a step before it adds the first,
 * and has no registers left to hold them. */
#if defined(__AVX2__) && defined(__GNUC__) && !defined(__clang__)
#define EIGENQ_IN_ORDER(vector) __asm__ volatile("" : "+v"(vector))
#else
#define EIGENQ_IN_ORDER(vector) (void)(vector)
#endif

#if defined(__AVX2__)

namespace EigenQ {
namespace internal {
namespace {

inline __m128i load16(const std::uint8_t* bytes) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)); }

// The operations of both widths: addN in lanes of N bits; multiplyPairs adds the products of neighbours, of unsigned by
// signed bytes in 16 bits and of 16 bits in 32; interleaving is within 128 bits, as everywhere in these sets. loadOnce
// is for codes that are used many times: g++ 12 makes a load part of each instruction that uses it, and what lies
// across two lines of the cache is then read twice as many times.

#if defined(__AVX512F__) && defined(__AVX512BW__)

struct IntVectors {
  using Ints = __m512i;
  using Floats = __m512;
  static constexpr int kLanes = 16;  // of 32 bits

  static EIGENQ_STRONG_INLINE void keep(Ints& v) { EIGENQ_IN_ORDER(v); }
  static Ints load(const void* p) { return _mm512_loadu_si512(p); }
  static EIGENQ_STRONG_INLINE Ints loadOnce(const void* p) {
    Ints v = load(p);
    keep(v);
    return v;
  }
  static void store(void* p, Ints v) { _mm512_storeu_si512(p, v); }
  static Ints broadcast(std::int32_t v) { return _mm512_set1_epi32(v); }
  static Ints broadcast16(__m128i v) { return _mm512_broadcast_i32x4(v); }
  static Ints bitAnd(Ints a, Ints b) { return _mm512_and_si512(a, b); }
  static Ints shiftRight16(Ints v, unsigned bits) { return _mm512_srli_epi16(v, bits); }
  static Ints shuffleBytes(Ints table, Ints at) { return _mm512_shuffle_epi8(table, at); }
  static Ints interleaveLow32(Ints a, Ints b) { return _mm512_unpacklo_epi32(a, b); }
  static Ints interleaveHigh32(Ints a, Ints b) { return _mm512_unpackhi_epi32(a, b); }
  static Ints interleaveLow64(Ints a, Ints b) { return _mm512_unpacklo_epi64(a, b); }
  static Ints interleaveHigh64(Ints a, Ints b) { return _mm512_unpackhi_epi64(a, b); }
  static Ints add8(Ints a, Ints b) { return _mm512_add_epi8(a, b); }
  static Ints add16(Ints a, Ints b) { return _mm512_add_epi16(a, b); }
  static Ints larger16(Ints a, Ints b) { return _mm512_max_epi16(a, b); }
  static Ints add32(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
  static Ints multiplyPairs8(Ints u, Ints s) { return _mm512_maddubs_epi16(u, s); }
  static Ints multiplyPairs16(Ints a, Ints b) { return _mm512_madd_epi16(a, b); }

  static Floats loadFloats(const float* p) { return _mm512_loadu_ps(p); }
  static void storeFloats(float* p, Floats v) { _mm512_storeu_ps(p, v); }
  static Floats broadcastFloat(float v) { return _mm512_set1_ps(v); }
  static Floats toFloats(Ints v) { return _mm512_cvtepi32_ps(v); }
  static Floats multiply(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
  static Floats multiplyAdd(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
  static Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
  static float sumOf(Floats v) { return _mm512_reduce_add_ps(v); }

  /** kCount floats, each for as many lanes. */
  template <int kCount>
  static Floats spread(const float* p) {
    if constexpr (kCount == 2) {
      return _mm512_insertf32x8(broadcastFloat(p[0]), _mm256_set1_ps(p[1]), 1);
    } else {
      const __m512 four = _mm512_broadcast_f32x4(_mm_loadu_ps(p));
      return _mm512_permutevar_ps(four, _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0));
    }
  }

  /** 16 bytes of row 0, of row 4, and so on. */
  static Ints loadEveryFourth(const std::uint8_t* const* rows, std::ptrdiff_t at) {
    Ints v = _mm512_castsi128_si512(load16(rows[0] + at));
    v = _mm512_inserti32x4(v, load16(rows[4] + at), 1);
    v = _mm512_inserti32x4(v, load16(rows[8] + at), 2);
    return _mm512_inserti32x4(v, load16(rows[12] + at), 3);
  }
};

#else

struct IntVectors {
  using Ints = __m256i;
  using Floats = __m256;
  static constexpr int kLanes = 8;

  static EIGENQ_STRONG_INLINE void keep(Ints& v) { EIGENQ_IN_ORDER(v); }
  static Ints load(const void* p) { return _mm256_loadu_si256(static_cast<const Ints*>(p)); }
  static EIGENQ_STRONG_INLINE Ints loadOnce(const void* p) {
    Ints v = load(p);
    keep(v);
    return v;
  }
  static void store(void* p, Ints v) { _mm256_storeu_si256(static_cast<Ints*>(p), v); }
  static Ints broadcast(std::int32_t v) { return _mm256_set1_epi32(v); }
  static Ints broadcast16(__m128i v) { return _mm256_broadcastsi128_si256(v); }
  static Ints bitAnd(Ints a, Ints b) { return _mm256_and_si256(a, b); }
  static Ints shiftRight16(Ints v, int bits) { return _mm256_srli_epi16(v, bits); }
  static Ints shuffleBytes(Ints table, Ints at) { return _mm256_shuffle_epi8(table, at); }
  static Ints interleaveLow32(Ints a, Ints b) { return _mm256_unpacklo_epi32(a, b); }
  static Ints interleaveHigh32(Ints a, Ints b) { return _mm256_unpackhi_epi32(a, b); }
  static Ints interleaveLow64(Ints a, Ints b) { return _mm256_unpacklo_epi64(a, b); }
  static Ints interleaveHigh64(Ints a, Ints b) { return _mm256_unpackhi_epi64(a, b); }
  static Ints add8(Ints a, Ints b) { return _mm256_add_epi8(a, b); }
  static Ints add16(Ints a, Ints b) { return _mm256_add_epi16(a, b); }
  static Ints larger16(Ints a, Ints b) { return _mm256_max_epi16(a, b); }
  static Ints add32(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
  static Ints multiplyPairs8(Ints u, Ints s) { return _mm256_maddubs_epi16(u, s); }
  static Ints multiplyPairs16(Ints a, Ints b) { return _mm256_madd_epi16(a, b); }

  static Floats loadFloats(const float* p) { return _mm256_loadu_ps(p); }
  static void storeFloats(float* p, Floats v) { _mm256_storeu_ps(p, v); }
  static Floats broadcastFloat(float v) { return _mm256_set1_ps(v); }
  static Floats toFloats(Ints v) { return _mm256_cvtepi32_ps(v); }
  static Floats multiply(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
  static Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
  static float sumOf(Floats v) {
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }
#if defined(__FMA__)
  static Floats multiplyAdd(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
#endif

  template <int kCount>
  static Floats spread(const float* p) {
    if constexpr (kCount == 1) {
      return broadcastFloat(*p);
    } else {
      return _mm256_insertf128_ps(broadcastFloat(p[0]), _mm_set1_ps(p[1]), 1);
    }
  }

  static Ints loadEveryFourth(const std::uint8_t* const* rows, std::ptrdiff_t at) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(load16(rows[0] + at)), load16(rows[4] + at), 1);
  }
};

#endif

}  // namespace
}  // namespace internal
}  // namespace EigenQ

#elif defined(__aarch64__)

namespace EigenQ {
namespace internal {
namespace {

inline uint8x16_t load16(const std::uint8_t* bytes) { return vld1q_u8(bytes); }

/** As with AVX2, of two vectors: 4-bit kernels are written for eight lanes and more. Only what those need. */
struct IntVectors {
  struct Ints {
    uint8x16_t low, high;
  };
  struct Floats {
    float32x4_t low, high;
  };
  static constexpr int kLanes = 8;

  static void keep(Ints&) {}
  static Ints load(const void* p) {
    const auto* const bytes = static_cast<const std::uint8_t*>(p);
    return {vld1q_u8(bytes), vld1q_u8(bytes + 16)};
  }
  static Ints loadOnce(const void* p) { return load(p); }
  static void store(void* p, Ints v) {
    auto* const bytes = static_cast<std::uint8_t*>(p);
    vst1q_u8(bytes, v.low);
    vst1q_u8(bytes + 16, v.high);
  }
  static Ints broadcast(std::int32_t v) { return broadcast16(vreinterpretq_u8_s32(vdupq_n_s32(v))); }
  static Ints broadcast16(uint8x16_t v) { return {v, v}; }
  static Ints bitAnd(Ints a, Ints b) { return {vandq_u8(a.low, b.low), vandq_u8(a.high, b.high)}; }
  static Ints shiftRight16(Ints v, int bits) {
    const int16x8_t by = vdupq_n_s16(static_cast<std::int16_t>(-bits));
    const auto shift = [by](uint8x16_t half) {
      return vreinterpretq_u8_u16(vshlq_u16(vreinterpretq_u16_u8(half), by));
    };
    return {shift(v.low), shift(v.high)};
  }
  static Ints shuffleBytes(Ints table, Ints at) {
    return {vqtbl1q_u8(table.low, at.low), vqtbl1q_u8(table.high, at.high)};
  }
  static Ints interleaveLow32(Ints a, Ints b) { return {zip32<1>(a.low, b.low), zip32<1>(a.high, b.high)}; }
  static Ints interleaveHigh32(Ints a, Ints b) { return {zip32<2>(a.low, b.low), zip32<2>(a.high, b.high)}; }
  static Ints interleaveLow64(Ints a, Ints b) { return {zip64<1>(a.low, b.low), zip64<1>(a.high, b.high)}; }
  static Ints interleaveHigh64(Ints a, Ints b) { return {zip64<2>(a.low, b.low), zip64<2>(a.high, b.high)}; }

  static Floats loadFloats(const float* p) { return {vld1q_f32(p), vld1q_f32(p + 4)}; }
  static void storeFloats(float* p, Floats v) {
    vst1q_f32(p, v.low);
    vst1q_f32(p + 4, v.high);
  }
  static Floats broadcastFloat(float v) { return {vdupq_n_f32(v), vdupq_n_f32(v)}; }
  static Floats toFloats(Ints v) {
    return {vcvtq_f32_s32(vreinterpretq_s32_u8(v.low)), vcvtq_f32_s32(vreinterpretq_s32_u8(v.high))};
  }
  static Floats multiply(Floats a, Floats b) { return {vmulq_f32(a.low, b.low), vmulq_f32(a.high, b.high)}; }
  static Floats multiplyAdd(Floats a, Floats b, Floats c) {
    return {vfmaq_f32(c.low, a.low, b.low), vfmaq_f32(c.high, a.high, b.high)};
  }

  static Floats add(Floats a, Floats b) { return {vaddq_f32(a.low, b.low), vaddq_f32(a.high, b.high)}; }
  static float sumOf(Floats v) { return vaddvq_f32(vaddq_f32(v.low, v.high)); }

  template <int kCount>
  static Floats spread(const float* p) {
    return {vdupq_n_f32(p[0]), vdupq_n_f32(p[kCount - 1])};
  }

  static Ints loadEveryFourth(const std::uint8_t* const* rows, std::ptrdiff_t at) {
    return {load16(rows[0] + at), load16(rows[4] + at)};
  }

 private:
  template <int kHalf>
  static uint8x16_t zip32(uint8x16_t a, uint8x16_t b) {
    const uint32x4_t x = vreinterpretq_u32_u8(a), y = vreinterpretq_u32_u8(b);
    return vreinterpretq_u8_u32(kHalf == 1 ? vzip1q_u32(x, y) : vzip2q_u32(x, y));
  }
  template <int kHalf>
  static uint8x16_t zip64(uint8x16_t a, uint8x16_t b) {
    const uint64x2_t x = vreinterpretq_u64_u8(a), y = vreinterpretq_u64_u8(b);
    return vreinterpretq_u8_u64(kHalf == 1 ? vzip1q_u64(x, y) : vzip2q_u64(x, y));
  }
};

}  // namespace
}  // namespace internal
}  // namespace EigenQ

#endif

#endif  // EIGENQ_CPU_INT_VECTORS_H
