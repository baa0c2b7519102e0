// SPDX-License-Identifier: MPL-2.0
// Decoding many 4-bit codes at once into panels of floats, one struct per instruction set; as in simd.h, each exists
// only where the compiler may use that set, in an unnamed namespace.
//
//   fillRows     rows of W become lanes: 32 codes (16 bytes) of each of kPanel rows. Codes are transposed while they
//                are codes, an eighth of what transposing floats would move.
//   fillColumns  lanes are as stored: the 2·kBytes columns of one row, spread over kPanels panels. Which column a lane
//                holds follows from the shuffles (columnOf); whoever stores the results undoes it once per output.
//
// Every value is r32(table·absmax), as WeightView::coeff decodes it.
#ifndef EIGENQ_CPU_FOURBIT_SIMD_H
#define EIGENQ_CPU_FOURBIT_SIMD_H

#include "simd.h"

#include <eigen_q/src/Views.h>

#if defined(__AVX2__)
#include "dword_transpose.h"
#endif

namespace EigenQ {
namespace internal {
namespace {

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)

/** vpermps looks up sixteen floats by the low four bits of a dword, so eight shifts of a dword give its eight codes:
 * per 128 weights 8 look-ups, 7 shifts, 8 multiplications. */
struct FourBitAvx512 {
  using Isa = Avx512;
  using Table = __m512;
  static constexpr Index kBytes = 64;  // of a row, a fillColumns
  static constexpr int kPanel = 32, kPanels = 4;

  static Table loadTable(const float* table16) { return _mm512_loadu_ps(table16); }

  /** out[j] = table[code j of each dword]: the high nibble of a byte is the earlier code. */
  static __m512 lookUp(__m512i dwords, int j, Table table) {
    const int shift = 8 * (j / 2) + (j % 2 ? 0 : 4);
    return _mm512_permutexvar_ps(shift ? _mm512_srli_epi32(dwords, static_cast<unsigned>(shift)) : dwords, table);
  }

  /** The scales of 128 codes, one for each kPerScale of them, where lookUp() leaves those codes. */
  template <Index kPerScale>
  static __m512 spread(const float* scales) {
    if constexpr (kPerScale == 32) {
      const __m512 four = _mm512_broadcast_f32x4(_mm_loadu_ps(scales));
      return _mm512_permutevar_ps(four, _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0));
    } else {
      static_assert(kPerScale == 64, "32 or 64 codes share a scale");
      const __m128i two = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(scales));
      const __m512 pairs = _mm512_castsi512_ps(_mm512_broadcastq_epi64(two));
      return _mm512_permutevar_ps(pairs, _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0));
    }
  }

  /** panel[k][kPanel] = w(row, k) for the 32 codes from byte \a at of each row on. */
  static void fillRows(const std::uint8_t* const* rows, Index at, Table table, const float* scales, float* panel) {
    for (int half = 0; half < kPanel; half += 16) {
      const __m512 scale = _mm512_loadu_ps(scales + half);
      __m512i dwords[4];
      transposeDwords(rows + half, at, dwords);
      for (int q = 0; q < 4; ++q) {
        for (int j = 0; j < 8; ++j) {
          _mm512_storeu_ps(panel + (8 * q + j) * kPanel + half, _mm512_mul_ps(lookUp(dwords[q], j, table), scale));
        }
      }
    }
  }

  /** panel p, \a panelStride floats from the last, gets its kPanel columns of a row. */
  static void fillColumns(const std::uint8_t* codes, Table table, const float* scales4, float* panel,
                          Index panelStride) {
    const __m512i dwords = IntVectors::loadOnce(codes);
    const __m512 scale = spread<32>(scales4);
    for (int j = 0; j < 8; ++j) {
      _mm512_storeu_ps(panel + j / 2 * panelStride + j % 2 * 16, _mm512_mul_ps(lookUp(dwords, j, table), scale));
    }
  }
  static constexpr int columnOf(int panel, int lane) { return 8 * (lane % 16) + 2 * panel + lane / 16; }

  /** Levels of V of the eight vectors that 64 bytes make up, from \a part·V on. */
  static constexpr int kFixedPart = 0;  // any V
  template <int V>
  static void lookUpPart(const std::uint8_t* codes, int part, Table table, __m512 (&levels)[V]) {
    const __m512i dwords = IntVectors::loadOnce(codes);
    for (int v = 0; v < V; ++v) levels[v] = lookUp(dwords, part * V + v, table);
  }
  static constexpr int columnOfVector(int vector, int lane) { return 8 * lane + vector; }
};

#elif defined(__AVX2__) && defined(__FMA__)

/** vpshufb looks up 32 bytes; four tables, one for each byte of a float, and three levels of interleaving give 32
 * floats for 12 shuffles, where two vpermps and a blend for every eight would take twice as long. */
struct FourBitAvx2 {
  using Isa = Avx2;
  struct Table {
    __m256i byte[4];  // byte b of each of the 16 levels, in both halves
  };
  static constexpr Index kBytes = 32;
  static constexpr int kPanel = 16, kPanels = 4;

