// SPDX-License-Identifier: MPL-2.0
// What products of 4-bit weights with X in 8 bits round: the levels of W, and X, laid out as tiles multiply it.
// Internal linkage; see simd.h for the reason.
//
//   X   │ tile of R rows │: group 0: step 0: row 0 … row R-1 │ step 1 … │ group 1 …
#ifndef EIGENQ_CPU_FOURBIT_INT8_TOKENS_H
#define EIGENQ_CPU_FOURBIT_INT8_TOKENS_H

#include "fourbit_gemv.h"
#include "fourbit_int8_simd.h"

#include <eigen_q/src/ScalarConvert.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace EigenQ {
namespace internal {
namespace {

constexpr Index kTokenGroup = 64, kDwordCodes = 4;

/** The levels' bytes, and the value of a unit. */
template <typename Isa>
struct RoundedLevels {
  alignas(16) std::uint8_t bytes[16];
  alignas(16) std::uint8_t squares[16];  // of the integers, in Isa::kSquareUnit, rounded up
  float unit;

  explicit RoundedLevels(const float* table16) {
    float least = std::numeric_limits<float>::infinity();
    for (const float count : Isa::kCounts) {
      const float error = squaredError(table16, count);
      if (error < least) choose(table16, count);
      least = error < least ? error : least;
    }
  }

 private:
  static float squaredError(const float* table16, float count) {
    float sum = 0;
    for (int i = 0; i < 16; ++i) {
      const float error = std::nearbyint(table16[i] * count) / count - table16[i];
      sum += error * error;
    }
    return sum;
  }
  void choose(const float* table16, float count) {
    for (int i = 0; i < 16; ++i) {
      const int level = static_cast<int>(std::nearbyint(table16[i] * count));
      bytes[i] = static_cast<std::uint8_t>(Isa::kOffset + level);
      squares[i] = static_cast<std::uint8_t>((level * level + Isa::kSquareUnit - 1) / Isa::kSquareUnit);
    }
    unit = 1 / count;
  }
};

/** Rounds to multiples of the step that is returned: NaN where a value is not finite. What is all below 2⁻¹¹⁹ counts
 * as zeros, since its factor would be infinite. */
inline float roundTokenGroup(const float* x, float steps, std::int8_t* codes) {
  std::uint32_t largestBits = 0;
  for (Index i = 0; i < kTokenGroup; ++i) {
    const std::uint32_t bits = bitsOf(x[i]) & 0x7fffffffu;
    largestBits = bits > largestBits ? bits : largestBits;
  }
  const float largest = floatOf(largestBits);
  const bool finite = largestBits < kFloatInfinity;
  const float factor = finite && largest >= 0x1p-119f ? steps / largest : 0.0f;
  // Adding 1.5·2²³ rounds to an integer, ties to even, and leaves it in the low bits.
  for (Index i = 0; i < kTokenGroup; ++i) {
    codes[i] = static_cast<std::int8_t>(bitsOf((finite ? x[i] : 0.0f) * factor + 0x1.8p23f) & 0xffu);
  }
  if (!finite) return std::numeric_limits<float>::quiet_NaN();
  return factor > 0 ? largest / steps : 0.0f;
}

/** Up to R rows of X as a tile multiplies them, from some group on. */
struct TokenTile {
  const std::int8_t* codes;         // (step, R, kStepBytes)
  const float* scales;              // (group, R)
  const std::int32_t* corrections;  // (group, R), where they are not in the steps
  const std::uint32_t* squares;     // (group): of all rows, the largest Isa::largerSquares() of its steps
};

/** Rows of X in codes. Groups are those of W here: half a token group where blocks of W are no larger. */
template <typename Isa>
class Tokens {
 public:
  static constexpr Index kStepCodes = kDwordCodes * Isa::kStepDwords;
  static constexpr Index kGroupBytes = kTokenGroup / kStepCodes * Isa::kStepBytes;  // of a row and token group

