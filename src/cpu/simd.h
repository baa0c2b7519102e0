// SPDX-License-Identifier: MPL-2.0
// The few vector operations that the kernels are written in, one struct per instruction set. Each struct is defined
// only where the compiler may use that set, in an unnamed namespace: a function of one file must never be merged by the
// linker with that of another.
#ifndef EIGENQ_CPU_SIMD_H
#define EIGENQ_CPU_SIMD_H

#include <eigen_q/src/ScalarConvert.h>

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace EigenQ {
namespace internal {
namespace {

// decodeFourBit reads kLanes/2 bytes: the high nibble of a byte is the earlier code.
// larger(a, b) and smaller(a, b) are b where either is no number; zeroBelow(x, limit, v) is v but where x < limit.
// addExponent(v, n) is v·2^k for the k in the low bits of n.

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)

struct Avx512 {
  using Vec = __m512;
  using Table = __m512;
  static constexpr int kLanes = 16;
  static constexpr int kTileRows = 12;  // 12×2 accumulators + 2 weights + 1 broadcast fit 32 registers

  static Vec zero() { return _mm512_setzero_ps(); }
  static Vec load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
  static Vec broadcast(float v) { return _mm512_set1_ps(v); }
  static Vec mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
  static Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
  static Vec sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
  static Vec div(Vec a, Vec b) { return _mm512_div_ps(a, b); }
  static Vec sqrt(Vec v) { return _mm512_sqrt_ps(v); }
  static Vec larger(Vec a, Vec b) { return _mm512_max_ps(a, b); }
  static Vec smaller(Vec a, Vec b) { return _mm512_min_ps(a, b); }
  static Vec zeroBelow(Vec x, Vec limit, Vec v) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, limit, _CMP_NLT_UQ), v);
  }
  static Vec addExponent(Vec v, Vec n) {
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(v), _mm512_slli_epi32(_mm512_castps_si512(n), 23)));
  }
  static Vec multiplyAdd(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
  static float sum(Vec v) { return _mm512_reduce_add_ps(v); }
  static float largest(Vec v) { return _mm512_reduce_max_ps(v); }
  static void addWidened(Vec v, bool first, double* to) {
    const __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(v)),
                  high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1));
    _mm512_storeu_pd(to, first ? low : _mm512_add_pd(_mm512_loadu_pd(to), low));
    _mm512_storeu_pd(to + 8, first ? high : _mm512_add_pd(_mm512_loadu_pd(to + 8), high));
  }
  static Vec loadNarrowed(const double* from) {
    const __m256 low = _mm512_cvtpd_ps(_mm512_loadu_pd(from)), high = _mm512_cvtpd_ps(_mm512_loadu_pd(from + 8));
    return _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
  }

  static Vec fromHalf(const std::uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static Vec fromBFloat16(const std::uint16_t* p) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
  static Vec fromInt8(const std::int8_t* codes) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes))));
  }
  static Table loadTable(const float* table16) { return _mm512_loadu_ps(table16); }
  static Vec decodeFourBit(const std::uint8_t* pairs, Table table) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(pairs));
    const __m512i twice = _mm512_cvtepu8_epi32(_mm_unpacklo_epi8(bytes, bytes));
    const __m512i shifts = _mm512_set1_epi64(4);                            // 4, 0, 4, 0, …: high nibble first
    return _mm512_permutexvar_ps(_mm512_srlv_epi32(twice, shifts), table);  // reads the low four bits only
  }

  /** v[i][j] becomes v[j][i]. */
  static void transpose(Vec (&v)[16]) {
    __m512 t[16];
    for (int i = 0; i < 16; i += 2) {
      t[i] = _mm512_unpacklo_ps(v[i], v[i + 1]);
      t[i + 1] = _mm512_unpackhi_ps(v[i], v[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
      for (int half = 0; half < 2; ++half) {
        const __m512d a = _mm512_castps_pd(t[i + half]), b = _mm512_castps_pd(t[i + 2 + half]);
        v[i + 2 * half] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
        v[i + 2 * half + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
      }
    }
    // v[4g + c] now holds, in its four 128-bit lanes, rows 4g…4g+3 of columns c, c+4, c+8, c+12.
    for (int c = 0; c < 4; ++c) {
      const __m512 a = _mm512_shuffle_f32x4(v[c], v[4 + c], 0x88), b = _mm512_shuffle_f32x4(v[c], v[4 + c], 0xdd);
      const __m512 d = _mm512_shuffle_f32x4(v[8 + c], v[12 + c], 0x88),
                   e = _mm512_shuffle_f32x4(v[8 + c], v[12 + c], 0xdd);
      t[c] = _mm512_shuffle_f32x4(a, d, 0x88);
      t[4 + c] = _mm512_shuffle_f32x4(b, e, 0x88);
      t[8 + c] = _mm512_shuffle_f32x4(a, d, 0xdd);
      t[12 + c] = _mm512_shuffle_f32x4(b, e, 0xdd);
    }
    for (int i = 0; i < 16; ++i) v[i] = t[i];
  }
};

#elif defined(__AVX2__) && defined(__FMA__)

struct Avx2 {
  using Vec = __m256;
  struct Table {
    __m256 low, high;
  };
  static constexpr int kLanes = 8;
  static constexpr int kTileRows = 6;  // 6×2 accumulators + 2 weights + 1 broadcast fit 16 registers

  static Vec zero() { return _mm256_setzero_ps(); }
  static Vec load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, Vec v) { _mm256_storeu_ps(p, v); }
  static Vec broadcast(float v) { return _mm256_set1_ps(v); }
  static Vec mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
  static Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
  static Vec sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
  static Vec div(Vec a, Vec b) { return _mm256_div_ps(a, b); }
  static Vec sqrt(Vec v) { return _mm256_sqrt_ps(v); }
  static Vec larger(Vec a, Vec b) { return _mm256_max_ps(a, b); }
  static Vec smaller(Vec a, Vec b) { return _mm256_min_ps(a, b); }
  static Vec zeroBelow(Vec x, Vec limit, Vec v) { return _mm256_and_ps(_mm256_cmp_ps(x, limit, _CMP_NLT_UQ), v); }
  static Vec addExponent(Vec v, Vec n) {
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(v), _mm256_slli_epi32(_mm256_castps_si256(n), 23)));
  }
  static Vec multiplyAdd(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
  static float sum(Vec v) {
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
  }
  static float largest(Vec v) {
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
  }

  static void addWidened(Vec v, bool first, double* to) {
    const __m256d low = _mm256_cvtps_pd(_mm256_castps256_ps128(v)), high = _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1));
    _mm256_storeu_pd(to, first ? low : _mm256_add_pd(_mm256_loadu_pd(to), low));
    _mm256_storeu_pd(to + 4, first ? high : _mm256_add_pd(_mm256_loadu_pd(to + 4), high));
  }
  static Vec loadNarrowed(const double* from) {
    const __m128 low = _mm256_cvtpd_ps(_mm256_loadu_pd(from)), high = _mm256_cvtpd_ps(_mm256_loadu_pd(from + 4));
    return _mm256_insertf128_ps(_mm256_castps128_ps256(low), high, 1);
  }

