// SPDX-License-Identifier: MPL-2.0
// Y (m×n) = X·Wᵀ of 4-bit weights with X in 8 bits, for one instruction set: W.withInt8Activations().
//
//   X, quantised once   │ tile of R rows │: group 0: step 0: row 0 … row R-1 │ step 1 … │ group 1 …     4 codes a step
//                         a scale and a correction for each row and group
//   W, a piece at a time   panel[step][kPanel outputs] of 4 levels in a byte each, scales[group][kPanel]
//
//   task: 4·kPanel outputs × up to 256 rows of X
//     ╰ panel: kPanel outputs, kDepth codes, 16 KiB in L1, decoded once; the tiles of X come past from L2
//         ╰ tile: R × 2 vectors of sums in int32, over a group; then to float, times both scales, added to memory
//
// Arithmetic  A group is kTokenGroup values of X, and no more codes of W than share an absmax. x ≈ q·X₆₄/kSteps with
// X₆₄
//             the largest magnitude in the group, level ≈ (u - kOffset)/count (fourbit_int8_simd.h). Sums of a group
//             are exact: they begin at -kOffset·Σq, which takes the offset of the levels back. Steps hold codes 0, 2,
//             4, 6 or 1, 3, 5, 7 of eight, as the nibbles of a dword leave them.
// Traffic     W once for 256 rows, 0.56 B a weight; X from L2 for each panel, 1 B a value.
// Work        Decoding 4·kLanes weights takes a shift or none, an and, a look-up, and a quarter of 8 shuffles and 16
//             loads; multiplying them by a value each 1 instruction with VNNI and 3 without. Scaling a sum takes 3 for
//             each 16 steps.
#ifndef EIGENQ_CPU_FOURBIT_INT8_H
#define EIGENQ_CPU_FOURBIT_INT8_H

#include "fourbit_gemv.h"
#include "fourbit_int8_simd.h"
#include "row_stream.h"

#include <eigen_q/src/ScalarConvert.h>

#include <cmath>
#include <limits>

namespace EigenQ {
namespace internal {
namespace {

constexpr Index kTokenGroup = 64, kStepCodes = 4;

/** The levels' bytes, and the value of a unit. */
template <typename Isa>
struct RoundedLevels {
  alignas(16) std::uint8_t bytes[16];
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
      bytes[i] = static_cast<std::uint8_t>(Isa::kOffset + static_cast<int>(std::nearbyint(table16[i] * count)));
    }
    unit = 1 / count;
  }
};

/** Up to R rows of X as a tile multiplies them, from some group on. */
struct TokenTile {
  const std::int8_t* codes;         // (step, R, 4)
  const float* scales;              // (group, R)
  const std::int32_t* corrections;  // (group, R)
};

/** Rows of X in codes. Groups are those of W here: half a token group where blocks of W are no larger. */
class Tokens {
 public:
  Tokens(Index rows, Index cols, Index tileRows, Index group)
      : m_rows(rows), m_tileRows(tileRows), m_group(group), m_padded(roundUp(cols, kTokenGroup)) {
    const Index perGroup = rows * (m_padded / group);
    float* memory = scratch(Scratch::kActivations, rows * m_padded / 4 + 2 * perGroup);
    m_scales = memory;
    m_corrections = reinterpret_cast<std::int32_t*>(memory + perGroup);
    m_codes = reinterpret_cast<std::int8_t*>(memory + 2 * perGroup);
  }

  Index rows() const { return m_rows; }
  Index padded() const { return m_padded; }
  Index group() const { return m_group; }
  Index tiles() const { return ceilDiv(m_rows, m_tileRows); }
  Index tileRows() const { return m_tileRows; }
  Index rowsOf(Index tile) const { return least(m_tileRows, m_rows - tile * m_tileRows); }

  /** From \a depth on, a multiple of kTokenGroup. */
  TokenTile tile(Index tile, Index depth) const {
    const Index first = tile * m_tileRows, at = first * (m_padded / m_group) + depth / m_group * rowsOf(tile);
    return {m_codes + first * m_padded + depth * rowsOf(tile), m_scales + at, m_corrections + at};
  }

  /** Fills a tile. Scales take \a unit along.
   * \param firstRow  of x, where row 0 lies */
  template <typename Isa>
  void quantize(const ConstDenseView& x, Index firstRow, Index tile, float unit) const {
    const Index rows = rowsOf(tile), first = tile * m_tileRows;
    float* const buffer = scratch(Scratch::kTile, x.cols);
    for (Index r = 0; r < rows; ++r) {
      const float* const row = contiguousRow(x, firstRow + first + r, buffer);
      const Index at = first * (m_padded / m_group) + r;
      float* scale = m_scales + at;
      std::int32_t* correction = m_corrections + at;
      for (Index k = 0; k < m_padded; k += kTokenGroup) {
        float values[kTokenGroup] = {};
        std::memcpy(values, row + k, static_cast<std::size_t>(least(kTokenGroup, x.cols - k)) * sizeof(float));
        alignas(64) std::int8_t codes[kTokenGroup];
        const float step = unit * quantizeGroup(values, static_cast<float>(Isa::kSteps), codes);
        interleave(codes, rows, m_codes + first * m_padded + k * rows + r * kStepCodes);
        for (Index at = 0; at < kTokenGroup; at += m_group, scale += rows, correction += rows) {
          *scale = step;
          *correction = -Isa::kOffset * sum(codes + at, m_group);
        }
      }
    }
  }

