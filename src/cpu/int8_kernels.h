// SPDX-License-Identifier: MPL-2.0
// C (m×n) = A (m×k)·Bᵀ (n×k) of int8 codes, exact in int32, for one instruction set.
//
//   A, prepared once   │ block of up to 6 rows │: step 0: row 0 … row 5 │ step 1: row 0 … row 5 │ …
//   B, as stored       row j: k codes          ─┬─▶ R×C sums in registers, folded to one integer each after kDepth
//   codes or widened         │ C rows, by steps │    ─╯
//
//   task: up to 128 rows × 64 columns of C
//     ╰ panel of 8 columns, kDepth codes deep, in L1 with one block of A; the other blocks come past from L2
//         ╰ tile of R×C
//
// Traffic  B once from memory for every 128 rows of A, one byte a code; A once from L2 for every 8 columns.
// Work     m·n·k multiplications: 32 a clock and core where pmaddwd and paddd fill four vector ports, 128 with vpdpbusd
//          in 512 bits.
// Shape    Both operands run along k, so B needs no transposition: a product of one row reads it as it lies. From
//          kPanelRows rows on, where B would be widened for every block again, it is widened once, into the panel.
//          Blocks have equally many rows but for one: 20 rows are 5 + 5 + 5 + 5, not 6 + 6 + 6 + 2. Where there is no
//          panel they may be larger, and each fetches a share of what comes next while it multiplies: 8 rows of
//          11008×4096 took 2.9 ms in two blocks, and take 2.1 in one (VNNI).
//
// Integer sums have no order to keep, so results are the same on every thread count and instruction set. Everything
// here has internal linkage; see simd.h for the reason.
#ifndef EIGENQ_CPU_INT8_KERNELS_H
#define EIGENQ_CPU_INT8_KERNELS_H

#include "int8_panel.h"
#include "int8_tile.h"

namespace EigenQ {
namespace internal {
namespace {

template <typename Isa>
struct Int8Kernels {
  using Layout = Int8Layout<Isa>;
  using Panels = Int8Panels<Isa>;
  using Tiles = Int8Tiles<Isa>;
  using Operand = typename Layout::Operand;
  using Code = typename Isa::Code;
  static constexpr Index kTaskRows = Layout::kTaskRows, kTaskCols = Layout::kTaskCols;

  struct Accumulator {
    std::int32_t* sums;                        // rows×kTaskCols
    std::int32_t columnCorrection[kTaskCols];  // added to each sum of a column
  };

  struct Task {
    const Int8Product& p;
    const Operand& a;
    Index row, rows;  // of A
    Index col, cols;  // of B

    /** Calls \a f(rows, first row, codes of A) for each block, rows a constant. */
    template <int kFewest, int kMost, typename F>
    void forEachBlock(Index k, Index depth, const F& f) const {
      const EvenParts blocks = Layout::blocksOf(rows);
      const Code* const codes = a.codes + row * a.depth + k * rows;
      for (Index i = 0; i < blocks.count; ++i) {
        const Index begin = blocks.begin(i);
        Tiles::template dispatchRows<kFewest, kMost>(
            blocks.sizeOf(i), [&](auto blockRows) { f(blockRows, begin, codes + begin * Layout::padded(depth)); });
      }
    }

    /** \a depth codes of \a count columns from \a first on. */
    void multiplyColumns(Index k, Index depth, Index first, Index count, Accumulator& to) const {
      const std::int8_t* const stored = p.b + (col + first) * p.bStride + k;
      std::int32_t* const sums = to.sums + first;
      if (Layout::usesPanel(rows)) {
        const typename Panels::CopiedPanel panel{
            Panels::copyPanel(stored, p.bStride, count, depth, to.columnCorrection + first),
            ceilDiv(depth, Isa::kStep)};
        typename Panels::Prefetch next(stored + Isa::kPanelCols * p.bStride, p.bStride, depth, rows);
        forEachBlock<Layout::kFewestPanelRows, Isa::kBlockRows>(
            k, depth, [&](auto blockRows, Index begin, const Code* codes) {
              constexpr int R = decltype(blockRows)::value;
              next.advance(R);
              Tiles::template multiplyBlock<R>(codes, count, panel, k == 0, sums + begin * kTaskCols);
            });
      } else {
        Index visit = 0;
        forEachBlock<1, Isa::kStreamRows>(k, depth, [&](auto blockRows, Index begin, const Code* codes) {
          constexpr int R = decltype(blockRows)::value;
          const typename Panels::StoredPanel panel{stored, p.bStride, depth, visit++, Layout::blocksOf(rows).count};
          Tiles::template multiplyBlock<R>(codes, count, panel, k == 0, sums + begin * kTaskCols);
        });
      }
    }

    void correct(const Accumulator& to) const {
      for (Index i = 0; i < rows; ++i) {
        const std::int32_t rowCorrection = a.correction[row + i];
        std::int32_t* const sums = to.sums + i * kTaskCols;
        for (Index j = 0; j < cols; ++j) {
          const std::int32_t more = Layout::kPairs ? wrapped(rowCorrection, to.columnCorrection[j]) : rowCorrection;
          sums[j] = wrapped(sums[j], more);
        }
      }
    }

    void run(const Int8Sink& sink) const {
      float* memory = scratch(Scratch::kTile, 2 * rows * kTaskCols);
      Accumulator to{reinterpret_cast<std::int32_t*>(memory), {}};
      const Index most = Layout::depthOf(rows);
      Index k = 0;
      do {  // once for k = 0 too: sums of nothing are zeros
        const Index depth = least(most, p.k - k);
        for (Index first = 0; first < cols; first += Isa::kPanelCols) {
          multiplyColumns(k, depth, first, least(Isa::kPanelCols, cols - first), to);
        }
        k += depth;
      } while (k < p.k);
      if (Layout::corrects(rows)) correct(to);
      sink.take(sink.context, {row, col, rows, cols, to.sums, kTaskCols, memory + rows * kTaskCols});
    }
  };

  static void run(const Int8Product& p, const Int8Sink& sink) {
    const Operand a = Layout::prepare(p);
    const EvenParts rows = EvenParts::ofAtMost(p.m, kTaskRows);
    const Index cols = ceilDiv(p.n, kTaskCols);
    forEachTask(rows.count * cols, p.m * p.n * p.k / 2, [&](Index task) {
      const Index part = task / cols, col = task % cols * kTaskCols;
      Task{p, a, rows.begin(part), rows.sizeOf(part), col, least(kTaskCols, p.n - col)}.run(sink);
    });
  }

  /** values(i, j) = sums(i, j)·rowScale(i)·colAbsmax(j) + outliers(i, j), in double and rounded once. */
  static void scale(const Int8Tile& t, const double* rowScale, const float* colAbsmax, const float* outliers) {
    for (Index i = 0; i < t.rows; ++i) {
      const std::int32_t* const sums = t.sums + i * t.ld;
      float* const values = t.values + i * t.ld;
      const double scale = rowScale[i];
      if (outliers) {
        const float* const more = outliers + i * t.ld;
        for (Index j = 0; j < t.cols; ++j) {
          values[j] =
              static_cast<float>(sums[j] * (scale * static_cast<double>(colAbsmax[j])) + static_cast<double>(more[j]));
        }
      } else {
        for (Index j = 0; j < t.cols; ++j) {
          values[j] = static_cast<float>(sums[j] * (scale * static_cast<double>(colAbsmax[j])));
        }
      }
    }
  }
};

}  // namespace
}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_INT8_KERNELS_H
