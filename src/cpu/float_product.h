// SPDX-License-Identifier: MPL-2.0
// Dense products Y (m×n) (+)= alpha·X (m×k)·W (k×n) for one instruction set.
//
//   gemm   As panel_kernels.h, with a panel that is copied, or transposed, instead of decoded:
//
//              panel[k][kPanel]     rows of X where they are     Y[m][n] += x·panel, R×2 vectors in registers
//
//          Sums of kDepth terms go to Y itself: no tile of results is copied. A panel of 16 KiB is multiplied by
//          kSuperRows rows of X, so that filling it is noise, and X, read in place, comes from the second-level cache.
//   gemv   Few rows of X, weights read once and as they are. Rows of W contiguous: each is added to Y, kAtOnce at once
//          lest Y's own traffic rule. Columns contiguous: kAtOnce dot products side by side.
//
// Limit    gemm: that of FMA. gemv: that of reading W.
//
// Everything here has internal linkage; see simd.h for the reason.
#ifndef EIGENQ_CPU_FLOAT_PRODUCT_H
#define EIGENQ_CPU_FLOAT_PRODUCT_H

#include <eigen_q/src/FloatKernels.h>
#include <eigen_q/src/ScalarConvert.h>

#include "operands.h"
#include "tasks.h"
#include "tile_kernel.h"

namespace EigenQ {
namespace internal {
namespace {

/** Weights of one scalar type as vectors of float. */
template <typename Isa, ScalarType kScalar>
struct Weights {
  using Storage = typename ScalarTraits<kScalar>::Storage;
  static typename Isa::Vec load(const Storage* p) {
    if constexpr (kScalar == ScalarType::kFloat) {
      return Isa::load(p);
    } else if constexpr (kScalar == ScalarType::kHalf) {
      return Isa::fromHalf(p);
    } else {
      return Isa::fromBFloat16(p);
    }
  }
  static float toFloat(Storage v) { return ScalarTraits<kScalar>::toFloat(v); }
};

/** A k×n matrix of weights in memory. */
template <typename Storage>
struct WeightMatrix {
  const Storage* data;
  Index depthStride;   // from k to k + 1
  Index outputStride;  // from n to n + 1
};

/** Rows of X: the value of row i at depth k is data[i·rowStride + k·depthStride]. */
struct RowMatrix {
  const float* data;
  Index rowStride;
  Index depthStride;

  RowTile at(Index row, Index depth) const {
    return {data + row * rowStride + depth * depthStride, rowStride, depthStride};
  }
};

/** Rows of results. */
struct ResultMatrix {
  float* data;
  Index stride;  // from row to row
};

template <typename Isa, ScalarType kScalar>
struct FloatProductKernels {
  using Vec = typename Isa::Vec;
  using W = Weights<Isa, kScalar>;
  using Storage = typename W::Storage;
  using Matrix = WeightMatrix<Storage>;
  using Tile = TileKernel<Isa>;
  static constexpr int kLanes = Isa::kLanes, kPanel = Tile::kPanel;
  static constexpr Index kDepth = 4096 / kPanel;  // of a panel: half a first-level cache
  static constexpr Index kSuperRows = 512;
  static constexpr Index kFewRows = 3, kAtOnce = 4;

  // ---- panels ---------------------------------------------------------------------------------------------------

  /** panel[k][lane] = alpha·w(k, lane), k < count, lane < lanes ≤ kPanel; other lanes are zero. */
  static void fill(const Matrix& w, Index count, Index lanes, float alpha, float* panel) {
    if (w.outputStride == 1) {
      copyRows(w, count, lanes, alpha, panel);
    } else if (w.depthStride == 1) {
      transposeColumns(w, count, lanes, alpha, panel);
    } else {
      gather(w, 0, count, 0, kPanel, lanes, alpha, panel);
    }
  }

  static void copyRows(const Matrix& w, Index count, Index lanes, float alpha, float* panel) {
    const Vec factor = Isa::broadcast(alpha);
    const Storage* row = w.data;
    for (Index k = 0; k < count; ++k, row += w.depthStride, panel += kPanel) {
      if (lanes == kPanel) {
        Isa::store(panel, Isa::mul(factor, W::load(row)));
        Isa::store(panel + kLanes, Isa::mul(factor, W::load(row + kLanes)));
      } else {
        for (Index l = 0; l < kPanel; ++l) panel[l] = l < lanes ? alpha * W::toFloat(row[l]) : 0.0f;
      }
    }
  }