 private:
  /** Rounds to multiples of the step that is returned: NaN where a value is not finite. What is all below 2⁻¹¹⁹ counts
   * as zeros, since its factor would be infinite. */
  static float quantizeGroup(const float* x, float steps, std::int8_t* codes) {
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

  static std::int32_t sum(const std::int8_t* codes, Index count) {
    std::int32_t total = 0;
    for (Index i = 0; i < count; ++i) total += codes[i];
    return total;
  }

  /** A row's steps, \a rows·kStepCodes bytes apart. */
  static void interleave(const std::int8_t* codes, Index rows, std::int8_t* to) {
    alignas(64) std::int8_t ordered[kTokenGroup];
    for (Index i = 0; i < kTokenGroup; i += 8) {
      for (Index j = 0; j < 4; ++j) ordered[i + j] = codes[i + 2 * j];
      for (Index j = 0; j < 4; ++j) ordered[i + 4 + j] = codes[i + 2 * j + 1];
    }
    for (Index i = 0; i < kTokenGroup; i += kStepCodes) std::memcpy(to + i * rows, ordered + i, kStepCodes);
  }

  Index m_rows, m_tileRows, m_group, m_padded;
  float* m_scales;
  std::int32_t* m_corrections;
  std::int8_t* m_codes;
};

template <typename Isa>
struct FourBitInt8 {
  using Ints = typename Isa::Ints;
  static constexpr int kLanes = Isa::kLanes, kPanel = 2 * kLanes;
  static constexpr Index kDepth = 16384 / kPanel, kPanels = 4;
  static constexpr Index kSuperRows = 256;  // rows of X that share one decoding
  static constexpr Index kCodes = 32;       // of a row, 16 bytes, that are decoded at once
  static constexpr Index kLineCodes = 128;  // of a cache line
  static constexpr Index kStreamed = 4096;  // of a row that streamRows() takes at once

  struct Panel {
    std::uint8_t* levels;  // (step, kPanel, 4)
    float* scales;         // (group, kPanel)
  };

  // ---- decoding -------------------------------------------------------------------------------------------------

  /** Levels of kCodes codes of each of kLanes rows. */
  static void decode(const std::uint8_t* const* rows, Index at, Ints table, std::uint8_t* levels) {
    Ints dwords[4];
    transposeDwords(rows, at, dwords);
    for (int q = 0; q < 4; ++q, levels += 2 * kPanel * kStepCodes) {
      Isa::store(levels, Isa::lookUp(table, Isa::earlier(dwords[q])));
      Isa::store(levels + kPanel * kStepCodes, Isa::lookUp(table, Isa::later(dwords[q])));
    }
  }

  /** scales[g·kPanel] = the absmax of a row's codes from \a flat on, \a groups of \a group codes. */
  static void gatherScales(const WeightView& w, Index flat, Index groups, Index group, float* scales) {
    if (w.absmax.plain && (Index(1) << w.blockShift) == group) {
      const float* const from = w.absmax.plain + (flat >> w.blockShift);
      for (Index g = 0; g < groups; ++g) scales[g * kPanel] = from[g];
    } else {
      for (Index g = 0; g < groups; ++g) scales[g * kPanel] = w.absmax((flat + g * group) >> w.blockShift);
    }
  }

  /** Outputs [output, output + kPanel), kDepth codes from \a depth on, as far as W reaches. Lanes behind the last
   * output repeat it. */
  static void fill(const WeightView& w, Index output, Index depth, Index group, Ints table, Panel to) {
    const std::uint8_t* rows[kPanel];
    const Index groups = ceilDiv(least(kDepth, w.cols - depth), group), end = groups * group;
    for (int r = 0; r < kPanel; ++r) {
      const Index flat = w.offset + least(output + r, w.rows - 1) * w.stride + depth;
      rows[r] = static_cast<const std::uint8_t*>(w.codes) + flat / 2;
      gatherScales(w, flat, groups, group, to.scales + r);
    }
    // A line of kLanes rows, then of the others: rows are often 2 KiB apart, and all their lines in one set or two of
    // L1.
    for (Index line = 0; line < end; line += kLineCodes) {
      const Index lineEnd = least(line + kLineCodes, end);
      for (int half = 0; half < kPanel; half += kLanes) {
        for (Index k = line; k < lineEnd; k += kCodes) {
          decode(rows + half, k / 2, table, to.levels + k * kPanel + half * kStepCodes);
        }
      }
    }
  }

  // ---- multiplying ----------------------------------------------------------------------------------------------

