// SPDX-License-Identifier: MPL-2.0
// Y (m×n) = X·Wᵀ of 4-bit weights with X in 8 bits, for one instruction set: W.withInt8Activations().
//
//   X, quantised once   │ tile of R rows │: group 0: step 0: row 0 … row R-1 │ step 1 … │ group 1 …
//                         a step is 4 or 16 codes of a row; each row and group has a scale
//   W, a piece at a time   panel[dword][kPanel outputs] of 4 levels in a byte each, scales[group][kPanel]
//
//   task: 4·kPanel outputs × up to 256 rows of X
//     ╰ panel: kPanel outputs, kDepth codes, 16 KiB in L1, decoded once; the tiles of X come past from L2
//         ╰ tile: R × 2 vectors of sums in int32, over a group; then to float, times both scales, added to memory
//
// Arithmetic  A group is kTokenGroup values of X, and no more codes of W than share an absmax. x ≈ q·X₆₄/kSteps with
//             X₆₄ the largest magnitude in the group, level ≈ (u - kOffset)/count (fourbit_int8_simd.h). Sums of a
//             group are exact, however they are added up. Dwords hold codes 0, 2, 4, 6 or 1, 3, 5, 7 of eight, as the
//             nibbles of a dword leave them.
// Traffic     W once for 256 rows, 0.56 B a weight, asked for a panel ahead; X from L2 for each panel, 1 B a value with
//             VNNI and 1.75 without.
// Work        Decoding 4·kLanes weights takes a shift or none, an and, a look-up, and a quarter of 8 shuffles and 16
//             loads. Multiplying them by a value each takes 1 instruction with VNNI; without, 3 where four products
//             meet in 16 bits and 2.5 where eight do: of four a clock 43 and 51 codes a clock with 256 bits, in a loop
//             in L1 40 and 50 (Zen 5), where a vpmaddwd for each vpmaddubsw left 33. Whether eight fit is known from
//             Σq² of a panel's lanes and Σx² of a tile's, which costs a look-up and more of each code of W and is done
//             from kSquareRows rows on: true of 99 % of groups where X and W are normal. Scaling a sum takes 3
//             instructions a group.
#ifndef EIGENQ_CPU_FOURBIT_INT8_H
#define EIGENQ_CPU_FOURBIT_INT8_H

#include "fourbit_int8_rows.h"
#include "fourbit_int8_tokens.h"
#include "prefetch.h"

namespace EigenQ {
namespace internal {
namespace {

template <typename Isa>
struct FourBitInt8 {
  using Ints = typename Isa::Ints;
  static constexpr Index kStepCodes = Tokens<Isa>::kStepCodes;
  static constexpr int kLanes = Isa::kLanes, kPanel = 2 * kLanes;
  static constexpr Index kDepth = 16384 / kPanel, kPanels = 4;
  static_assert(kDepth / 32 <= 32, "a bit for each group");
  static constexpr Index kSuperRows = 256;  // rows of X that share one decoding
  static constexpr Index kCodes = 32;       // of a row, 16 bytes, that are decoded at once
  static constexpr Index kLineCodes = 128;  // of a cache line
  static constexpr Index kSquareRows = 8;   // of X, for which squares of levels are worth adding up
  static constexpr std::uint32_t kUnbounded = std::numeric_limits<std::uint32_t>::max();

  struct Panel {
    std::uint8_t* levels;    // (dword, kPanel, 4)
    float* scales;           // (group, kPanel)
    std::uint32_t* squares;  // (group): a bound of the sums of squares of levels, where Isa asks for it
  };

  // ---- decoding -------------------------------------------------------------------------------------------------

  /** What fill() looks codes up in. */
  struct Tables {
    Ints levels, squares;

    explicit Tables(const RoundedLevels<Isa>& rounded)
        : levels(Isa::broadcast16(load16(rounded.bytes))), squares(Isa::broadcast16(load16(rounded.squares))) {}
  };

