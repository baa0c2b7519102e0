// SPDX-License-Identifier: MPL-2.0
// The weights B of an int8 product as its tiles read them: where they are stored, or copied into a panel of
// kPanelCols columns. Internal linkage; see simd.h for the reason.
//
//   stored   column s: k codes, \a stride codes apart
//   copied   tile of kTileCols columns │: step: column 0 … │ …, and what is left over column by column
#ifndef EIGENQ_CPU_INT8_PANEL_H
#define EIGENQ_CPU_INT8_PANEL_H

#include "int8_layout.h"

namespace EigenQ {
namespace internal {
namespace {

template <typename Isa>
struct Int8Panels {
  using Layout = Int8Layout<Isa>;
  using Code = typename Isa::Code;
  using Vec = typename Isa::Vec;
  using Sums = typename Isa::Sums;
  static constexpr int kStep = Isa::kStep;

  /** B as it is stored: \a depth codes of each row. */
  template <int C>
  struct StoredB {
    const std::int8_t* codes;
    Index stride;
    Index depth;
    Index ahead;  // to what comes next from memory; 0 while it is there already

    Index wholeSteps() const { return depth / kStep; }
    EIGENQ_STRONG_INLINE Vec load(Index s, Index step) const {
      const std::int8_t* const from = codes + s * stride + step * kStep;
      prefetch(from + ahead);
      return Isa::loadB(from);
    }
    Index tail() const { return depth % kStep; }
    Vec loadTail(Index s) const { return Layout::loadTail(codes + s * stride + wholeSteps() * kStep, tail()); }
    static EIGENQ_STRONG_INLINE Sums multiplyAdd(const Vec& row, const Vec& column, Sums sum) {
      return Isa::multiplyAdd(row, column, sum);
    }
  };

  /** B copied, step by step. */
  template <int C>
  struct PanelB {
    const Code* codes;
    Index steps;

    Index wholeSteps() const { return steps; }
    EIGENQ_STRONG_INLINE Vec load(Index s, Index step) const { return Isa::loadA(codes + (step * C + s) * kStep); }
    Index tail() const { return 0; }
    Vec loadTail(Index) const { return Vec(); }
    static EIGENQ_STRONG_INLINE Sums multiplyAdd(const Vec& row, const Vec& column, Sums sum) {
      if constexpr (Layout::kPairs) {
        return Isa::multiplyAddPairs(row, column, sum);
      } else {
        return Isa::multiplyAdd(row, column, sum);
      }
    }
  };

  struct StoredPanel {
    const std::int8_t* codes;
    Index stride, depth;
    Index visit, visits;  // of blocks of A to these columns

    /** A row by itself takes column after column, one stream from memory: 4096×4096 codes take 0.50 ms in place of 0.67
     * by eight columns at a time (VNNI). */
    static constexpr int tileCols(int rows) {
      return rows == 1 ? 1 : rows <= Isa::kBlockRows ? Isa::kTileCols : Isa::kTileCols / 2;
    }
    /** Each visit fetches its share of what comes next: the tiles that follow, or those of the next panel. */
    template <int C>
    StoredB<C> tile(Index col) const {
      if (C == 1 && visits == 1) return {codes + col * stride, stride, depth, kStreamAhead};
      const Index ahead = visits == 1 ? C : col / C % visits == visit ? Isa::kPanelCols : 0;
      return {codes + col * stride, stride, depth, ahead * stride};
    }
  };

  struct CopiedPanel {
    const Code* codes;
    Index steps;

    static constexpr int tileCols(int) { return Isa::kTileCols; }
    template <int C>
    PanelB<C> tile(Index col) const {
      return {codes + col * steps * kStep, steps};
    }
  };

  /** The codes of the next panel, fetched a few at a time between blocks: else the copy would wait for each line. */
  class Prefetch {
   public:
    /** \param depth  codes of each of kPanelCols columns
     * \param rows  of A that are multiplied meanwhile */
    Prefetch(const std::int8_t* codes, Index stride, Index depth, Index rows)
        : m_column(codes), m_stride(stride), m_depth(depth), m_left(depth * Isa::kPanelCols), m_share(m_left / rows) {}

    void advance(Index rows) {
      for (Index want = least(rows * m_share + kCacheLine - 1, m_left); want > 0; want -= kCacheLine) {
        prefetch(m_column + m_at);
        m_left -= kCacheLine;
        m_at += kCacheLine;
        if (m_at >= m_depth) m_column += m_stride, m_at = 0;
      }
    }

   private:
    const std::int8_t* m_column;
    Index m_stride, m_depth, m_left, m_share, m_at = 0;
  };

  /** \a depth codes of \a cols rows of B as CopiedPanel reads them. Adds to the columns' corrections. */
  static const Code* copyPanel(const std::int8_t* b, Index stride, Index cols, Index depth, std::int32_t* correction) {
    constexpr Index kMost = Isa::kPanelCols * (Isa::kDepth + kStep);
    Code* const panel = reinterpret_cast<Code*>(scratch(Scratch::kPanel, kMost * Index(sizeof(Code)) / 4));
    const Index steps = ceilDiv(depth, kStep);
    constexpr Index C = Isa::kTileCols;
    for (Index col = 0; col < cols; ++col) {
      // Tiles of C columns take turns within a step; those left over follow one after another.
      const bool inTile = col / C * C + C <= cols;
      const Index inner = inTile ? C : 1, place = inTile ? col % C : 0;
      Code* const to = panel + (col - place) * steps * kStep + place * kStep;
      const std::int8_t* from = b + col * stride;
      for (Index i = 0; i < depth / kStep; ++i) Isa::store(to + i * inner * kStep, Isa::loadB(from + i * kStep));
      const Index tail = depth % kStep;
      if (tail > 0) Isa::store(to + (steps - 1) * inner * kStep, Layout::loadTail(from + depth - tail, tail));
      if constexpr (Layout::kPairs) correction[col] += Layout::pairCorrection(to, steps, inner * kStep);
    }
    return panel;
  }
};

}  // namespace
}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_INT8_PANEL_H