  /** acc (R, kPanel) (+)= a tile's products with \a groups groups of a panel. */
  template <int R>
  static void multiplyTile(TokenTile x, Panel w, Index groups, Index group, bool first, float* acc) {
    if (first) std::memset(acc, 0, R * kPanel * sizeof(float));
    const std::int8_t* codes = x.codes;
    const std::uint8_t* levels = w.levels;
    for (Index g = 0; g < groups; ++g) {
      Ints sum[R][2];
      for (int r = 0; r < R; ++r) sum[r][0] = sum[r][1] = Isa::broadcast(x.corrections[g * R + r]);
      for (Index step = 0; step < group / kStepCodes; ++step) {
        const Ints w0 = Isa::load(levels), w1 = Isa::load(levels + 4 * kLanes);
        for (int r = 0; r < R; ++r) {
          std::int32_t four;
          std::memcpy(&four, codes + r * kStepCodes, kStepCodes);
          Ints values = Isa::broadcast(four);
          Isa::keep(values);
          sum[r][0] = Isa::multiplyAdd(w0, values, sum[r][0]);
          Isa::keep(sum[r][0]);
          sum[r][1] = Isa::multiplyAdd(w1, values, sum[r][1]);
          Isa::keep(sum[r][1]);
        }
        codes += R * kStepCodes;
        levels += kPanel * kStepCodes;
      }
      for (int r = 0; r < R; ++r) {
        Isa::addScaled(sum[r][0], w.scales + g * kPanel, x.scales[g * R + r], acc + r * kPanel);
        Isa::addScaled(sum[r][1], w.scales + g * kPanel + kLanes, x.scales[g * R + r], acc + r * kPanel + kLanes);
      }
    }
  }

  using TileFunction = void (*)(TokenTile, Panel, Index, Index, bool, float*);
  template <int R = Isa::kTileRows>
  static TileFunction tileFunction(Index rows) {
    if constexpr (R > 1) {
      if (rows < R) return tileFunction<R - 1>(rows);
    }
    return &multiplyTile<R>;
  }

  /** acc of a panel (+)= its products with all rows of \a x. */
  static void multiplyTiles(const Tokens& x, Panel panel, Index depth, Index groups, float* acc) {
    const TileFunction whole = tileFunction(x.tileRows()), last = tileFunction(x.rowsOf(x.tiles() - 1));
    for (Index t = 0; t < x.tiles(); ++t, acc += x.tileRows() * kPanel) {
      (t + 1 < x.tiles() ? whole : last)(x.tile(t, depth), panel, groups, x.group(), depth == 0, acc);
    }
  }

  /** Panels [output, output + panels·kPanel) of all rows of \a x, which begin at row \a firstRow of Y. */
  static void multiplyPanels(const QuantizedProduct& p, const Tokens& x, Index firstRow, Index output, Index panels,
                             Ints table) {
    const Index rows = x.rows(), k = p.x.cols;
    float* const acc = scratch(Scratch::kTile, rows * panels * kPanel);
    float* const memory = scratch(Scratch::kPanel, kDepth * kPanel / 4 + kDepth / kCodes * kPanel);
    const Panel panel{reinterpret_cast<std::uint8_t*>(memory), memory + kDepth * kPanel / 4};
    for (Index depth = 0; depth < k; depth += kDepth) {
      const Index groups = ceilDiv(least(kDepth, k - depth), x.group());
      if (depth % kStreamed == 0) streamRows(p.w, output, panels * kPanel, depth, least(kStreamed, k - depth));
      for (Index i = 0; i < panels; ++i) {
        fill(p.w, output + i * kPanel, depth, x.group(), table, panel);
        multiplyTiles(x, panel, depth, groups, acc + i * rows * kPanel);
      }
    }
    for (Index i = 0; i < panels; ++i) {
      const Index col = output + i * kPanel;
      storeTile(acc + i * rows * kPanel, kPanel, firstRow, col, rows, least(kPanel, p.y.cols - col), p.y, p.epilogue);
    }
  }

  static void run(const QuantizedProduct& p) {
    const Index m = p.y.rows, n = p.y.cols, k = p.x.cols, work = m * n * k / 4;
    const Index group = p.w.offset % 64 == 0 && p.w.stride % 64 == 0 && p.w.blockShift >= 6 ? 64 : 32;
    const RoundedLevels<Isa> levels(p.w.codeTable);
    const Ints table = Isa::broadcastTable(levels.bytes);
    const Index tileRows = ceilDiv(m, ceilDiv(m, Isa::kTileRows)), superRows = kSuperRows / tileRows * tileRows;
    const Index threads = work < kWorthThreads ? 1 : Index(maxThreads());
    const Index panels = least(kPanels, ceilDiv(ceilDiv(n, kPanel), 4 * threads)), slab = panels * kPanel;
    for (Index row = 0; row < m; row += superRows) {
      const Tokens x(least(superRows, m - row), k, tileRows, group);
      forEachTask(x.tiles(), work, [&](Index tile) { x.quantize<Isa>(p.x, row, tile, levels.unit); });
      forEachTask(ceilDiv(n, slab), work, [&](Index task) {
        multiplyPanels(p, x, row, task * slab, least(panels, ceilDiv(n - task * slab, kPanel)), table);
      });
    }
  }
};

}  // namespace
}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_FOURBIT_INT8_H
