// SPDX-License-Identifier: MPL-2.0
// Products with quantised weights for one instruction set. Y (m×n) = X (m×k)·op(W), computed in float on weights that
// are decoded exactly as dequantize() decodes them.
//
//   gemm   W is decoded, kDepth codes deep, into a panel of kPanel outputs that stays in the first-level cache, and
//          multiplied by tiles of R rows of packed X:
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
#include "parallel.h"
#include "simd.h"

namespace EigenQ {
namespace internal {
namespace {

Index ceilDiv(Index a, Index b) { return (a + b - 1) / b; }
Index least(Index a, Index b) { return a < b ? a : b; }

/** Below this many multiplications a product is done before a second thread has woken up. */
constexpr Index kWorthThreads = Index(1) << 18;

template <typename Task>
void forEachTask(Index count, Index work, const Task& task) {
  if (work < kWorthThreads) {
    for (Index i = 0; i < count; ++i) task(i);
    return;
  }
  parallelFor(
      count, [](void* context, Index i) { (*static_cast<const Task*>(context))(i); }, const_cast<Task*>(&task));
}

/** kLanes consecutive codes of a row, decoded. */
template <typename Isa, WeightFormat Format>
class Decoder;

template <typename Isa>
class Decoder<Isa, WeightFormat::kInt8> {
 public:
  explicit Decoder(const WeightView& w) : m_w(w) {}

  typename Isa::Vec operator()(Index i, Index j) const {
    const std::int8_t* codes = static_cast<const std::int8_t*>(m_w.codes) + m_w.offset + i * m_w.stride + j;
    return Isa::mul(Isa::mul(Isa::fromInt8(codes), Isa::broadcast(m_w.rowAbsmax[i])), Isa::broadcast(kInverse127));
  }

 private:
  const WeightView& m_w;
};

template <typename Isa>
class Decoder<Isa, WeightFormat::kFourBit> {
  static constexpr int kBytes = Isa::kLanes / 2;

 public:
  explicit Decoder(const WeightView& w) : m_w(w), m_table(Isa::loadTable(w.codeTable)) {}

  typename Isa::Vec operator()(Index i, Index j) const {
    const Index flat = m_w.offset + i * m_w.stride + j;
    const Index block = flat >> m_w.blockShift, lastBlock = (flat + Isa::kLanes - 1) >> m_w.blockShift;
    const typename Isa::Vec scale = block == lastBlock ? Isa::broadcast(m_w.absmax(block))
                                                       : scalesAcross(block, (lastBlock << m_w.blockShift) - flat);
    return Isa::mul(values(flat), scale);
  }

 private:
  typename Isa::Vec values(Index flat) const {
    const std::uint8_t* pairs = static_cast<const std::uint8_t*>(m_w.codes) + (flat >> 1);
    if ((flat & 1) == 0) return Isa::decodeFourBit(pairs, m_table);
    // The first code is a low nibble: move everything up by one nibble, in big-endian order.
    std::uint64_t bytes = 0;
    std::memcpy(&bytes, pairs, kBytes);
    const std::uint64_t last = static_cast<std::uint64_t>(pairs[kBytes] >> 4) << (64 - 8 * kBytes);
    bytes = __builtin_bswap64(__builtin_bswap64(bytes) << 4 | last);
    return Isa::decodeFourBit(reinterpret_cast<const std::uint8_t*>(&bytes), m_table);
  }

  /** The first \a count lanes lie in \a block, the others in the next: blocks are never shorter than a vector. */
  typename Isa::Vec scalesAcross(Index block, Index count) const {
    const float first = m_w.absmax(block), second = m_w.absmax(block + 1);
    float scales[Isa::kLanes];
    for (int l = 0; l < Isa::kLanes; ++l) scales[l] = l < count ? first : second;
    return Isa::load(scales);
  }

