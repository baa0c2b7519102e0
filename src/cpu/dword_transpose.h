// SPDX-License-Identifier: MPL-2.0
// Rows of W become lanes while they are codes: 16 bytes of each of as many rows as a vector has dwords. Internal
// linkage; see simd.h for the reason.
//
//   rows[i] + at   │ dword 0 │ dword 1 │ dword 2 │ dword 3 │   ──▶   out[q], lane i = dword q of row i
#ifndef EIGENQ_CPU_DWORD_TRANSPOSE_H
#define EIGENQ_CPU_DWORD_TRANSPOSE_H

#include "int_vectors.h"

#include <eigen_q/src/Views.h>

namespace EigenQ {
namespace internal {
namespace {

inline void transposeDwords(const std::uint8_t* const* rows, Index at, IntVectors::Ints (&out)[4]) {
  using V = IntVectors;
  const V::Ints a = V::loadEveryFourth(rows, at), b = V::loadEveryFourth(rows + 1, at),
                c = V::loadEveryFourth(rows + 2, at), d = V::loadEveryFourth(rows + 3, at);
  const V::Ints ab0 = V::interleaveLow32(a, b), ab1 = V::interleaveHigh32(a, b);
  const V::Ints cd0 = V::interleaveLow32(c, d), cd1 = V::interleaveHigh32(c, d);
  out[0] = V::interleaveLow64(ab0, cd0);
  out[1] = V::interleaveHigh64(ab0, cd0);
  out[2] = V::interleaveLow64(ab1, cd1);
  out[3] = V::interleaveHigh64(ab1, cd1);
}

}  // namespace
}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_DWORD_TRANSPOSE_H
