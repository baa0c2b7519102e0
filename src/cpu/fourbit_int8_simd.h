// SPDX-License-Identifier: MPL-2.0
// 4-bit codes times int8 activations, one struct per instruction set; as in simd.h, each exists only where the compiler
// may use that set, in an unnamed namespace. Lanes are outputs; X is signed, and W unsigned but with NEON:
//
//   without VNNI  vpmaddubsw adds two products, |u₀x₀ + u₁x₁| ≤ 2·152·107 < 2¹⁵, and does not saturate. More of them
//                 leave 16 bits, but modulo 2¹⁶ nothing is lost: with the correction -kOffset·Σx the sum is that of
//                 signed levels, and exact again where that fits. Four always do, |Σqx| ≤ 4·76·107 < 2¹⁵; eight do
//                 where Σq²·Σx² < 2³⁰. Only then come vpmaddwd and vpaddd, once for 8 or 16 codes of an output:
//
//                   levels 0 2 4 6 │ vpmaddubsw ─▶ 2×16 bits ─╮
//                   levels 1 3 5 7 │ vpmaddubsw ─▶ 2×16 bits ─┴ vpaddw ─ vpaddw correction ─ vpmaddwd 1 ─ vpaddd sum
//
//   vpdpbusd      4 products in 32 bits: levels in 8 bits, 127 steps; one correction for a group's sum.
//   sdot          the same of signed levels, and no correction.
//
// A level is q/count, |q| ≤ kOffset, and its code's byte u = q + kOffset. The counts were searched for the least error
// of NF4's levels, weighted as normal values choose them, and of FP4's. Root of the mean square over that of the
// levels: 6.3e-3 with 7 bits (c = 76.28: less than with 63 steps for W and 127 for X, 9.5e-3), 4.7e-3 with 8.
#ifndef EIGENQ_CPU_FOURBIT_INT8_SIMD_H
#define EIGENQ_CPU_FOURBIT_INT8_SIMD_H

#include "dword_transpose.h"

namespace EigenQ {
namespace internal {
namespace {

/** Integers that stand for levels and for X, where four products meet in 16 bits. */
struct SevenBitLevels {
  static constexpr float kCounts[] = {76.28f, 72.0f};  // of NF4, of FP4
  static constexpr int kOffset = 76, kSteps = 107;
  static_assert(2 * 2 * kOffset * kSteps < (1 << 15), "a sum of two products of unsigned levels fits int16");
  static_assert(4 * kOffset * kSteps < (1 << 15), "a sum of four products of signed levels fits int16");
  static constexpr int kSquareUnit = 46;  // of the squares of levels, rounded up
  static_assert(2 * (kOffset * kOffset / kSquareUnit + 1) < 256, "the squares of two levels fit a byte");
};

/** The same where they meet in 32 bits. */
struct EightBitLevels {
  static constexpr float kCounts[] = {124.11f, 120.0f};
  static constexpr int kOffset = 127, kSteps = 127, kSquareUnit = 64;
};

struct SignedLevels : EightBitLevels {
  static constexpr int kOffset = 0;
};

#if defined(__AVX2__) || defined(__aarch64__)

struct FourBitInt8Vectors : IntVectors {
  static Ints later(Ints pairs) { return bitAnd(pairs, broadcast(0x0f0f0f0f)); }
  static Ints earlier(Ints pairs) { return later(shiftRight16(pairs, 4)); }
  static Ints broadcastFour(const std::int8_t* codes) {
    std::int32_t four;
    std::memcpy(&four, codes, sizeof four);
    return broadcast(four);
  }
  /** to[lanes] += float(sum)·(w[lanes]·x). */
  static void addScaled(Ints sum, const float* w, float x, float* to) {
    const Floats scale = multiply(loadFloats(w), broadcastFloat(x));
    storeFloats(to, multiplyAdd(toFloats(sum), scale, loadFloats(to)));
  }
};

#endif

#if defined(__AVX2__)

/** Four or eight products in 16 bits. A step's values of a row: codes 0 2 4 6 of X, 1 3 5 7, 8 10 12 14, 9 11 13 15,
 * and in 16 bits each the corrections of the first two dwords, of the others, and of all. */
struct FourBitInt8Sums16 : FourBitInt8Vectors, SevenBitLevels {
  using Correction = std::int16_t;  // of a lane in which products meet
  static constexpr int kStepDwords = 4, kStepBytes = 28;
  static constexpr bool kBoundsSquares = true;

