// SPDX-License-Identifier: MPL-2.0
// Products with quantised weights for one instruction set. Y (m×n) = X (m×k)·op(W), computed in float on weights that
// are decoded exactly as dequantize() decodes them.
//
//   gemm   W is decoded, kDepth codes deep, into a panel of kPanel outputs that stays in the first-level cache, and
//          multiplied by tiles of R rows of X, packed where many panels read them:
//
//              panel[k][kPanel]     x[tile][k][R]      acc[m][kPanel] += xᵀ·panel, R×2 vectors in registers
//
//          A code is decoded once for every kSuperRows rows of X; no dense copy of W ever exists. Both directions
//          differ only in how a panel is filled: X·Wᵀ transposes lanes while decoding, X·W does not.
//   gemv   Few rows of X, W used transposed: a row of W is decoded in registers and multiplied by every row of X there.
//
// The sum behind an output runs over k in one fixed order, whatever the number of threads.
//
// Everything here has internal linkage or is forced inline; see simd.h for the reason.
#ifndef EIGENQ_CPU_PANEL_KERNELS_H
#define EIGENQ_CPU_PANEL_KERNELS_H

#include "operands.h"
#include "row_reader.h"
#include "tasks.h"
#include "tile_kernel.h"

namespace EigenQ {
namespace internal {
namespace {

template <typename Isa, WeightFormat Format>
struct PanelKernels {
  using Vec = typename Isa::Vec;
  using Reader = RowReader<Isa, Format>;
  static constexpr int kLanes = Isa::kLanes;
  static constexpr int kPanel = TileKernel<Isa>::kPanel;
  static constexpr Index kDepth = 256;       // a panel of 256×32 floats is 32 KiB
  static constexpr Index kSuperRows = 768;   // rows of X that share one decoding
  static constexpr int kFewRows = 8;         // gemv: accumulators for 8 rows fit every register file
  static constexpr Index kGemvOutputs = 16;  // outputs of a gemv task
  // Sums in double while decoding, not multiplying, takes most of the time: few rows share it, and there is little of
  // it.
  static constexpr Index kDoubleRows = 36, kDoubleWork = Index(1) << 20;

  // ---- gemm -----------------------------------------------------------------------------------------------------

  /** panel[k][kPanel] = w(output + lane, depth + k): rows of W become lanes. */
  static void fillTransposed(const WeightView& w, Index output, Index depth, Index count, float* panel) {
    for (int group = 0; group < kPanel; group += kLanes) {
      const Index row = output + group, rows = least(kLanes, w.rows - row);
      float* column = panel + group;
      Reader readers[kLanes];
      for (int r = 0; r < rows; ++r) readers[r] = Reader(w, row + r, depth);
      Index k = 0;
      for (; k + kLanes <= count; k += kLanes, column += kLanes * kPanel) {
        Vec v[kLanes];
        for (int r = 0; r < kLanes; ++r) v[r] = r < rows ? readers[r].next() : Isa::zero();
        Isa::transpose(v);
        for (int c = 0; c < kLanes; ++c) Isa::store(column + c * kPanel, v[c]);
      }
      for (; k < count; ++k, column += kPanel) {
        for (int r = 0; r < kLanes; ++r) column[r] = r < rows ? w.coeff(row + r, depth + k) : 0.0f;
      }
    }
  }

  /** panel[k][kPanel] = w(depth + k, output + lane): lanes are as stored. */
  static void fillDirect(const WeightView& w, Index output, Index depth, Index count, float* panel) {
    for (Index k = 0; k < count; ++k)
      decodeRow(w, depth + k, output, least(kPanel, w.cols - output), kPanel, panel + k * kPanel);
  }

  /** out[c] = w(row, col + c) for c < cols; zero up to \a padded. */
  static void decodeRow(const WeightView& w, Index row, Index col, Index cols, Index padded, float* out) {
    Reader reader(w, row, col);
    Index c = 0;
    for (; c + kLanes <= cols; c += kLanes) Isa::store(out + c, reader.next());
    for (; c < cols; ++c) out[c] = w.coeff(row, col + c);
    for (; c < padded; ++c) out[c] = 0.0f;
  }

  /** Rows [firstRow, firstRow + rows) of X in tiles of tileRows, the last maybe shorter; packed one after the other,
   * or in place. */
  struct Tiles {
    Index firstRow, rows, tileRows, depth;
    typename TileKernel<Isa>::Variant variant;
    const float* packed;  // if kPacked
    const ConstDenseView& x;

