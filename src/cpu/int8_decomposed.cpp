// SPDX-License-Identifier: MPL-2.0
// LLM.int8(): Y = epilogue(X̂·Ŵᵀ + Xₒ·Wₒᵀ), in tiles of Y.
//
//   X̂·Ŵᵀ    int8 codes in, int32 sums out, then  sum·(row stat·row absmax/127²)  in double: no product of two
//           statistics overflows there, and an exact integer meets one rounding
//   Xₒ·Wₒᵀ  the few outlier columns in float, gathered once per tile
#include "kernels.h"
#include "operands.h"
#include "tasks.h"

#include <eigen_q/src/Int8Product.h>
#include <eigen_q/src/Quantizers.h>
#include <eigen_q/src/ScalarConvert.h>

#include <algorithm>
#include <iterator>
#include <limits>

namespace EigenQ {
namespace internal {
namespace {

constexpr double kInverse127Squared = 1.0 / (127.0 * 127.0);

std::size_t sized(Index n) { return static_cast<std::size_t>(n); }

float weightAt(const DecomposedProduct& p, Index j, Index k) {
  const ConstDenseView& w = p.outlierWeights;
  if (!w.data) return p.w.coeff(j, k);
  return static_cast<float>(readScalar(w.data, w.scalar, j * w.rowStride + k * w.colStride));
}

/** What all tiles of a product share. */
class Decomposition {
 public:
  explicit Decomposition(const DecomposedProduct& p) : m_p(p), m_outliers(p.activations->outliers) {
    m_codes.a = p.activations->codes.data();
    m_codes.aStride = p.w.cols;
    m_codes.b = static_cast<const std::int8_t*>(p.w.codes) + p.w.offset;
    m_codes.bStride = p.w.stride;
    m_codes.m = p.y.rows;
    m_codes.n = p.y.cols;
    m_codes.k = least(kInt8MaxDepth, p.w.cols);
    m_lowering = &chooseInt8Lowering(m_codes);
    m_rowScale.reserve(sized(p.y.rows));
    for (Index i = 0; i < p.y.rows; ++i) {
      m_rowScale.push_back(static_cast<double>(p.activations->rowStats[sized(i)]) * kInverse127Squared);
    }
    gatherOutliers();
  }

  void run() const {
    if (m_p.w.cols <= kInt8MaxDepth) {
      m_lowering->run(m_codes, {takeTile, const_cast<Decomposition*>(this)});
    } else {
      runDeep();
    }
  }

 private:
  /** xₒ(i, o): the activations of the outlier columns. */
  void gatherOutliers() {
    const ConstDenseView& x = m_p.x;
    m_outlierValues.reserve(sized(x.rows) * m_outliers.size());
    for (Index i = 0; i < (m_outliers.empty() ? 0 : x.rows); ++i) {
      for (const Index k : m_outliers) {
        m_outlierValues.push_back(static_cast<float>(readScalar(x.data, x.scalar, i * x.rowStride + k * x.colStride)));
      }
    }
  }

  static void takeTile(void* context, const Int8Tile& tile) {
    const auto& self = *static_cast<const Decomposition*>(context);
    const std::vector<float> products = self.multiplyOutliers(tile);
    self.m_lowering->scale(tile, self.m_rowScale.data() + tile.row, self.m_p.w.rowAbsmax + tile.col,
                           products.empty() ? nullptr : products.data());
    self.store(tile);
  }

  void store(const Int8Tile& t) const { storeTile(t.values, t.ld, t.row, t.col, t.rows, t.cols, m_p.y, m_p.epilogue); }

  /** Xₒ·Wₒᵀ of a tile, laid out like its sums; nothing without outliers. Runs while the tile's rows of W are in a
   * cache: a column of W alone touches a line for every weight. */
  std::vector<float> multiplyOutliers(const Int8Tile& t) const {
    std::vector<float> products;
    const std::size_t count = m_outliers.size(), cols = sized(t.cols);
    if (count == 0) return products;
    std::vector<float> weights(count * cols);  // (outlier, column)
    for (std::size_t j = 0; j < cols; ++j) {
      for (std::size_t o = 0; o < count; ++o) weights[o * cols + j] = weightAt(m_p, t.col + Index(j), m_outliers[o]);
    }
    products.resize(sized(t.rows * t.ld));
    for (Index i = 0; i < t.rows; ++i) {
      float* const out = products.data() + i * t.ld;
      const float* const x = m_outlierValues.data() + sized(t.row + i) * count;
      for (std::size_t o = 0; o < count; ++o) {
        const float* const w = weights.data() + o * cols;
        for (std::size_t j = 0; j < cols; ++j) out[j] += x[o] * w[j];
      }
    }
    return products;
  }