  static void transposeColumns(const Matrix& w, Index count, Index lanes, float alpha, float* panel) {
    const Vec factor = Isa::broadcast(alpha);
    for (Index group = 0; group < kPanel; group += kLanes) {
      const Storage* column = w.data + group * w.outputStride;
      const Index columns = least(kLanes, lanes - group);
      Index k = 0;
      for (; k + kLanes <= count; k += kLanes) {
        Vec v[kLanes];
        for (int c = 0; c < kLanes; ++c) {
          v[c] = c < columns ? Isa::mul(factor, W::load(column + c * w.outputStride + k)) : Isa::zero();
        }
        Isa::transpose(v);
        for (int i = 0; i < kLanes; ++i) Isa::store(panel + (k + i) * kPanel + group, v[i]);
      }
      gather(w, k, count, group, group + kLanes, lanes, alpha, panel);
    }
  }

  static void gather(const Matrix& w, Index k, Index count, Index begin, Index end, Index lanes, float alpha,
                     float* panel) {
    for (; k < count; ++k) {
      for (Index l = begin; l < end; ++l) {
        const bool inside = l < lanes;
        panel[k * kPanel + l] = inside ? alpha * W::toFloat(w.data[k * w.depthStride + l * w.outputStride]) : 0.0f;
      }
    }
  }

  // ---- gemm -----------------------------------------------------------------------------------------------------

  /** y[rows][lanes] = or += x[rows][count]·panel. */
  static void multiplyPanel(Index rows, Index tileRows, Index count, const RowMatrix& x, const float* panel,
                            Index lanes, bool assign, ResultMatrix y) {
    const auto whole = Tile::intoFunction(tileRows);
    for (Index r = 0; r < rows; r += tileRows) {
      const Index inTile = least(tileRows, rows - r);
      const auto multiply = inTile == tileRows ? whole : Tile::intoFunction(inTile);
      float* to = y.data + r * y.stride;
      if (lanes == kPanel) {
        multiply(count, x.at(r, 0), panel, assign, to, y.stride);
        continue;
      }
      float part[Isa::kTileRows * kPanel];
      multiply(count, x.at(r, 0), panel, true, part, kPanel);
      for (Index i = 0; i < inTile; ++i) {
        for (Index l = 0; l < lanes; ++l)
          to[i * y.stride + l] = (assign ? 0 : to[i * y.stride + l]) + part[i * kPanel + l];
      }
    }
  }

  /** Rows of a tile: 13 rows are 7 + 6, not 12 + 1. The order of a sum depends on it. */
  static Index tileRowsOf(Index rows) { return ceilDiv(rows, ceilDiv(rows, Isa::kTileRows)); }

  /** y[m][n] = or += alpha·x·w in tiles of \a tileRows rows, by one thread. */
  static void multiply(Index m, Index tileRows, Index n, Index depth, const RowMatrix& x, const Matrix& w, float alpha,
                       bool assign, ResultMatrix y) {
    float* panel = scratch(Scratch::kPanel, kDepth * kPanel);
    for (Index k = 0; k < depth; k += kDepth, assign = false) {
      const Index count = least(kDepth, depth - k);
      for (Index output = 0; output < n; output += kPanel) {
        const Index lanes = least(kPanel, n - output);
        const Matrix from{w.data + k * w.depthStride + output * w.outputStride, w.depthStride, w.outputStride};
        fill(from, count, lanes, alpha, panel);
        const RowMatrix rows{x.data + k * x.depthStride, x.rowStride, x.depthStride};
        multiplyPanel(m, tileRows, count, rows, panel, lanes, assign, {y.data + output, y.stride});
      }
    }
  }

  // ---- gemv -----------------------------------------------------------------------------------------------------

