// SPDX-License-Identifier: MPL-2.0
// The absmax of blocks that follow one another, as AbsmaxView decodes each of them. Internal linkage; see simd.h for
// the reason.
#ifndef EIGENQ_CPU_ABSMAX_RUN_H
#define EIGENQ_CPU_ABSMAX_RUN_H

#include "tasks.h"

#include <eigen_q/src/Views.h>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace EigenQ {
namespace internal {
namespace {

#if defined(__AVX512F__) || defined(__AVX2__)

/** Vectors of nested absmax, whose codes share \a absmax2: a product and a sum, rounded each. */
struct NestedLanes {
#if defined(__AVX512F__)
  static constexpr Index kCount = 16;
  __m512 absmax2, offset;
  NestedLanes(float scale, float more) : absmax2(_mm512_set1_ps(scale)), offset(_mm512_set1_ps(more)) {}
  void decode(const std::uint8_t* codes, const float* table, float* to) const {
    const __m512i at = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes)));
    _mm512_storeu_ps(to, _mm512_add_ps(_mm512_mul_ps(_mm512_i32gather_ps(at, table, 4), absmax2), offset));
  }
#else
  static constexpr Index kCount = 8;
  __m256 absmax2, offset;
  NestedLanes(float scale, float more) : absmax2(_mm256_set1_ps(scale)), offset(_mm256_set1_ps(more)) {}
  void decode(const std::uint8_t* codes, const float* table, float* to) const {
    const __m256i at = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes)));
    _mm256_storeu_ps(to, _mm256_add_ps(_mm256_mul_ps(_mm256_i32gather_ps(table, at, 4), absmax2), offset));
  }
#endif
};

#endif

/** to[i] = absmax(block + i), i < count, of a nested absmax. One by one they take 3 clocks each, and one row of X took
 * 1.4 times as long with them as with plain ones. */
inline void decodeAbsmax(const AbsmaxView& absmax, Index block, Index count, float* to) {
  const Index end = block + count;
  while (block < end) {
    const Index nested = block >> absmax.nestedBlockShift;
    const Index last = least(end, (nested + 1) << absmax.nestedBlockShift);
#if defined(__AVX512F__) || defined(__AVX2__)
    const NestedLanes lanes(absmax.absmax2[nested], absmax.offset);
    for (; block + NestedLanes::kCount <= last; block += NestedLanes::kCount, to += NestedLanes::kCount) {
      lanes.decode(absmax.codes + block, absmax.codeTable, to);
    }
#endif
    for (; block < last; ++block) *to++ = absmax(block);
  }
}

}  // namespace
}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_ABSMAX_RUN_H
