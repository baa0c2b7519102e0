// SPDX-License-Identifier: MPL-2.0
// dynamic_map.cpp: the 256 levels of bitsandbytes' create_dynamic_map, in its own float arithmetic.
//
// The decade 10^(e-6), e = 0 … 6, holds 2^e levels (signed; 2^(e+1) unsigned): the midpoints of as many equal parts of
// [0.1, 1], times the power of ten. Negatives (signed), 0 and 1 complete the 256.
#include <algorithm>
#include <cmath>

#include <eigen_q/src/DynamicMap.h>

namespace EigenQ {
namespace internal {
namespace {

constexpr float kPowersOfTen[] = {1e-6f, 1e-5f, 1e-4f, 1e-3f, 1e-2f, 1e-1f, 1e0f};

/** Boundary j of \a parts equal parts of [0.1, 1], as PyTorch evaluates linspace on x86: from the nearer end, and with
 * one rounding. Two roundings would change 42 of the levels by an ulp. */
float boundary(int j, int parts) {
  constexpr float first = 0.1f, last = 1.0f;
  const float step = (last - first) / static_cast<float>(parts);
  if (j < (parts + 1) / 2) return std::fma(step, static_cast<float>(j), first);
  return std::fma(-step, static_cast<float>(parts - j), last);
}

ByteCodeTable makeDynamicMap(bool isSigned) {
  ByteCodeTable table;
  auto next = table.begin();
  for (int e = 0; e < 7; ++e) {
    const int parts = 1 << (isSigned ? e : e + 1);
    for (int j = 0; j < parts; ++j) {
      const float mean = (boundary(j, parts) + boundary(j + 1, parts)) * 0.5f;
      const float level = kPowersOfTen[e] * mean;
      *next++ = level;
      if (isSigned) *next++ = -level;
    }
  }
  *next++ = 0;
  *next++ = 1;
  std::sort(table.begin(), table.end());
  return table;
}

}  // namespace

const ByteCodeTable& signedDynamicMap() {
  static const ByteCodeTable table = makeDynamicMap(true);
  return table;
}

const ByteCodeTable& unsignedDynamicMap() {
  static const ByteCodeTable table = makeDynamicMap(false);
  return table;
}

}  // namespace internal
}  // namespace EigenQ