  /** y[n] (+)= Σ x[k]·w[k][n], rows of w contiguous. */
  static void addRows(Index n, Index depth, const float* x, Index xStride, const Matrix& w, float alpha, bool assign,
                      float* y) {
    constexpr Index kPiece = 2048;  // of y, which stays in the first-level cache
    for (Index begin = 0; begin < n; begin += kPiece) {
      const Index count = least(kPiece, n - begin);
      float* to = y + begin;
      if (assign) {
        for (Index i = 0; i < count; ++i) to[i] = 0;
      }
      Index k = 0;
      for (; k + kAtOnce <= depth; k += kAtOnce) {
        const Storage* row = w.data + k * w.depthStride + begin;
        Vec factor[kAtOnce];
        for (int r = 0; r < kAtOnce; ++r) factor[r] = Isa::broadcast(alpha * x[(k + r) * xStride]);
        Index i = 0;
        for (; i + kLanes <= count; i += kLanes) {
          Vec sum = Isa::load(to + i);
          for (int r = 0; r < kAtOnce; ++r)
            sum = Isa::multiplyAdd(factor[r], W::load(row + r * w.depthStride + i), sum);
          Isa::store(to + i, sum);
        }
        for (; i < count; ++i) {
          for (int r = 0; r < kAtOnce; ++r)
            to[i] += alpha * x[(k + r) * xStride] * W::toFloat(row[r * w.depthStride + i]);
        }
      }
      for (; k < depth; ++k) {
        const Storage* row = w.data + k * w.depthStride + begin;
        for (Index i = 0; i < count; ++i) to[i] += alpha * x[k * xStride] * W::toFloat(row[i]);
      }
    }
  }

  /** y[n] (+)= Σ x[k]·w[k][n], columns of w contiguous, x too. */
  static void dotColumns(Index n, Index depth, const float* x, const Matrix& w, float alpha, bool assign, float* y) {
    for (Index output = 0; output < n; output += kAtOnce) {
      const Index outputs = least(kAtOnce, n - output);
      const Storage* columns[kAtOnce];
      for (Index c = 0; c < kAtOnce; ++c) columns[c] = w.data + least(output + c, n - 1) * w.outputStride;
      Vec sum[kAtOnce][2];
      for (auto& s : sum) s[0] = s[1] = Isa::zero();
      Index k = 0;
      for (; k + 2 * kLanes <= depth; k += 2 * kLanes) {
        const Vec x0 = Isa::load(x + k), x1 = Isa::load(x + k + kLanes);
        for (int c = 0; c < kAtOnce; ++c) {
          sum[c][0] = Isa::multiplyAdd(x0, W::load(columns[c] + k), sum[c][0]);
          sum[c][1] = Isa::multiplyAdd(x1, W::load(columns[c] + k + kLanes), sum[c][1]);
        }
      }
      for (Index c = 0; c < outputs; ++c) {
        float total = Isa::sum(Isa::add(sum[c][0], sum[c][1]));
        for (Index i = k; i < depth; ++i) total += x[i] * W::toFloat(columns[c][i]);
        y[output + c] = (assign ? 0 : y[output + c]) + alpha * total;
      }
    }
  }

  // ---- the whole ------------------------------------------------------------------------------------------------

