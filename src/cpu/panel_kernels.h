// SPDX-License-Identifier: MPL-2.0
// Products with quantised weights for one instruction set. Y (m×n) = X (m×k)·op(W), computed in float on weights that
// are decoded exactly as dequantize() decodes them.
//
//   gemm   W is decoded, a piece of some 16 KiB at a time, into panels of kPanel outputs (panel_fill.h), each of which
//   is
//          multiplied by tiles of R rows of X, packed where many panels read them:
//
//              panel[k][kPanel]     x[tile][k][R]      acc[m][kPanel] += xᵀ·panel, R×2 vectors in registers
//
//          A code is decoded once for every kSuperRows rows of X; no dense copy of W ever exists. Both directions
//          differ only in how a panel is filled: X·Wᵀ makes lanes of rows of W while decoding, X·W takes them as
//          stored. Traffic: W once for every kSuperRows rows, X from the second-level cache for every panel. Work: with
//          AVX2 128 rows take 0.30 instructions a multiplication of a code by a value (callgrind), of which FMA is
//          0.125.
//   Few rows of X have kernels that need no panel: gemv_kernels.h, gevm_kernels.h, and fourbit_gemv.h.
//
// The sum behind an output runs over k in one fixed order, whatever the number of threads.
//
// Everything here has internal linkage or is forced inline; see simd.h for the reason.
#ifndef EIGENQ_CPU_PANEL_KERNELS_H
#define EIGENQ_CPU_PANEL_KERNELS_H

#include "operands.h"
#include "panel_fill.h"

namespace EigenQ {
namespace internal {
namespace {

template <typename Isa, WeightFormat Format>
struct PanelKernels {
  using Vec = typename Isa::Vec;
  using Reader = RowReader<Isa, Format>;
  using Fill = PanelFill<Isa, Format>;
  using Tile = TileKernel<Isa>;
  using Variant = typename Tile::Variant;
  static constexpr int kLanes = Isa::kLanes;
  static constexpr int kPanel = Tile::kPanel, kPanels = Fill::kPanels;
  static constexpr Index kSlab = Fill::kSlab;  // outputs of a gemm task
  static constexpr Index kSuperRows = 256;     // rows of X that share one decoding; 256 KiB at a time of them are read
  // Sums in double while decoding, not multiplying, takes most of the time: few rows share it, and there is little of
  // it.
  static constexpr Index kDoubleRows = 36, kDoubleWork = Index(1) << 20;
  // Products of so few multiplications add short chains, block by block: sums of 256 terms err by half as much.
  static constexpr Index kShortWork = Index(1) << 22, kShortChain = 8, kBlock = 64;

  // ---- gemm -----------------------------------------------------------------------------------------------------

  /** Rows [firstRow, firstRow + rows) of X in tiles of tileRows, the last maybe shorter; in place, or packed: for each
   * step of k the tiles one after the other. */
  struct Tiles {
    Index firstRow, rows, tileRows, step;
    Variant variant;
    bool shortChains;
    const float* packed;  // if kPacked
    const ConstDenseView& x;

    Index count() const { return ceilDiv(rows, tileRows); }
    Index rowsOf(Index tile) const { return least(tileRows, rows - tile * tileRows); }
    Index depthOf(Index k) const { return least(step, x.cols - k); }
    Index packedAt(Index tile, Index k) const { return k * rows + tile * tileRows * depthOf(k); }
    RowTile operator()(Index tile, Index k) const {
      if (packed) return {packed + packedAt(tile, k), 1, rowsOf(tile)};
      return {static_cast<const float*>(x.data) + (firstRow + tile * tileRows) * x.rowStride + k * x.colStride,
              x.rowStride, x.colStride};
    }
  };

  static void packTiles(Tiles& x, Index work) {
    float* packed = scratch(Scratch::kActivations, x.rows * x.x.cols);
    const Index tiles = x.count();
    forEachTask(tiles * ceilDiv(x.x.cols, x.step), work, [&](Index task) {
      const Index tile = task % tiles, k = task / tiles * x.step;
      packTile(x.x, x.firstRow + tile * x.tileRows, x.rowsOf(tile), k, x.depthOf(k), packed + x.packedAt(tile, k));
    });
    x.packed = packed;
  }

  /** Tiles [tile, endTile) of X and the outputs of a task, which are sums in acc[panel][row][kPanel]. */
  struct Share {
    Index tile, endTile, row, rows;  // rows of y, of which x.firstRow is the first
    Index output, panels;
    float* acc;
  };