  static Table loadTable(const float* table16) {
    Table t;
    for (int b = 0; b < 4; ++b) {
      alignas(16) std::uint8_t bytes[16];
      for (int i = 0; i < 16; ++i) {
        std::uint32_t bits;
        std::memcpy(&bits, table16 + i, 4);
        bytes[i] = static_cast<std::uint8_t>(bits >> (8 * b));
      }
      t.byte[b] = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(bytes)));
    }
    return t;
  }

  static __m256i earlier(__m256i pairs) { return later(_mm256_srli_epi16(pairs, 4)); }
  static __m256i later(__m256i pairs) { return _mm256_and_si256(pairs, _mm256_set1_epi8(15)); }

  /** out[d] = the levels of bytes 4d to 4d + 3 of either half. */
  static void lookUp(__m256i codes, const Table& table, __m256 (&out)[4]) {
    const __m256i b0 = _mm256_shuffle_epi8(table.byte[0], codes), b1 = _mm256_shuffle_epi8(table.byte[1], codes),
                  b2 = _mm256_shuffle_epi8(table.byte[2], codes), b3 = _mm256_shuffle_epi8(table.byte[3], codes);
    const __m256i low0 = _mm256_unpacklo_epi8(b0, b1), low1 = _mm256_unpackhi_epi8(b0, b1);
    const __m256i high0 = _mm256_unpacklo_epi8(b2, b3), high1 = _mm256_unpackhi_epi8(b2, b3);
    out[0] = _mm256_castsi256_ps(_mm256_unpacklo_epi16(low0, high0));
    out[1] = _mm256_castsi256_ps(_mm256_unpackhi_epi16(low0, high0));
    out[2] = _mm256_castsi256_ps(_mm256_unpacklo_epi16(low1, high1));
    out[3] = _mm256_castsi256_ps(_mm256_unpackhi_epi16(low1, high1));
  }

  /** The scales of 64 codes, one for each kPerScale of them, where lookUp() leaves those codes. */
  template <Index kPerScale>
  static __m256 spread(const float* scales) {
    static_assert(kPerScale == 32 || kPerScale == 64, "32 or 64 codes share a scale");
    if constexpr (kPerScale == 64) return _mm256_broadcast_ss(scales);
    return _mm256_set_m128(_mm_broadcast_ss(scales + 1), _mm_broadcast_ss(scales));
  }

  static __m256i twoRows(const std::uint8_t* const* rows, int first, Index at) {
    const __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[first] + at));
    return _mm256_inserti128_si256(_mm256_castsi128_si256(low),
                                   _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[first + 4] + at)), 1);
  }

  static void fillRows(const std::uint8_t* const* rows, Index at, const Table& table, const float* scales,
                       float* panel) {
    for (int half = 0; half < kPanel; half += 8) {
      const __m256 scale = _mm256_loadu_ps(scales + half);
      const __m256i a = twoRows(rows, half, at), b = twoRows(rows, half + 1, at), c = twoRows(rows, half + 2, at),
                    d = twoRows(rows, half + 3, at);
      const __m256i ab0 = _mm256_unpacklo_epi8(a, b), ab1 = _mm256_unpackhi_epi8(a, b);
      const __m256i cd0 = _mm256_unpacklo_epi8(c, d), cd1 = _mm256_unpackhi_epi8(c, d);
      // Dword d of quads[q] holds byte 4q + d of four rows; the other half, of the four rows behind.
      const __m256i quads[4] = {_mm256_unpacklo_epi16(ab0, cd0), _mm256_unpackhi_epi16(ab0, cd0),
                                _mm256_unpacklo_epi16(ab1, cd1), _mm256_unpackhi_epi16(ab1, cd1)};
      for (int q = 0; q < 4; ++q) {
        __m256 even[4], odd[4];
        lookUp(earlier(quads[q]), table, even);
        lookUp(later(quads[q]), table, odd);
        for (int d4 = 0; d4 < 4; ++d4) {
          float* to = panel + (8 * q + 2 * d4) * kPanel + half;
          _mm256_storeu_ps(to, _mm256_mul_ps(even[d4], scale));
          _mm256_storeu_ps(to + kPanel, _mm256_mul_ps(odd[d4], scale));
        }
      }
    }
  }

  static void fillColumns(const std::uint8_t* codes, const Table& table, const float* scales2, float* panel,
                          Index panelStride) {
    const __m256i pairs = IntVectors::loadOnce(codes);
    const __m256 scale = spread<32>(scales2);
    __m256 even[4], odd[4];
    lookUp(earlier(pairs), table, even);
    lookUp(later(pairs), table, odd);
    for (int p = 0; p < kPanels; ++p, panel += panelStride) {
      _mm256_storeu_ps(panel, _mm256_mul_ps(even[p], scale));
      _mm256_storeu_ps(panel + 8, _mm256_mul_ps(odd[p], scale));
    }
  }
  static constexpr int columnOf(int panel, int lane) {
    return 32 * (lane % 8 / 4) + 8 * panel + 2 * (lane % 4) + lane / 8;
  }

  /** Levels of four of the eight vectors that 32 bytes make up: of their earlier codes, then of the later ones. */
  static constexpr int kFixedPart = 4;
  static void lookUpPart(const std::uint8_t* codes, int part, const Table& table, __m256 (&levels)[4]) {
    const __m256i pairs = IntVectors::loadOnce(codes);
    lookUp(part == 0 ? earlier(pairs) : later(pairs), table, levels);
  }
  static constexpr int columnOfVector(int vector, int lane) { return columnOf(vector % 4, lane + 8 * (vector / 4)); }
};

#endif

/** What decodes whole panels for an instruction set; void where nothing does. */
template <typename Isa>
struct FourBitDecoder {
  using Type = void;
};
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
template <>
struct FourBitDecoder<Avx512> {
  using Type = FourBitAvx512;
};
#elif defined(__AVX2__) && defined(__FMA__)
template <>
struct FourBitDecoder<Avx2> {
  using Type = FourBitAvx2;
};
#endif

}  // namespace
}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_FOURBIT_SIMD_H