  static void run(const FloatProduct& p) {
    const Index m = p.y.rows, n = p.y.cols, depth = p.x.cols, work = m * n * depth;
    const Matrix w{static_cast<const Storage*>(p.w.data), p.w.rowStride, p.w.colStride};
    RowMatrix x{static_cast<const float*>(p.x.data), p.x.rowStride, p.x.colStride};
    const ResultMatrix y{static_cast<float*>(p.y.data), p.y.rowStride};
    if (m == 0 || n == 0) return;
    if (depth == 0) {  // x and w may have no address
      if (!p.accumulate) clear(m, n, y);
      return;
    }
    if (hasFewRows(m, x, w)) return runFewRows(m, n, depth, x, w, p.alpha, !p.accumulate, y);
    if (collides(x, depth, n)) x = packed(p.x);
    const Index threads = work < kWorthThreads ? 1 : Index(maxThreads());
    // Two tasks a thread: whole panels, and whole tiles of rows where panels are too few. No share is larger than what
    // a panel should meet in the second-level cache.
    const Index panels = ceilDiv(n, kPanel), ranges = threads == 1 ? 1 : least(panels, 2 * threads);
    const Index tileRows = tileRowsOf(m), tiles = ceilDiv(m, tileRows), largest = kSuperRows / tileRows;
    const Index perRange = ceilDiv(panels, ranges) * kPanel;
    const Index perShare =
        least(largest, threads == 1 ? tiles : ceilDiv(tiles, ceilDiv(2 * threads, ranges))) * tileRows;
    forEachTask(ranges * ceilDiv(m, perShare), work, [&](Index task) {
      const Index output = task % ranges * perRange, row = task / ranges * perShare;
      if (output >= n) return;
      const Matrix from{w.data + output * w.outputStride, w.depthStride, w.outputStride};
      multiply(least(perShare, m - row), tileRows, least(perRange, n - output), depth,
               {x.data + row * x.rowStride, x.rowStride, x.depthStride}, from, p.alpha, !p.accumulate,
               {y.data + row * y.stride + output, y.stride});
    });
  }

  static void clear(Index m, Index n, ResultMatrix y) {
    for (Index r = 0; r < m; ++r) {
      for (Index i = 0; i < n; ++i) y.data[r * y.stride + i] = 0;
    }
  }

  static void runFewRows(Index m, Index n, Index depth, const RowMatrix& x, const Matrix& w, float alpha, bool assign,
                         ResultMatrix y) {
    constexpr Index kOutputs = 512;  // of a task
    forEachTask(ceilDiv(n, kOutputs), m * n * depth, [&](Index task) {
      const Index output = task * kOutputs;
      const Matrix from{w.data + output * w.outputStride, w.depthStride, w.outputStride};
      multiplyFewRows(m, least(kOutputs, n - output), depth, x, from, alpha, assign, {y.data + output, y.stride});
    });
  }

  /** Whether multiplyFewRows() is meant for a product. */
  static bool hasFewRows(Index m, const RowMatrix& x, const Matrix& w) {
    return m <= kFewRows && (w.outputStride == 1 || (w.depthStride == 1 && x.depthStride == 1));
  }
  static void multiplyFewRows(Index m, Index n, Index depth, const RowMatrix& x, const Matrix& w, float alpha,
                              bool assign, ResultMatrix y) {
    for (Index r = 0; r < m; ++r) {
      const float* row = x.data + r * x.rowStride;
      float* to = y.data + r * y.stride;
      if (w.outputStride == 1) {
        addRows(n, depth, row, x.depthStride, w, alpha, assign, to);
      } else {
        dotColumns(n, depth, row, w, alpha, assign, to);
      }
    }
  }

  /** Any number of rows, by one thread. */
  static void multiplyRows(Index m, Index n, Index depth, const RowMatrix& x, const Matrix& w, float alpha, bool assign,
                           ResultMatrix y) {
    if (hasFewRows(m, x, w)) return multiplyFewRows(m, n, depth, x, w, alpha, assign, y);
    multiply(m, tileRowsOf(m), n, depth, x, w, alpha, assign, y);
  }

  /** Whether the rows of a tile fall into one set of the first-level cache, which 12 of them overflow. */
  static bool collides(const RowMatrix& x, Index depth, Index n) {
    return x.rowStride != 1 && x.rowStride % 1024 == 0 && depth > kLanes && n > kPanel;
  }
  static RowMatrix packed(const ConstDenseView& x) {
    float* to = scratch(Scratch::kActivations, x.rows * x.cols);
    packTile(x, 0, x.rows, 0, x.cols, to);
    return {to, 1, x.rows};
  }
};

template <typename Isa>
void multiplyFloat(const FloatProduct& p) {
  switch (p.w.scalar) {
    case ScalarType::kHalf:
      return FloatProductKernels<Isa, ScalarType::kHalf>::run(p);
    case ScalarType::kBFloat16:
      return FloatProductKernels<Isa, ScalarType::kBFloat16>::run(p);
    default:
      return FloatProductKernels<Isa, ScalarType::kFloat>::run(p);
  }
}

}  // namespace
}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_FLOAT_PRODUCT_H