    Index count() const { return ceilDiv(rows, tileRows); }
    Index rowsOf(Index tile) const { return least(tileRows, rows - tile * tileRows); }
    RowTile operator()(Index tile, Index k) const {
      const Index row = tile * tileRows;
      if (packed) return {packed + row * depth + k * rowsOf(tile), 1, rowsOf(tile)};
      return {static_cast<const float*>(x.data) + (firstRow + row) * x.rowStride + k * x.colStride, x.rowStride,
              x.colStride};
    }
  };

  /** Outputs [output, output + kPanel) of the tiles [tile, endTile). */
  static void multiplyPanel(const QuantizedProduct& p, Index output, const Tiles& x, Index tile, Index endTile) {
    const Index k = p.x.cols;
    float* panel = scratch(Scratch::kPanel, kDepth * kPanel);
    float* acc = scratch(Scratch::kTile, kSuperRows * kPanel);
    const auto whole = TileKernel<Isa>::function(x.tileRows, x.variant);
    const auto last = TileKernel<Isa>::function(x.rowsOf(endTile - 1), x.variant);
    for (Index depth = 0; depth == 0 || depth < k; depth += kDepth) {  // k = 0 still clears acc
      const Index count = least(kDepth, k - depth);
      (p.transposed ? fillTransposed : fillDirect)(p.w, output, depth, count, panel);
      float* tileAcc = acc;
      for (Index t = tile; t < endTile; ++t, tileAcc += x.tileRows * kPanel) {
        (t + 1 < endTile ? whole : last)(count, x(t, depth), panel, depth == 0, tileAcc);
      }
    }
    const Index row = tile * x.tileRows, endRow = least(x.rows, endTile * x.tileRows);
    storeTile(acc, kPanel, x.firstRow + row, output, endRow - row, least(kPanel, p.y.cols - output), p.y, p.epilogue);
  }

  static void gemm(const QuantizedProduct& p) {
    const Index m = p.y.rows, n = p.y.cols, k = p.x.cols, work = m * n * k;
    const Index panels = ceilDiv(n, kPanel), threads = work < kWorthThreads ? 1 : Index(maxThreads());
    using Variant = typename TileKernel<Isa>::Variant;
    const bool isFloat = p.x.scalar == ScalarType::kFloat;
    // Packing pays when several panels read the rows.
    const Variant variant = isFloat && m <= kDoubleRows && work <= kDoubleWork ? Variant::kInPlaceDouble
                            : isFloat && panels <= 4                           ? Variant::kInPlace
                                                                               : Variant::kPacked;
    // Equal tiles: 13 rows are 7 + 6, not 12 + 1.
    const Index tileRows = ceilDiv(m, ceilDiv(m, Isa::kTileRows));
    const Index superRows = kSuperRows / tileRows * tileRows;
    for (Index firstRow = 0; firstRow < m; firstRow += superRows) {
      Tiles x{firstRow, least(superRows, m - firstRow), tileRows, k, variant, nullptr, p.x};
      const Index tiles = x.count();
      if (variant == Variant::kPacked) {
        float* packed = scratch(Scratch::kActivations, x.rows * k);
        forEachTask(tiles, work,
                    [&](Index t) { packTile(p.x, firstRow + t * tileRows, x.rowsOf(t), packed + t * tileRows * k); });
        x.packed = packed;
      }
      // Few outputs leave threads idle: then they share the rows, and each decodes its panel anew.
      const Index shares = threads == 1 ? 1 : least(tiles, ceilDiv(2 * threads, panels));
      const Index tilesOfShare = ceilDiv(tiles, shares);
      forEachTask(panels * shares, work, [&](Index task) {
        const Index tile = task % shares * tilesOfShare, endTile = least(tiles, tile + tilesOfShare);
        if (tile < endTile) multiplyPanel(p, task / shares * kPanel, x, tile, endTile);
      });
    }
  }

  // ---- gemv -----------------------------------------------------------------------------------------------------