  Tokens(Index rows, Index cols, Index tileRows, Index group)
      : m_rows(rows), m_tileRows(tileRows), m_group(group), m_padded(roundUp(cols, kTokenGroup)) {
    const Index perGroup = rows * groups(), bytes = rows * (m_padded / kTokenGroup) * kGroupBytes;
    float* memory = scratch(Scratch::kActivations, bytes / 4 + 2 * perGroup + tiles() * groups());
    m_scales = memory;
    m_corrections = reinterpret_cast<std::int32_t*>(memory + perGroup);
    m_squares = reinterpret_cast<std::uint32_t*>(memory + 2 * perGroup);
    m_codes = reinterpret_cast<std::int8_t*>(memory + 2 * perGroup + tiles() * groups());
  }

  Index rows() const { return m_rows; }
  Index padded() const { return m_padded; }
  Index group() const { return m_group; }
  Index groups() const { return m_padded / m_group; }
  Index tiles() const { return ceilDiv(m_rows, m_tileRows); }
  Index tileRows() const { return m_tileRows; }
  Index rowsOf(Index tile) const { return least(m_tileRows, m_rows - tile * m_tileRows); }

  /** From \a depth on, a multiple of kTokenGroup. */
  TokenTile tile(Index tile, Index depth) const {
    const Index group = depth / m_group, at = tile * m_tileRows * groups() + group * rowsOf(tile);
    return {codesOf(tile, depth), m_scales + at, m_corrections + at, m_squares + tile * groups() + group};
  }

  /** Fills a tile. Scales take \a unit along.
   * \param firstRow  of x, where row 0 lies */
  void quantize(const ConstDenseView& x, Index firstRow, Index tile, float unit) const {
    const Index rows = rowsOf(tile), first = tile * m_tileRows;
    float* const buffer = scratch(Scratch::kTile, x.cols);
    std::uint32_t* const squares = m_squares + tile * groups();
    std::fill(squares, squares + groups(), 0u);
    for (Index r = 0; r < rows; ++r) {
      const float* const row = contiguousRow(x, firstRow + first + r, buffer);
      for (Index k = 0; k < m_padded; k += kTokenGroup) {
        float values[kTokenGroup] = {};
        std::memcpy(values, row + k, static_cast<std::size_t>(least(kTokenGroup, x.cols - k)) * sizeof(float));
        alignas(64) std::int8_t rounded[kTokenGroup], codes[kTokenGroup];
        const float step = unit * roundTokenGroup(values, static_cast<float>(Isa::kSteps), rounded);
        order(rounded, codes);
        std::int8_t* to = codesOf(tile, k) + r * Isa::kStepBytes;
        for (Index i = 0; i < kTokenGroup; i += kStepCodes, to += rows * Isa::kStepBytes) {
          Isa::layOut(codes + i, to);
          if constexpr (Isa::kBoundsSquares) {
            std::uint32_t& most = squares[(k + i) / m_group];
            most = std::max(most, Isa::largerSquares(codes + i));
          }
        }
        for (Index i = 0; i < kTokenGroup; i += m_group) {
          const Index at = first * groups() + (k + i) / m_group * rows + r;
          m_scales[at] = step;
          if constexpr (!Isa::kBoundsSquares) m_corrections[at] = Isa::correction(codes + i, m_group);
        }
      }
    }
  }

 private:
  std::int8_t* codesOf(Index tile, Index depth) const {
    return m_codes + (tile * m_tileRows * m_padded + depth * rowsOf(tile)) / kTokenGroup * kGroupBytes;
  }

  /** Of eight codes, the even ones first: as the nibbles of a dword of W leave them. */
  static void order(const std::int8_t (&codes)[kTokenGroup], std::int8_t (&ordered)[kTokenGroup]) {
    for (Index i = 0; i < kTokenGroup; i += 8) {
      for (Index j = 0; j < 4; ++j) ordered[i + j] = codes[i + 2 * j];
      for (Index j = 0; j < 4; ++j) ordered[i + 4 + j] = codes[i + 2 * j + 1];
    }
  }

  Index m_rows, m_tileRows, m_group, m_padded;
  float* m_scales;
  std::int32_t* m_corrections;
  std::uint32_t* m_squares;
  std::int8_t* m_codes;
};

}  // namespace
}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_FOURBIT_INT8_TOKENS_H