  /** Levels of kCodes codes of each of kLanes rows. With kSquares, \a largest becomes the largest of itself and the
   * sums of squares of the levels that meet in 16 bits when eight do. */
  template <bool kSquares>
  static void decode(const std::uint8_t* const* rows, Index at, Tables tables, std::uint8_t* levels, Ints& largest) {
    Ints dwords[4], squares{};
    transposeDwords(rows, at, dwords);
    for (int q = 0; q < 4; ++q, levels += 2 * kPanel * kDwordCodes) {
      const Ints earlier = Isa::earlier(dwords[q]), later = Isa::later(dwords[q]);
      Isa::store(levels, Isa::shuffleBytes(tables.levels, earlier));
      Isa::store(levels + kPanel * kDwordCodes, Isa::shuffleBytes(tables.levels, later));
      if constexpr (kSquares) {
        const Ints more =
            Isa::add8(Isa::shuffleBytes(tables.squares, earlier), Isa::shuffleBytes(tables.squares, later));
        const Ints fours = Isa::multiplyPairs8(more, Isa::broadcast(0x01010101));
        if (q % 2) largest = Isa::larger16(largest, Isa::add16(squares, fours));
        squares = fours;
      }
    }
  }

  /** scales[g·kPanel + r] = the absmax of row r's codes from flat[r] on, \a groups of \a group codes. */
  static void gatherScales(const WeightView& w, const Index (&flat)[kPanel], Index groups, Index group, float* scales) {
    Index g = 0;
    if (w.absmax.plain && (Index(1) << w.blockShift) == group) {
      const std::uint8_t* rows[kPanel];
      for (int r = 0; r < kPanel; ++r) {
        rows[r] = reinterpret_cast<const std::uint8_t*>(w.absmax.plain + (flat[r] >> w.blockShift));
      }
      for (; g + 4 <= groups; g += 4) {
        for (int half = 0; half < kPanel; half += kLanes) {
          Ints four[4];
          transposeDwords(rows + half, g * Index(sizeof(float)), four);
          for (int q = 0; q < 4; ++q) Isa::store(scales + (g + q) * kPanel + half, four[q]);
        }
      }
    }
    for (; g < groups; ++g) {
      for (int r = 0; r < kPanel; ++r) scales[g * kPanel + r] = w.absmax((flat[r] + g * group) >> w.blockShift);
    }
  }

  static std::uint32_t largestOf(Ints lanes16) {
    std::uint16_t lanes[2 * kLanes], largest = 0;
    Isa::store(lanes, lanes16);
    for (const std::uint16_t lane : lanes) largest = lane > largest ? lane : largest;
    return largest;
  }

  /** Outputs [output, output + kPanel), kDepth codes from \a depth on, as far as W reaches. Lanes behind the last
   * output repeat it. */
  template <bool kSquares>
  static void fill(const WeightView& w, Index output, Index depth, Index group, Tables tables, Panel to) {
    Index flat[kPanel];
    const std::uint8_t* rows[kPanel];
    const Index groups = ceilDiv(least(kDepth, w.cols - depth), group), end = groups * group;
    for (int r = 0; r < kPanel; ++r) {
      flat[r] = w.offset + least(output + r, w.rows - 1) * w.stride + depth;
      rows[r] = static_cast<const std::uint8_t*>(w.codes) + flat[r] / 2;
    }
    gatherScales(w, flat, groups, group, to.scales);
    Ints largest[kDepth / kCodes] = {};  // of a group
    // A line of kLanes rows, then of the others: rows are often 2 KiB apart, and all their lines in one set or two of
    // L1.
    for (Index line = 0; line < end; line += kLineCodes) {
      const Index lineEnd = least(line + kLineCodes, end);
      for (int half = 0; half < kPanel; half += kLanes) {
        for (Index k = line; k < lineEnd; k += kCodes) {
          decode<kSquares>(rows + half, k / 2, tables, to.levels + k * kPanel + half * kDwordCodes, largest[k / group]);
        }
      }
    }
    for (Index g = 0; g < groups; ++g) {
      to.squares[g] = kSquares ? Isa::kSquareUnit * largestOf(largest[g]) : kUnbounded;
    }
  }