  /** acc[r·ld] = Σ x[r·xStride + k]·w(row, k) for r < M. */
  template <int M>
  static void dotRow(const WeightView& w, Index row, const float* x, Index xStride, float* acc, Index ld) {
    constexpr int kChains = M <= 2 ? 4 : M <= 4 ? 2 : 1;  // independent sums, to hide the latency of an addition
    Reader reader(w, row, 0);
    Vec sum[M][kChains];
    for (int r = 0; r < M; ++r) {
      for (int c = 0; c < kChains; ++c) sum[r][c] = Isa::zero();
    }
    Index k = 0;
    const auto multiply = [&](const Vec& weights, int chain) {
      for (int r = 0; r < M; ++r)
        sum[r][chain] = Isa::multiplyAdd(Isa::load(x + r * xStride + k), weights, sum[r][chain]);
      k += kLanes;
    };
    // The inner loops are free of block ends, and so of branches and of calls that would cost them their registers.
    for (Index steps = w.cols / kLanes; steps > 0;) {
      const Index inside = least(steps, reader.stepsInside());
      Index s = 0;
      for (; s + kChains <= inside; s += kChains) {
        for (int c = 0; c < kChains; ++c) multiply(reader.inside(), c);
      }
      for (; s < inside; ++s) multiply(reader.inside(), 0);
      steps -= inside;
      if (inside == 0) {
        multiply(reader.next(), 0);
        --steps;
      }
    }
    for (int r = 0; r < M; ++r) {
      for (int c = 1; c < kChains; ++c) sum[r][0] = Isa::add(sum[r][0], sum[r][c]);
      acc[r * ld] = Isa::sum(sum[r][0]);
    }
    for (; k < w.cols; ++k) {
      const float weight = w.coeff(row, k);
      for (int r = 0; r < M; ++r) acc[r * ld] += x[r * xStride + k] * weight;
    }
  }

  using DotFunction = void (*)(const WeightView&, Index, const float*, Index, float*, Index);
  template <int M = kFewRows>
  static DotFunction dotFunction(Index rows) {
    if constexpr (M > 1) {
      if (rows < M) return dotFunction<M - 1>(rows);
    }
    return &dotRow<M>;
  }

  static void gemv(const QuantizedProduct& p) {
    const Index m = p.y.rows, n = p.y.cols, k = p.x.cols;
    const float* x = static_cast<const float*>(p.x.data);
    Index xStride = p.x.rowStride;
    if (p.x.scalar != ScalarType::kFloat || (p.x.colStride != 1 && k > 1)) {
      float* packed = scratch(Scratch::kActivations, m * k);
      for (Index i = 0; i < m; ++i) packTile(p.x, i, 1, packed + i * k);
      x = packed;
      xStride = k;
    }
    const DotFunction dot = dotFunction(m);
    forEachTask(ceilDiv(n, kGemvOutputs), m * n * k, [&](Index task) {
      const Index output = task * kGemvOutputs, outputs = least(kGemvOutputs, n - output);
      float acc[kFewRows * kGemvOutputs];
      for (Index j = 0; j < outputs; ++j) dot(p.w, output + j, x, xStride, acc + j, kGemvOutputs);
      storeTile(acc, kGemvOutputs, 0, output, m, outputs, p.y, p.epilogue);
    });
  }

  // ---- dequantise -----------------------------------------------------------------------------------------------

  /** A column-major y is written through transposed panels, any other row by row. */
  static void dequantize(const WeightView& w, const DenseView& y, const Epilogue& epilogue) {
    const bool byColumns = y.rowStride == 1 && y.colStride != 1;
    const Index colTasks = ceilDiv(w.cols, kDepth);
    const DenseView yt = y.transpose();
    const Epilogue transposed = epilogue.transpose();
    forEachTask(ceilDiv(w.rows, kPanel) * colTasks, w.rows * w.cols, [&](Index task) {
      const Index row = task / colTasks * kPanel, col = task % colTasks * kDepth;
      const Index rows = least(kPanel, w.rows - row), cols = least(kDepth, w.cols - col);
      float* tile = scratch(Scratch::kPanel, kDepth * kPanel);
      if (byColumns) {
        fillTransposed(w, row, col, cols, tile);
        storeTile(tile, kPanel, col, row, cols, rows, yt, transposed);
      } else {
        for (Index i = 0; i < rows; ++i) decodeRow(w, row + i, col, cols, cols, tile + i * cols);
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
void runGemv(const QuantizedProduct& p) {
  p.w.format == WeightFormat::kInt8 ? PanelKernels<Isa, WeightFormat::kInt8>::gemv(p)
                                    : PanelKernels<Isa, WeightFormat::kFourBit>::gemv(p);
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