  /** acc of one panel (+)= the rows' products with it. */
  static void multiplyTiles(const Tiles& x, const Share& s, Index depth, const float* panel, float* acc) {
    const auto whole = Tile::function(x.tileRows, x.variant);
    const auto last = Tile::function(x.rowsOf(s.endTile - 1), x.variant);
    const Index count = x.depthOf(depth);
    for (Index t = s.tile; t < s.endTile; ++t, acc += x.tileRows * kPanel) {
      const auto multiply = t + 1 < s.endTile ? whole : last;
      if (x.shortChains && count > kShortChain) {
        multiplyShortChains(multiply, count, x(t, depth), x.rowsOf(t), panel, depth == 0, acc);
      } else {
        multiply(count, x(t, depth), panel, depth == 0, acc);
      }
    }
  }

  /** The same for a tile of \a rows rows, in chains of kShortChain, which are added in blocks of kBlock. */
  static void multiplyShortChains(typename Tile::Function multiply, Index count, RowTile x, Index rows,
                                  const float* panel, bool first, float* acc) {
    const Index size = rows * kPanel;
    float block[Isa::kTileRows * kPanel];
    for (Index k = 0; k < count; k += kBlock, first = false) {
      for (Index end = least(count, k + kBlock), chain = k; chain < end; chain += kShortChain) {
        const RowTile from{x.data + chain * x.depthStride, x.rowStride, x.depthStride};
        multiply(least(kShortChain, end - chain), from, panel + chain * kPanel, chain == k, block);
      }
      for (Index i = 0; i < size; i += kLanes) Tile::addChain(Isa::load(block + i), first, acc + i);
    }
  }

  static void multiplyByRows(const QuantizedProduct& p, const Tiles& x, const Share& s) {
    float* panel = scratch(Scratch::kPanel, Fill::kRowsDepth * kPanel);
    for (Index depth = 0; depth == 0 || depth < p.x.cols; depth += x.step) {  // k = 0 still clears acc
      if (depth % Fill::kStreamed == 0) {
        streamRows(p.w, s.output, s.panels * kPanel, depth, least(Fill::kStreamed, p.x.cols - depth));
      }
      for (Index i = 0; i < s.panels; ++i) {
        Fill::rows(p.w, s.output + i * kPanel, depth, x.depthOf(depth), panel);
        multiplyTiles(x, s, depth, panel, s.acc + i * s.rows * kPanel);
      }
    }
  }

  static void multiplyByColumns(const QuantizedProduct& p, const Tiles& x, const Share& s) {
    float* panels = scratch(Scratch::kPanel, Fill::kColumnsDepth * kSlab);
    for (Index depth = 0; depth == 0 || depth < p.x.cols; depth += x.step) {
      Fill::columns(p.w, s.output, depth, x.depthOf(depth), panels);
      for (Index i = 0; i < s.panels; ++i) {
        multiplyTiles(x, s, depth, panels + i * Fill::kColumnsDepth * kPanel, s.acc + i * s.rows * kPanel);
      }
    }
  }

  static void store(const QuantizedProduct& p, const Tiles& x, const Share& s) {
    const Index row = x.firstRow + s.row;
    if (storesPlainly(p) && (p.transposed || !Fill::permutesColumns(p.w, s.output))) return storePlainly(p, row, s);
    if (p.transposed || !Fill::permutesColumns(p.w, s.output)) {
      for (Index i = 0; i < s.panels; ++i) {
        const Index output = s.output + i * kPanel;
        storeTile(s.acc + i * s.rows * kPanel, kPanel, row, output, s.rows, least(kPanel, p.y.cols - output), p.y,
                  p.epilogue);
      }
      return;
    }
    constexpr Index kRows = 16;
    float natural[kRows * kSlab];
    for (Index r = 0; r < s.rows; r += kRows) {
      const Index rows = least(kRows, s.rows - r);
      Fill::restoreColumns(s.acc + r * kPanel, s.rows * kPanel, rows, natural);
      storeTile(natural, kSlab, row + r, s.output, rows, kSlab, p.y, p.epilogue);
    }
  }

  /** Whether sums go to contiguous rows of floats as they are. storeTile(), compiled for every processor and every
   * epilogue, takes a tenth of a product of 128 columns. */
  static bool storesPlainly(const QuantizedProduct& p) {
    return p.y.scalar == ScalarType::kFloat && p.y.colStride == 1 && isPlain(p.epilogue);
  }
  static void storePlainly(const QuantizedProduct& p, Index row, const Share& s) {
    for (Index i = 0; i < s.panels; ++i) {
      const Index output = s.output + i * kPanel, outputs = least(kPanel, p.y.cols - output);
      const float* from = s.acc + i * s.rows * kPanel;
      float* to = static_cast<float*>(p.y.data) + row * p.y.rowStride + output;
      for (Index r = 0; r < s.rows; ++r, from += kPanel, to += p.y.rowStride) {
        if (outputs == kPanel) {
          Isa::store(to, Isa::load(from));
          Isa::store(to + kLanes, Isa::load(from + kLanes));
        } else {
          for (Index lane = 0; lane < outputs; ++lane) to[lane] = from[lane];
        }
      }
    }
  }