  /** Sums that int32 does not hold: pieces of them are added in double, tile by tile. */
  void runDeep() const {
    constexpr Index kRows = 128, kCols = 64;
    const Index tileRows = ceilDiv(m_p.y.rows, kRows), tileCols = ceilDiv(m_p.y.cols, kCols);
    forEachTask(tileRows * tileCols, m_p.y.rows * m_p.y.cols * m_p.w.cols / 2, [&](Index task) {
      const Index row = task / tileCols * kRows, col = task % tileCols * kCols;
      Totals totals(row, col, least(kRows, m_p.y.rows - row), least(kCols, m_p.y.cols - col));
      for (Index k = 0; k < m_p.w.cols; k += kInt8MaxDepth) totals.add(*m_lowering, m_codes, k, m_p.w.cols);
      finishDeep(totals);
    });
  }

  struct Totals {
    Index row, col, rows, cols;
    std::vector<double> sums;

    Totals(Index r, Index c, Index m, Index n) : row(r), col(c), rows(m), cols(n), sums(sized(m * n)) {}

    void add(const Int8Lowering& lowering, const Int8Product& whole, Index k, Index depth) {
      Int8Product piece = whole;
      piece.a += row * whole.aStride + k;
      piece.b += col * whole.bStride + k;
      piece.m = rows;
      piece.n = cols;
      piece.k = least(kInt8MaxDepth, depth - k);
      lowering.run(piece, {addTile, this});
    }

    static void addTile(void* context, const Int8Tile& t) {
      auto& self = *static_cast<Totals*>(context);
      for (Index i = 0; i < t.rows; ++i) {
        double* const to = self.sums.data() + (t.row + i) * self.cols + t.col;
        for (Index j = 0; j < t.cols; ++j) to[j] += t.sums[i * t.ld + j];
      }
    }
  };

  void finishDeep(const Totals& totals) const {
    std::vector<float> values(totals.sums.size());
    const Int8Tile tile{totals.row, totals.col, totals.rows, totals.cols, nullptr, totals.cols, values.data()};
    const std::vector<float> outliers = multiplyOutliers(tile);
    for (Index i = 0; i < tile.rows; ++i) {
      for (Index j = 0; j < tile.cols; ++j) {
        const std::size_t at = sized(i * tile.ld + j);
        const double scale = m_rowScale[sized(tile.row + i)] * static_cast<double>(m_p.w.rowAbsmax[tile.col + j]);
        const double more = outliers.empty() ? 0.0 : static_cast<double>(outliers[at]);
        values[at] = static_cast<float>(totals.sums[at] * scale + more);
      }
    }
    store(tile);
  }

  const DecomposedProduct& m_p;
  const std::vector<Index>& m_outliers;
  Int8Product m_codes;  // without c; of the first piece where there are several
  const Int8Lowering* m_lowering;
  std::vector<double> m_rowScale;
  std::vector<float> m_outlierValues;
};

}  // namespace

Int8Activations quantizeActivations(const ConstDenseView& x, float threshold) {
  Int8Activations a;
  a.codes.resize(static_cast<std::size_t>(x.rows * x.cols));
  a.rowStats.resize(static_cast<std::size_t>(x.rows));
  quantizeInt8Rows(x, threshold, a.codes.data(), a.rowStats.data(), &a.outliers);
  markRowsWithNaN(x, a.rowStats.data());
  return a;
}

void addOutliers(const std::vector<Index>& columns, Index cols, Int8Activations& a) {
  std::vector<Index> all;
  std::set_union(a.outliers.begin(), a.outliers.end(), columns.begin(), columns.end(), std::back_inserter(all));
  a.outliers = std::move(all);
  const Index rows = static_cast<Index>(a.rowStats.size());
  for (Index i = 0; i < rows; ++i) {
    for (const Index k : columns) a.codes[static_cast<std::size_t>(i * cols + k)] = 0;
  }
}

void multiplyDecomposed(const DecomposedProduct& p) {
  if (p.y.rows > 0 && p.y.cols > 0) Decomposition(p).run();
}

void runDecomposed(const QuantizedProduct& p) {
  const Int8Activations activations = quantizeActivations(p.x, p.w.outlierThreshold);
  DecomposedProduct d;
  d.activations = &activations;
  d.x = p.x;
  d.w = p.w;
  d.y = p.y;
  d.epilogue = p.epilogue;
  multiplyDecomposed(d);
}

}  // namespace internal
}  // namespace EigenQ