  const WeightView& m_w;
  const typename Isa::Table m_table;
};

template <typename Isa, WeightFormat Format>
struct PanelKernels {
  using Vec = typename Isa::Vec;
  static constexpr int kLanes = Isa::kLanes;
  static constexpr int kPanel = 2 * kLanes;  // outputs of a panel
  static constexpr Index kDepth = 256;       // a panel of 256×32 floats is 32 KiB
  static constexpr Index kSuperRows = 768;   // rows of X that share one decoding
  static constexpr int kFewRows = 8;         // gemv: accumulators for 8 rows fit every register file
  static constexpr Index kGemvOutputs = 16;  // outputs of a gemv task

  // ---- gemm -----------------------------------------------------------------------------------------------------

  /** panel[k][kPanel] = w(output + lane, depth + k): rows of W become lanes. */
  static void fillTransposed(const WeightView& w, Index output, Index depth, Index count, float* panel) {
    const Decoder<Isa, Format> decode(w);
    for (int group = 0; group < kPanel; group += kLanes) {
      const Index row = output + group, rows = least(kLanes, w.rows - row);
      float* column = panel + group;
      Index k = 0;
      for (; k + kLanes <= count; k += kLanes, column += kLanes * kPanel) {
        Vec v[kLanes];
        for (int r = 0; r < kLanes; ++r) v[r] = r < rows ? decode(row + r, depth + k) : Isa::zero();
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
    const Decoder<Isa, Format> decode(w);
    Index c = 0;
    for (; c + kLanes <= cols; c += kLanes) Isa::store(out + c, decode(row, col + c));
    for (; c < cols; ++c) out[c] = w.coeff(row, col + c);
    for (; c < padded; ++c) out[c] = 0.0f;
  }

  /** acc[R][kPanel] (+)= x[k][R]ᵀ·panel[k][kPanel]. */
  template <int R>
  static void multiplyTile(Index depth, const float* x, const float* panel, bool first, float* acc) {
    Vec sum[R][2];
    for (int r = 0; r < R; ++r) {
      for (int v = 0; v < 2; ++v) sum[r][v] = first ? Isa::zero() : Isa::load(acc + r * kPanel + v * kLanes);
    }
    for (Index k = 0; k < depth; ++k, x += R, panel += kPanel) {
      const Vec w0 = Isa::load(panel), w1 = Isa::load(panel + kLanes);
      for (int r = 0; r < R; ++r) {
        const Vec xr = Isa::broadcast(x[r]);
        sum[r][0] = Isa::multiplyAdd(xr, w0, sum[r][0]);
        sum[r][1] = Isa::multiplyAdd(xr, w1, sum[r][1]);
      }
    }
    for (int r = 0; r < R; ++r) {
      for (int v = 0; v < 2; ++v) Isa::store(acc + r * kPanel + v * kLanes, sum[r][v]);
    }
  }

  using TileFunction = void (*)(Index, const float*, const float*, bool, float*);
  template <int R = Isa::kTileRows>
  static TileFunction tileFunction(Index rows) {
    if constexpr (R > 1) {
      if (rows < R) return tileFunction<R - 1>(rows);
    }
    return &multiplyTile<R>;
  }

  /** Outputs [output, output + kPanel) of the tiles [tile, endTile), whose packed rows begin at \a x. */
  static void multiplyPanel(const QuantizedProduct& p, Index output, const float* x, Index firstRow, Index tile,
                            Index endTile, Index tileRows) {
    const Index k = p.x.cols, n = p.y.cols;
    float* panel = scratch(Scratch::kPanel, kDepth * kPanel);
    float* acc = scratch(Scratch::kTile, kSuperRows * kPanel);
    const TileFunction multiply = tileFunction(tileRows);
    for (Index depth = 0; depth == 0 || depth < k; depth += kDepth) {  // k = 0 still clears acc
      const Index count = least(kDepth, k - depth);
      (p.transposed ? fillTransposed : fillDirect)(p.w, output, depth, count, panel);
      for (Index t = tile; t < endTile; ++t) {
        multiply(count, x + (t * k + depth) * tileRows, panel, depth == 0, acc + (t - tile) * tileRows * kPanel);
      }
    }
    const Index row = firstRow + tile * tileRows, endRow = least(p.y.rows, firstRow + endTile * tileRows);
    storeTile(acc, kPanel, row, output, endRow - row, least(kPanel, n - output), p.y, p.epilogue);
  }

  static void gemm(const QuantizedProduct& p) {
    const Index m = p.y.rows, n = p.y.cols, k = p.x.cols, work = m * n * k;
    // Equal tiles: 13 rows are 7 + 6, not 12 + 1.
    const Index tileRows = ceilDiv(m, ceilDiv(m, Isa::kTileRows));
    const Index tilesOfSuper = kSuperRows / tileRows, panels = ceilDiv(n, kPanel);
    for (Index firstRow = 0; firstRow < m; firstRow += tilesOfSuper * tileRows) {
      const Index tiles = least(tilesOfSuper, ceilDiv(m - firstRow, tileRows));
      float* x = scratch(Scratch::kActivations, tiles * tileRows * k);
      forEachTask(tiles, work,
                  [&](Index t) { packTile(p.x, firstRow + t * tileRows, tileRows, x + t * tileRows * k); });
      // Few outputs leave threads idle: then they share the rows, and each decodes its panel anew.
      const Index shares = least(tiles, ceilDiv(2 * Index(nbThreads()), panels)), tilesOfShare = ceilDiv(tiles, shares);
      forEachTask(panels * shares, work, [&](Index task) {
        const Index tile = task % shares * tilesOfShare, endTile = least(tiles, tile + tilesOfShare);
        if (tile < endTile) multiplyPanel(p, task / shares * kPanel, x, firstRow, tile, endTile, tileRows);
      });
    }
  }

  // ---- gemv -----------------------------------------------------------------------------------------------------

  /** acc[r·ld] = Σ x[r·xStride + k]·w(row, k) for r < M. */
  template <int M>
  static void dotRow(const WeightView& w, Index row, const float* x, Index xStride, float* acc, Index ld) {
    constexpr int kChains = M <= 2 ? 4 : M <= 4 ? 2 : 1;  // independent sums, to hide the latency of an addition
    const Decoder<Isa, Format> decode(w);
    Vec sum[M][kChains];
    for (int r = 0; r < M; ++r) {
      for (int c = 0; c < kChains; ++c) sum[r][c] = Isa::zero();
    }
    Index k = 0;
    for (; k + kChains * kLanes <= w.cols; k += kChains * kLanes) {
      for (int c = 0; c < kChains; ++c) {
        const Vec weights = decode(row, k + c * kLanes);
        for (int r = 0; r < M; ++r) {
          sum[r][c] = Isa::multiplyAdd(Isa::load(x + r * xStride + k + c * kLanes), weights, sum[r][c]);
        }
      }
    }
    for (; k + kLanes <= w.cols; k += kLanes) {
      const Vec weights = decode(row, k);
      for (int r = 0; r < M; ++r) sum[r][0] = Isa::multiplyAdd(Isa::load(x + r * xStride + k), weights, sum[r][0]);
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

  static void dequantize(const WeightView& w, const DenseView& y, const Epilogue& epilogue) {
    constexpr Index kRows = 32, kCols = 256;
    const Index colTasks = ceilDiv(w.cols, kCols);
    forEachTask(ceilDiv(w.rows, kRows) * colTasks, w.rows * w.cols, [&](Index task) {
      const Index row = task / colTasks * kRows, col = task % colTasks * kCols;
      const Index rows = least(kRows, w.rows - row), cols = least(kCols, w.cols - col);
      float* tile = scratch(Scratch::kTile, kRows * kCols);
      for (Index i = 0; i < rows; ++i) decodeRow(w, row + i, col, cols, cols, tile + i * kCols);
      storeTile(tile, kCols, row, col, rows, cols, y, epilogue);
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