  /** Outputs [output, output + panels·kPanel) of the tiles [tile, endTile). */
  static void multiplyShare(const QuantizedProduct& p, const Tiles& x, Index output, Index panels, Index tile,
                            Index endTile) {
    const Index row = tile * x.tileRows, rows = least(x.rows, endTile * x.tileRows) - row;
    const Index used = least(panels, ceilDiv(p.y.cols - output, kPanel));
    const Share s{tile, endTile, row, rows, output, used, scratch(Scratch::kTile, rows * used * kPanel)};
    (p.transposed ? multiplyByRows : multiplyByColumns)(p, x, s);
    store(p, x, s);
  }

  static void gemm(const QuantizedProduct& p) {
    const Index m = p.y.rows, n = p.y.cols, k = p.x.cols, work = m * n * k;
    const Index threads = work < kWorthThreads ? 1 : Index(maxThreads());
    const bool isFloat = p.x.scalar == ScalarType::kFloat;
    // A task has as many panels as a slab, fewer where that would leave threads idle: results are the same.
    const Index panels = p.transposed ? least(kPanels, ceilDiv(ceilDiv(n, kPanel), 4 * threads)) : kPanels;
    const Index slabs = ceilDiv(n, panels * kPanel);
    // Packing pays when several panels read the rows.
    const Variant variant = isFloat && m <= kDoubleRows && work <= kDoubleWork ? Variant::kInPlaceDouble
                            : isFloat && n <= 4 * kPanel                       ? Variant::kInPlace
                                                                               : Variant::kPacked;
    const bool shortChains = work <= kShortWork && variant != Variant::kInPlaceDouble;
    // Equal tiles: 13 rows are 7 + 6, not 12 + 1.
    const Index tileRows = ceilDiv(m, ceilDiv(m, Isa::kTileRows));
    const Index superRows = kSuperRows / tileRows * tileRows;
    for (Index firstRow = 0; firstRow < m; firstRow += superRows) {
      const Index step = p.transposed ? Fill::kRowsDepth : Fill::kColumnsDepth;
      Tiles x{firstRow, least(superRows, m - firstRow), tileRows, step, variant, shortChains, nullptr, p.x};
      if (variant == Variant::kPacked) packTiles(x, work);
      // Few outputs leave threads idle: then they share the rows, and each decodes its panels anew.
      const Index tiles = x.count(), shares = threads == 1 ? 1 : least(tiles, ceilDiv(2 * threads, slabs));
      const Index tilesOfShare = ceilDiv(tiles, shares);
      forEachTask(slabs * shares, work, [&](Index task) {
        const Index tile = task % shares * tilesOfShare, endTile = least(tiles, tile + tilesOfShare);
        if (tile < endTile) multiplyShare(p, x, task / shares * panels * kPanel, panels, tile, endTile);
      });
    }
  }

  // ---- dequantise -----------------------------------------------------------------------------------------------

  /** A column-major y is written through transposed panels, any other row by row. */
  static void dequantize(const WeightView& w, const DenseView& y, const Epilogue& epilogue) {
    const bool byColumns = y.rowStride == 1 && y.colStride != 1;
    const Index colTasks = ceilDiv(w.cols, Fill::kRowsDepth);
    const DenseView yt = y.transpose();
    const Epilogue transposed = epilogue.transpose();
    forEachTask(ceilDiv(w.rows, kPanel) * colTasks, w.rows * w.cols, [&](Index task) {
      const Index row = task / colTasks * kPanel, col = task % colTasks * Fill::kRowsDepth;
      const Index rows = least(kPanel, w.rows - row), cols = least(Fill::kRowsDepth, w.cols - col);
      float* tile = scratch(Scratch::kPanel, Fill::kRowsDepth * kPanel);
      if (byColumns) {
        Fill::rows(w, row, col, cols, tile);
        storeTile(tile, kPanel, col, row, cols, rows, yt, transposed);
      } else {
        for (Index i = 0; i < rows; ++i) Fill::decodeRow(w, row + i, col, cols, cols, tile + i * cols);
        storeTile(tile, cols, row, col, rows, cols, y, epilogue);
      }
    });
  }
};

template <typename Isa>
void runGemm(const QuantizedProduct& p) {
  p.w.format == WeightFormat::kInt8 ? PanelKernels<Isa, WeightFormat::kInt8>::gemm(p)
                                    : PanelKernels<Isa, WeightFormat::kFourBit>::gemm(p);
}

template <typename Isa>
void runDequantize(const WeightView& w, const DenseView& y, const Epilogue& epilogue) {
  w.format == WeightFormat::kInt8 ? PanelKernels<Isa, WeightFormat::kInt8>::dequantize(w, y, epilogue)
                                  : PanelKernels<Isa, WeightFormat::kFourBit>::dequantize(w, y, epilogue);
}

}  // namespace
}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_PANEL_KERNELS_H