  // ---- memory ---------------------------------------------------------------------------------------------------

  /** What the panel after this one is decoded from, asked for a few lines at a time while this one is multiplied: rows
   * are pages apart, and 512 bytes of each start no stream of the hardware's. */
  class NextPanel {
   public:
    NextPanel(const WeightView& w, Index output, Index depth)
        : m_w(w), m_row(output), m_end(least(output + kPanel, w.rows)), m_depth(depth) {
      beginRow();
    }

    void fetch(Index lines) {
      for (; lines > 0 && m_row < m_end; --lines) {
        prefetch(m_at);
        m_at += kCacheLine;
        if (m_at < m_rowEnd) continue;
        ++m_row;
        beginRow();
      }
    }

   private:
    void beginRow() {
      if (m_row >= m_end) return;
      const Index flat = m_w.offset + m_row * m_w.stride + m_depth;
      m_at = static_cast<const std::uint8_t*>(m_w.codes) + flat / 2;
      m_rowEnd = m_at + least(kDepth, m_w.cols - m_depth) / 2;
      if (m_w.absmax.plain) {  // a line, or parts of two
        prefetch(m_w.absmax.plain + (flat >> m_w.blockShift));
        prefetch(m_w.absmax.plain + ((flat + least(kDepth, m_w.cols - m_depth) - 1) >> m_w.blockShift));
      }
    }

    const WeightView& m_w;
    Index m_row, m_end, m_depth;
    const std::uint8_t *m_at = nullptr, *m_rowEnd = nullptr;
  };

  // ---- multiplying ----------------------------------------------------------------------------------------------

  /** The groups, as bits, whose sums of eight products fit 16 bits: (Σqx)² ≤ Σq²·Σx². None where they are few: a branch
   * that is guessed wrong costs more than eights gain. */
  static std::uint32_t groupsOfEights(const std::uint32_t* x, const std::uint32_t* w, Index groups) {
    std::uint32_t fit = 0;
    Index count = 0;
    for (Index g = 0; g < groups; ++g) {
      const bool fits = std::uint64_t{x[g]} * w[g] <= 32767u * 32767u;
      fit |= std::uint32_t{fits} << g;
      count += fits;
    }
    return 8 * count >= 7 * groups ? fit : 0;
  }

  /** Σ (lane) += the products of R rows with a group of a panel. */
  template <bool kEights, int R>
  static EIGENQ_STRONG_INLINE void multiplyGroup(const std::int8_t* values, const std::uint8_t* levels, Index steps,
                                                 Ints (&sum)[R][2]) {
    for (Index step = 0; step < steps; ++step) {
      Isa::template addStep<kEights, R>(values, levels, sum);
      values += R * Isa::kStepBytes;
      levels += kStepCodes * kPanel;
    }
  }

  /** acc (R, kPanel) (+)= a tile's products with \a groups groups of a panel. */
  template <int R>
  static void multiplyTile(TokenTile x, Panel w, Index groups, Index group, NextPanel& next, Index lines, bool first,
                           float* acc) {
    if (first) std::memset(acc, 0, R * kPanel * sizeof(float));
    const Index steps = group / kStepCodes;
    const std::uint32_t eights = Isa::kBoundsSquares ? groupsOfEights(x.squares, w.squares, groups) : 0;
    for (Index g = 0; g < groups; ++g) {
      next.fetch(lines);
      const std::int8_t* const values = x.codes + g * steps * R * Isa::kStepBytes;
      const std::uint8_t* const levels = w.levels + g * group * kPanel;
      Ints sum[R][2];
      for (int r = 0; r < R; ++r) sum[r][0] = sum[r][1] = Isa::begin(x.corrections + g * R + r);
      if (eights >> g & 1) {
        multiplyGroup<true, R>(values, levels, steps, sum);
      } else {
        multiplyGroup<false, R>(values, levels, steps, sum);
      }
      for (int r = 0; r < R; ++r) {
        Isa::addScaled(sum[r][0], w.scales + g * kPanel, x.scales[g * R + r], acc + r * kPanel);
        Isa::addScaled(sum[r][1], w.scales + g * kPanel + kLanes, x.scales[g * R + r], acc + r * kPanel + kLanes);
      }
    }
  }