  /** Lays the values of a step out; \a codes in the order in which a panel has them. */
  static void layOut(const std::int8_t* codes, std::int8_t* to) {
    std::int16_t corrections[6];
    for (int half = 0; half < 2; ++half) {
      const std::int8_t* const c = codes + 2 * half;
      corrections[half] = static_cast<std::int16_t>(-kOffset * (c[0] + c[1] + c[4] + c[5]));
      corrections[2 + half] = static_cast<std::int16_t>(-kOffset * (c[8] + c[9] + c[12] + c[13]));
      corrections[4 + half] = static_cast<std::int16_t>(corrections[half] + corrections[2 + half]);  // modulo 2¹⁶
    }
    std::memcpy(to, codes, 16);
    std::memcpy(to + 16, corrections, 12);
  }

  /** The larger sum of squares of those codes of a step that meet in 16 bits when eight do. */
  static std::uint32_t largerSquares(const std::int8_t* codes) {
    std::uint32_t sum[2] = {};
    for (int i = 0; i < 4 * kStepDwords; ++i) sum[i / 2 % 2] += static_cast<std::uint32_t>(codes[i] * codes[i]);
    return sum[0] > sum[1] ? sum[0] : sum[1];
  }
  static Ints begin(const std::int32_t*) { return broadcast(0); }

  /** sum += the products of R rows with a step of two vectors of outputs. With kEights, eight meet in 16 bits, else
   * four. */
  template <bool kEights, int R>
  static EIGENQ_STRONG_INLINE void addStep(const std::int8_t* x, const std::uint8_t* levels, Ints (&sum)[R][2]) {
    if constexpr (kEights) {
      addEights(x, levels, sum);
    } else {
      addFours(x, x + 16, levels, sum);
      addFours(x + 8, x + 20, levels + 2 * kDwordBytes, sum);
    }
  }

  /** correction + the products of \a w0 by \a x0 and of \a w1 by \a x1, eight in each lane of 32 bits. */
  static Ints addProducts(Ints w0, Ints x0, Ints w1, Ints x1, Ints correction) {
    return addNeighbours(add16(add16(multiplyPairs8(w0, x0), multiplyPairs8(w1, x1)), correction));
  }

 private:
  static constexpr int kDwordBytes = 2 * sizeof(Ints);  // of a panel

  template <int R>
  static EIGENQ_STRONG_INLINE void addEights(const std::int8_t* x, const std::uint8_t* levels, Ints (&sum)[R][2]) {
    Ints pairs[R][2];
    for (int r = 0; r < R; ++r) pairs[r][0] = pairs[r][1] = broadcastFour(x + r * kStepBytes + 24);
    for (int d = 0; d < kStepDwords; ++d, levels += kDwordBytes) {
      const Ints w0 = load(levels), w1 = load(levels + sizeof(Ints));
      for (int r = 0; r < R; ++r) {
        Ints four = broadcastFour(x + r * kStepBytes + 4 * d);
        keep(four);
        pairs[r][0] = add16(pairs[r][0], multiplyPairs8(w0, four));
        keep(pairs[r][0]);
        pairs[r][1] = add16(pairs[r][1], multiplyPairs8(w1, four));
        keep(pairs[r][1]);
      }
    }
    for (int r = 0; r < R; ++r) {
      for (int i = 0; i < 2; ++i) sum[r][i] = add32(sum[r][i], addNeighbours(pairs[r][i]));
    }
  }

  /** Of two dwords, the rows' values from \a x and their corrections from \a corrections on. */
  template <int R>
  static EIGENQ_STRONG_INLINE void addFours(const std::int8_t* x, const std::int8_t* corrections,
                                            const std::uint8_t* levels, Ints (&sum)[R][2]) {
    const Ints w00 = load(levels), w01 = load(levels + sizeof(Ints));
    const Ints w10 = load(levels + kDwordBytes), w11 = load(levels + kDwordBytes + sizeof(Ints));
    for (int r = 0; r < R; ++r, x += kStepBytes, corrections += kStepBytes) {
      Ints four = broadcastFour(x);
      keep(four);
      Ints a = multiplyPairs8(w00, four), b = multiplyPairs8(w01, four);
      keep(a), keep(b);
      four = broadcastFour(x + 4);
      keep(four);
      a = add16(a, multiplyPairs8(w10, four));
      keep(a);
      b = add16(b, multiplyPairs8(w11, four));
      keep(b);
      four = broadcastFour(corrections);
      keep(four);
      sum[r][0] = add32(sum[r][0], addNeighbours(add16(a, four)));
      keep(sum[r][0]);
      sum[r][1] = add32(sum[r][1], addNeighbours(add16(b, four)));
      keep(sum[r][1]);
    }
  }

