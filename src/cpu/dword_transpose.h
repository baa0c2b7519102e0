// SPDX-License-Identifier: MPL-2.0
// Rows of W become lanes while they are codes: 16 bytes of each of as many rows as a vector has dwords. Internal
// linkage; see simd.h for the reason.
//
//   rows[first + i] + at   │ dword 0 │ dword 1 │ dword 2 │ dword 3 │   ──▶   out[q], lane i = dword q of row first + i
#ifndef EIGENQ_CPU_DWORD_TRANSPOSE_H
#define EIGENQ_CPU_DWORD_TRANSPOSE_H

#include <eigen_q/src/Views.h>

#include <immintrin.h>

namespace EigenQ {
namespace internal {
namespace {

inline __m128i load16(const std::uint8_t* bytes) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)); }

#if defined(__AVX2__)

inline void transposeDwords(const std::uint8_t* const* rows, Index at, __m256i (&out)[4]) {
  const auto two = [=](int r) {  // rows r and r + 4, in a half each
    return _mm256_inserti128_si256(_mm256_castsi128_si256(load16(rows[r] + at)), load16(rows[r + 4] + at), 1);
  };
  const __m256i a = two(0), b = two(1), c = two(2), d = two(3);
  const __m256i ab0 = _mm256_unpacklo_epi32(a, b), ab1 = _mm256_unpackhi_epi32(a, b);
  const __m256i cd0 = _mm256_unpacklo_epi32(c, d), cd1 = _mm256_unpackhi_epi32(c, d);
  out[0] = _mm256_unpacklo_epi64(ab0, cd0);
  out[1] = _mm256_unpackhi_epi64(ab0, cd0);
  out[2] = _mm256_unpacklo_epi64(ab1, cd1);
  out[3] = _mm256_unpackhi_epi64(ab1, cd1);
}

#endif

#if defined(__AVX512F__)

inline void transposeDwords(const std::uint8_t* const* rows, Index at, __m512i (&out)[4]) {
  const auto four = [=](int r) {  // rows r, r + 4, r + 8 and r + 12, in a quarter each
    __m512i v = _mm512_castsi128_si512(load16(rows[r] + at));
    v = _mm512_inserti32x4(v, load16(rows[r + 4] + at), 1);
    v = _mm512_inserti32x4(v, load16(rows[r + 8] + at), 2);
    return _mm512_inserti32x4(v, load16(rows[r + 12] + at), 3);
  };
  const __m512i a = four(0), b = four(1), c = four(2), d = four(3);
  const __m512i ab0 = _mm512_unpacklo_epi32(a, b), ab1 = _mm512_unpackhi_epi32(a, b);
  const __m512i cd0 = _mm512_unpacklo_epi32(c, d), cd1 = _mm512_unpackhi_epi32(c, d);
  out[0] = _mm512_unpacklo_epi64(ab0, cd0);
  out[1] = _mm512_unpackhi_epi64(ab0, cd0);
  out[2] = _mm512_unpacklo_epi64(ab1, cd1);
  out[3] = _mm512_unpackhi_epi64(ab1, cd1);
}

#endif

}  // namespace
}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_DWORD_TRANSPOSE_H