#if defined(__F16C__)
  static Vec fromHalf(const std::uint16_t* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
#endif
  static Vec fromBFloat16(const std::uint16_t* p) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }
  static Vec fromInt8(const std::int8_t* codes) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes))));
  }
  static Table loadTable(const float* table16) { return {_mm256_loadu_ps(table16), _mm256_loadu_ps(table16 + 8)}; }
  static Vec decodeFourBit(const std::uint8_t* pairs, Table table) {
    std::int32_t four;
    std::memcpy(&four, pairs, 4);
    const __m128i bytes = _mm_cvtsi32_si128(four);
    const __m256i twice = _mm256_cvtepu8_epi32(_mm_unpacklo_epi8(bytes, bytes));
    const __m256i codes = _mm256_srlv_epi32(twice, _mm256_set1_epi64x(4));  // 4, 0, 4, 0, …: high nibble first
    const __m256 low = _mm256_permutevar8x32_ps(table.low, codes), high = _mm256_permutevar8x32_ps(table.high, codes);
    // Bit 3 of a code chooses the half; blendv looks at the sign bit.
    return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(codes, 28)));
  }

  static void transpose(Vec (&v)[8]) {
    __m256 t[8];
    for (int i = 0; i < 8; i += 2) {
      t[i] = _mm256_unpacklo_ps(v[i], v[i + 1]);
      t[i + 1] = _mm256_unpackhi_ps(v[i], v[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
      for (int half = 0; half < 2; ++half) {
        v[i + 2 * half] = _mm256_shuffle_ps(t[i + half], t[i + 2 + half], 0x44);
        v[i + 2 * half + 1] = _mm256_shuffle_ps(t[i + half], t[i + 2 + half], 0xee);
      }
    }
    for (int c = 0; c < 4; ++c) {
      t[c] = _mm256_permute2f128_ps(v[c], v[4 + c], 0x20);
      t[4 + c] = _mm256_permute2f128_ps(v[c], v[4 + c], 0x31);
    }
    for (int i = 0; i < 8; ++i) v[i] = t[i];
  }
};

#else

/** Plain loops that the compiler turns into what the baseline has. */
struct Portable {
  struct Vec {
    float lane[4];
  };
  using Table = const float*;
  static constexpr int kLanes = 4;
  static constexpr int kTileRows = 4;

  template <typename F>
  static Vec generate(F value) {
    Vec v;
    for (int i = 0; i < kLanes; ++i) v.lane[i] = value(i);
    return v;
  }
  static Vec zero() { return broadcast(0); }
  static Vec load(const float* p) {
    Vec v;
    std::memcpy(v.lane, p, sizeof v.lane);
    return v;
  }
  static void store(float* p, Vec v) { std::memcpy(p, v.lane, sizeof v.lane); }
  static Vec broadcast(float value) {
    return generate([=](int) { return value; });
  }
  static Vec mul(Vec a, Vec b) {
    return generate([&](int i) { return a.lane[i] * b.lane[i]; });
  }
  static Vec add(Vec a, Vec b) {
    return generate([&](int i) { return a.lane[i] + b.lane[i]; });
  }
  static Vec sub(Vec a, Vec b) {
    return generate([&](int i) { return a.lane[i] - b.lane[i]; });
  }
  static Vec div(Vec a, Vec b) {
    return generate([&](int i) { return a.lane[i] / b.lane[i]; });
  }
  static Vec sqrt(Vec v) {
    return generate([&](int i) { return __builtin_sqrtf(v.lane[i]); });
  }
  static Vec larger(Vec a, Vec b) {
    return generate([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  static Vec smaller(Vec a, Vec b) {
    return generate([&](int i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  static Vec zeroBelow(Vec x, Vec limit, Vec v) {
    return generate([&](int i) { return x.lane[i] < limit.lane[i] ? 0.0f : v.lane[i]; });
  }
  static Vec addExponent(Vec v, Vec n) {
    return generate([&](int i) {
      std::uint32_t bits, exponent;
      std::memcpy(&bits, &v.lane[i], sizeof bits);
      std::memcpy(&exponent, &n.lane[i], sizeof exponent);
      bits += exponent << 23;
      float sum;
      std::memcpy(&sum, &bits, sizeof sum);
      return sum;
    });
  }
  static Vec multiplyAdd(Vec a, Vec b, Vec c) { return add(mul(a, b), c); }
  static void addWidened(Vec v, bool first, double* to) {
    for (int i = 0; i < kLanes; ++i) to[i] = (first ? 0 : to[i]) + static_cast<double>(v.lane[i]);
  }
  static Vec loadNarrowed(const double* from) {
    return generate([=](int i) { return static_cast<float>(from[i]); });
  }
  static float sum(Vec v) { return (v.lane[0] + v.lane[2]) + (v.lane[1] + v.lane[3]); }
  static float largest(Vec v) {
    float most = v.lane[0];
    for (int i = 1; i < kLanes; ++i) most = v.lane[i] > most ? v.lane[i] : most;
    return most;
  }

  static Vec fromHalf(const std::uint16_t* p) {
    return generate([=](int i) { return halfToFloat(p[i]); });
  }
  static Vec fromBFloat16(const std::uint16_t* p) {
    return generate([=](int i) { return bfloat16ToFloat(p[i]); });
  }
  static Vec fromInt8(const std::int8_t* codes) {
    return generate([=](int i) { return static_cast<float>(codes[i]); });
  }
  static Table loadTable(const float* table16) { return table16; }
  static Vec decodeFourBit(const std::uint8_t* pairs, Table table) {
    return generate([=](int i) { return table[i & 1 ? pairs[i / 2] & 15 : pairs[i / 2] >> 4]; });
  }
  static void transpose(Vec (&v)[4]) {
    for (int i = 0; i < 4; ++i) {
      for (int j = 0; j < i; ++j) {
        const float t = v[i].lane[j];
        v[i].lane[j] = v[j].lane[i];
        v[j].lane[i] = t;
      }
    }
  }
};

#endif

}  // namespace
}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_SIMD_H
