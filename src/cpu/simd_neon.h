// SPDX-License-Identifier: MPL-2.0
// The operations of simd.h on 64-bit ARM, whose baseline they belong to. Internal linkage; see there for the reason.
#ifndef EIGENQ_CPU_SIMD_NEON_H
#define EIGENQ_CPU_SIMD_NEON_H

#include "simd.h"

#include <arm_neon.h>

namespace EigenQ {
namespace internal {
namespace {

struct Neon {
  using Vec = float32x4_t;
  using Table = uint8x16x4_t;  // 16 floats, byte by byte
  static constexpr int kLanes = 4;
  static constexpr int kTileRows = 8;  // 8×2 accumulators + 2 weights + 8 values of X fit 32 registers

  static Vec zero() { return vdupq_n_f32(0); }
  static Vec load(const float* p) { return vld1q_f32(p); }
  static void store(float* p, Vec v) { vst1q_f32(p, v); }
  static Vec broadcast(float v) { return vdupq_n_f32(v); }
  static Vec mul(Vec a, Vec b) { return vmulq_f32(a, b); }
  static Vec add(Vec a, Vec b) { return vaddq_f32(a, b); }
  static Vec sub(Vec a, Vec b) { return vsubq_f32(a, b); }
  static Vec div(Vec a, Vec b) { return vdivq_f32(a, b); }
  static Vec sqrt(Vec v) { return vsqrtq_f32(v); }
  // Not vmaxq and vminq: those are NaN where either is.
  static Vec larger(Vec a, Vec b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
  static Vec smaller(Vec a, Vec b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
  static Vec zeroBelow(Vec x, Vec limit, Vec v) {
    return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(v), vcltq_f32(x, limit)));
  }
  static Vec addExponent(Vec v, Vec n) {
    return vreinterpretq_f32_u32(vaddq_u32(vreinterpretq_u32_f32(v), vshlq_n_u32(vreinterpretq_u32_f32(n), 23)));
  }
  static Vec multiplyAdd(Vec a, Vec b, Vec c) { return vfmaq_f32(c, a, b); }
  static float sum(Vec v) { return vaddvq_f32(v); }
  static float largest(Vec v) { return vmaxvq_f32(v); }
  static void addWidened(Vec v, bool first, double* to) {
    const float64x2_t low = vcvt_f64_f32(vget_low_f32(v)), high = vcvt_high_f64_f32(v);
    vst1q_f64(to, first ? low : vaddq_f64(vld1q_f64(to), low));
    vst1q_f64(to + 2, first ? high : vaddq_f64(vld1q_f64(to + 2), high));
  }
  static Vec loadNarrowed(const double* from) {
    return vcvt_high_f32_f64(vcvt_f32_f64(vld1q_f64(from)), vld1q_f64(from + 2));
  }

  static Vec fromHalf(const std::uint16_t* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
  static Vec fromBFloat16(const std::uint16_t* p) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16)); }
  static Vec fromInt8(const std::int8_t* codes) {
    std::uint32_t four;
    std::memcpy(&four, codes, sizeof four);
    const int16x8_t wide = vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(four)));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide)));
  }
  static Table loadTable(const float* table16) {
    Table table;
    for (int i = 0; i < 4; ++i) table.val[i] = vreinterpretq_u8_f32(vld1q_f32(table16 + 4 * i));
    return table;
  }
  static Vec decodeFourBit(const std::uint8_t* pairs, Table table) {
    std::uint16_t two;
    std::memcpy(&two, pairs, sizeof two);
    // Byte b of the value with code c stands at 4c + b: a high nibble goes down by two bits, a low one up.
    constexpr std::uint8_t kPair[16] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1};
    constexpr std::int8_t kShift[16] = {-2, -2, -2, -2, 2, 2, 2, 2, -2, -2, -2, -2, 2, 2, 2, 2};
    const uint8x16_t bytes = vqtbl1q_u8(vreinterpretq_u8_u16(vdupq_n_u16(two)), vld1q_u8(kPair));
    const uint8x16_t first = vandq_u8(vshlq_u8(bytes, vld1q_s8(kShift)), vdupq_n_u8(0x3c));
    const uint8x16_t index = vorrq_u8(first, vreinterpretq_u8_u32(vdupq_n_u32(0x03020100)));
    return vreinterpretq_f32_u8(vqtbl4q_u8(table, index));
  }

  static void transpose(Vec (&v)[4]) {
    const float32x4_t a = vtrn1q_f32(v[0], v[1]), b = vtrn2q_f32(v[0], v[1]);
    const float32x4_t c = vtrn1q_f32(v[2], v[3]), d = vtrn2q_f32(v[2], v[3]);
    v[0] = vcombine_f32(vget_low_f32(a), vget_low_f32(c));
    v[1] = vcombine_f32(vget_low_f32(b), vget_low_f32(d));
    v[2] = vcombine_f32(vget_high_f32(a), vget_high_f32(c));
    v[3] = vcombine_f32(vget_high_f32(b), vget_high_f32(d));
  }
};

}  // namespace
}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_SIMD_NEON_H