  static Ints addNeighbours(Ints pairs) { return multiplyPairs16(pairs, broadcast(0x00010001)); }
};

#endif

#if defined(__AVX2__) || defined(__aarch64__)

/** Four products in 32 bits, by what \a Dot adds. */
template <typename Dot, typename Levels>
struct FourBitInt8Sums32 : FourBitInt8Vectors, Levels {
  using Correction = std::int32_t;
  static constexpr int kStepDwords = 1, kStepBytes = 4;
  static constexpr bool kBoundsSquares = false;

  static void layOut(const std::int8_t* codes, std::int8_t* to) { std::memcpy(to, codes, 4); }

  /** What takes the offset of the levels back. */
  static std::int32_t correction(const std::int8_t* codes, Index count) {
    std::int32_t total = 0;
    for (Index i = 0; i < count; ++i) total += codes[i];
    return -Levels::kOffset * total;
  }
  static Ints begin(const std::int32_t* correction) { return broadcast(*correction); }

  template <bool, int R>
  static EIGENQ_STRONG_INLINE void addStep(const std::int8_t* x, const std::uint8_t* levels, Ints (&sum)[R][2]) {
    const Ints w0 = load(levels), w1 = load(levels + sizeof(Ints));
    for (int r = 0; r < R; ++r) {
      Ints four = broadcastFour(x + r * kStepBytes);
      keep(four);
      sum[r][0] = Dot::multiplyAdd(w0, four, sum[r][0]);
      keep(sum[r][0]);
      sum[r][1] = Dot::multiplyAdd(w1, four, sum[r][1]);
      keep(sum[r][1]);
    }
  }

  static Ints addProducts(Ints w0, Ints x0, Ints w1, Ints x1, Ints correction) {
    return Dot::multiplyAdd(w1, x1, Dot::multiplyAdd(w0, x0, correction));
  }
};

#endif

#if defined(__AVX512F__) && defined(__AVX512BW__)

#if defined(__AVX512VNNI__)
struct Vpdpbusd512 {
  static __m512i multiplyAdd(__m512i w, __m512i x, __m512i c) { return _mm512_dpbusd_epi32(c, w, x); }
};
struct FourBitInt8Avx512Vnni : FourBitInt8Sums32<Vpdpbusd512, EightBitLevels> {
  static constexpr int kTileRows = 6;  // 6×2 sums, 2 vectors of W, what a row takes
};
#else
struct FourBitInt8Avx512 : FourBitInt8Sums16 {
  static constexpr int kTileRows = 6;
};
#endif

#elif defined(__AVX2__)

#if defined(__AVXVNNI__)
struct Vpdpbusd256 {
  static __m256i multiplyAdd(__m256i w, __m256i x, __m256i c) { return _mm256_dpbusd_avx_epi32(c, w, x); }
};
struct FourBitInt8AvxVnni : FourBitInt8Sums32<Vpdpbusd256, EightBitLevels> {
  static constexpr int kTileRows = 4;
};
#else
struct FourBitInt8Avx2 : FourBitInt8Sums16 {
  static constexpr int kTileRows = 4;  // 4×2 sums, 4 vectors of W, ones, what a row takes
};
#endif

#elif defined(__ARM_FEATURE_DOTPROD)

struct Sdot {
  using Ints = IntVectors::Ints;
  static Ints multiplyAdd(Ints w, Ints x, Ints c) { return {add(w.low, x.low, c.low), add(w.high, x.high, c.high)}; }

 private:
  static uint8x16_t add(uint8x16_t w, uint8x16_t x, uint8x16_t c) {
    return vreinterpretq_u8_s32(vdotq_s32(vreinterpretq_s32_u8(c), vreinterpretq_s8_u8(w), vreinterpretq_s8_u8(x)));
  }
};
struct FourBitInt8NeonDot : FourBitInt8Sums32<Sdot, SignedLevels> {
  static constexpr int kTileRows = 4;  // 4×4 sums, 4 vectors of W, what a row takes
};

#endif

}  // namespace
}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_FOURBIT_INT8_SIMD_H
