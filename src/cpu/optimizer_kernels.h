// SPDX-License-Identifier: MPL-2.0
// optimizer_kernels.h: the steps of OptimizerKernels.h, a block at a time, for the instruction set of the file that
// includes this.
//
//   codes, absmax ─ decode → m, v of 256 values in L1 ─ update → m, v, w ─ their absmax, encode → codes, absmax
//
// Traffic  2 B of codes, 4 B of gradient, 8 B of parameter and its new value: 16 B a value beside 4/256 B of absmax.
// Work     three divisions and a square root, and two lookups a moment: its level, and where its new code lies.
// Shape    plain loops over arrays, which the compiler vectorises. Unnamed namespace and builtins only: nothing here
// may
//          be merged by the linker with the code of another instruction set.
#ifndef EIGENQ_CPU_OPTIMIZER_KERNELS_H
#define EIGENQ_CPU_OPTIMIZER_KERNELS_H

#include <eigen_q/src/DynamicMap.h>
#include <eigen_q/src/OptimizerKernels.h>
#include <eigen_q/src/ScalarConvert.h>

#include "moment_map.h"

namespace EigenQ {
namespace internal {

namespace {

constexpr int kSignedZeroCode = 127;  // of the signed map: lower codes are negative
constexpr std::int32_t kSmallestNormal = 0x00800000, kInfinity = 0x7f800000;

/** Magnitudes order as their bits, NaN above infinity. Signed, since SSE2 and AVX2 compare only those. */
EIGENQ_STRONG_INLINE std::int32_t magnitude(float v) { return static_cast<std::int32_t>(bitsOf(v) & ~kFloatSign); }
EIGENQ_STRONG_INLINE std::int32_t largerMagnitude(float a, float b) {
  return magnitude(a) > magnitude(b) ? magnitude(a) : magnitude(b);
}

/** CUDA flushes subnormal results to zeros of their sign. */
EIGENQ_STRONG_INLINE float flushed(float v) {
  return floatOf(magnitude(v) < kSmallestNormal ? bitsOf(v) & kFloatSign : bitsOf(v));
}

EIGENQ_STRONG_INLINE float signOf(float v) { return static_cast<float>((v > 0) - (v < 0)); }

void updateAdam(const AdamStep& step, float* __restrict m, float* __restrict v) {
  const AdamStep s = step;  // a copy: no store of the loop can change it
  float* __restrict const w = s.parameter;
  const float rest1 = 1 - s.beta1, rest2 = 1 - s.beta2;
  for (Index i = 0; i < s.size; ++i) {
    const float g = s.gradScale * s.gradient[i];
    const float mi = flushed(__builtin_fmaf(rest1, g, s.beta1 * m[i]));
    const float vi = flushed(__builtin_fmaf(rest2 * g, g, s.beta2 * v[i]));
    const float moved = s.keep * __builtin_fmaf(-s.rate, mi / (__builtin_sqrtf(vi) + s.eps), w[i]);
    const bool finite = largerMagnitude(mi, vi) < kInfinity;  // one comparison: no branch
    m[i] = finite ? mi : 0;
    v[i] = finite ? vi : 0;
    w[i] = finite ? moved : w[i];
  }
}

void updateLion(const LionStep& step, float* __restrict m) {
  const LionStep s = step;
  float* __restrict const w = s.parameter;
  const float rest1 = 1 - s.beta1, rest2 = 1 - s.beta2;
  for (Index i = 0; i < s.size; ++i) {
    const float g = s.gradScale * s.gradient[i];
    const float direction = signOf(__builtin_fmaf(rest1, g, s.beta1 * m[i]));
    const float mi = flushed(__builtin_fmaf(rest2, g, s.beta2 * m[i]));
    const float moved = __builtin_fmaf(-s.rate, direction, s.keep * w[i]);
    const bool finite = magnitude(mi) < kInfinity;
    m[i] = finite ? mi : 0;
    w[i] = finite ? moved : w[i];
  }
}

void decode(const MomentView& moment, const MomentMap& map, Index count, float* __restrict values) {
  const std::uint8_t* const codes = moment.codes;
  const float* const levels = map.levels;
  const float absmax = moment.absmax[0];
  for (Index i = 0; i < count; ++i) values[i] = levels[codes[i]] * absmax;
}

float absmaxOf(const float* values, Index count) {
  std::int32_t largest = 0;
  for (Index i = 0; i < count; ++i) largest = magnitude(values[i]) > largest ? magnitude(values[i]) : largest;
  return floatOf(static_cast<std::uint32_t>(largest));
}

/** In a block of zeros 0/0 gives code 0. */
void encode(const float* __restrict values, float absmax, const MomentMap& shared, Index count,
            std::uint8_t* __restrict codes) {
  const MomentMap map = shared;
  for (Index i = 0; i < count; ++i) codes[i] = absmax > 0 ? map.encode(values[i] / absmax) : std::uint8_t(0);
}

void store(const float* values, const MomentMap& map, Index count, const MomentView& moment) {
  moment.absmax[0] = absmaxOf(values, count);
  encode(values, moment.absmax[0], map, count, moment.codes);
}

/** A code whose level has not the sign of its value moves by one, away from zero or around the end: a tiny negative
 * value takes the level below zero, and in a block of zeros +0 takes code 255. */
void keepSigns(const float* values, Index count, std::uint8_t* __restrict codes) {
  for (Index i = 0; i < count; ++i) {
    const int code = codes[i];
    const bool negative = (bitsOf(values[i]) & kFloatSign) != 0;
    const int move = values[i] > 0 ? 1 : -1;
    codes[i] = static_cast<std::uint8_t>((code < kSignedZeroCode) != negative ? code + move : code);
  }
}

template <typename Step, typename UpdateBlock>
EIGENQ_STRONG_INLINE void forEachBlock(const Step& s, UpdateBlock update) {
  for (Index begin = 0; begin < s.size; begin += kOptimizerBlockSize) {
    const Index left = s.size - begin;
    update(s.part(begin, left < kOptimizerBlockSize ? left : kOptimizerBlockSize));
  }
}

void adamStep(const AdamStep& s) {
  if (!s.m.codes) return updateAdam(s, s.m.values, s.v.values);
  const MomentMap map1 = signedMomentMap(), map2 = unsignedMomentMap();
  forEachBlock(s, [&](const AdamStep& block) {
    float m[kOptimizerBlockSize], v[kOptimizerBlockSize];
    decode(block.m, map1, block.size, m);
    decode(block.v, map2, block.size, v);
    updateAdam(block, m, v);
    store(m, map1, block.size, block.m);
    keepSigns(m, block.size, block.m.codes);
    store(v, map2, block.size, block.v);
  });
}

void lionStep(const LionStep& s) {
  if (!s.m.codes) return updateLion(s, s.m.values);
  const MomentMap map = signedMomentMap();
  forEachBlock(s, [&](const LionStep& block) {
    float m[kOptimizerBlockSize];
    decode(block.m, map, block.size, m);
    updateLion(block, m);
    store(m, map, block.size, block.m);
    keepSigns(m, block.size, block.m.codes);
  });
}

}  // namespace
}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_OPTIMIZER_KERNELS_H