  using TileFunction = void (*)(TokenTile, Panel, Index, Index, NextPanel&, Index, bool, float*);
  template <int R = Isa::kTileRows>
  static TileFunction tileFunction(Index rows) {
    if constexpr (R > 1) {
      if (rows < R) return tileFunction<R - 1>(rows);
    }
    return &multiplyTile<R>;
  }

  /** acc of a panel (+)= its products with all rows of \a x. */
  static void multiplyTiles(const Tokens<Isa>& x, Panel panel, Index depth, Index groups, NextPanel next, float* acc) {
    const Index lines = ceilDiv(kPanel * kDepth / kLineCodes, x.tiles() * groups);
    const TileFunction whole = tileFunction(x.tileRows()), last = tileFunction(x.rowsOf(x.tiles() - 1));
    for (Index t = 0; t < x.tiles(); ++t, acc += x.tileRows() * kPanel) {
      (t + 1 < x.tiles() ? whole : last)(x.tile(t, depth), panel, groups, x.group(), next, lines, depth == 0, acc);
    }
  }

  /** Panels [output, output + panels·kPanel) of all rows of \a x, which begin at row \a firstRow of Y. */
  static void multiplyPanels(const QuantizedProduct& p, const Tokens<Isa>& x, Index firstRow, Index output,
                             Index panels, const Tables& tables) {
    const Index rows = x.rows(), k = p.x.cols;
    float* const acc = scratch(Scratch::kTile, rows * panels * kPanel);
    constexpr Index kLevels = kDepth * kPanel / 4, kScales = kDepth / kCodes * kPanel;  // floats
    float* const memory = scratch(Scratch::kPanel, kLevels + kScales + kDepth / kCodes);
    const Panel panel{reinterpret_cast<std::uint8_t*>(memory), memory + kLevels,
                      reinterpret_cast<std::uint32_t*>(memory + kLevels + kScales)};
    const auto fillPanel = Isa::kBoundsSquares && rows >= kSquareRows ? fill<Isa::kBoundsSquares> : fill<false>;
    const auto next = [&](Index i, Index depth) {
      if (i + 1 < panels) return NextPanel(p.w, output + (i + 1) * kPanel, depth);
      return depth + kDepth < k ? NextPanel(p.w, output, depth + kDepth) : NextPanel(p.w, output + panels * kPanel, 0);
    };
    for (Index depth = 0; depth < k; depth += kDepth) {
      const Index groups = ceilDiv(least(kDepth, k - depth), x.group());
      for (Index i = 0; i < panels; ++i) {
        fillPanel(p.w, output + i * kPanel, depth, x.group(), tables, panel);
        multiplyTiles(x, panel, depth, groups, next(i, depth), acc + i * rows * kPanel);
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
    if (m <= FourBitInt8Rows<Isa>::kMaxRows) return FourBitInt8Rows<Isa>::run(p, levels, group);
    const Tables tables(levels);
    const Index tileRows = ceilDiv(m, ceilDiv(m, Isa::kTileRows)), superRows = kSuperRows / tileRows * tileRows;
    const Index threads = work < kWorthThreads ? 1 : Index(maxThreads());
    const Index panels = least(kPanels, ceilDiv(ceilDiv(n, kPanel), 4 * threads)), slab = panels * kPanel;
    for (Index row = 0; row < m; row += superRows) {
      const Tokens<Isa> x(least(superRows, m - row), k, tileRows, group);
      forEachTask(x.tiles(), work, [&](Index tile) { x.quantize(p.x, row, tile, levels.unit); });
      forEachTask(ceilDiv(n, slab), work, [&](Index task) {
        multiplyPanels(p, x, row, task * slab, least(panels, ceilDiv(n - task * slab, kPanel)), tables);
      });
    }
  }
};

}  // namespace
}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_FOURBIT_INT8_H
