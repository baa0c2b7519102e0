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

constexpr Index kTileRows = 128, kTileCols = 64;
constexpr double kInverse127Squared = 1.0 / (127.0 * 127.0);

/** Where a tile of Y lies. */
struct Tile {
  Index row, col, rows, cols;
};

/** total (rows×cols) = the integer sums of a tile; deep ones in pieces that int32 holds. */
void sumCodes(const DecomposedProduct& p, const Tile& t, std::vector<std::int32_t>& sums, std::vector<double>& total) {
  const Index depth = p.w.cols;
  std::fill(total.begin(), total.end(), 0.0);
  for (Index k = 0; k < depth; k += kInt8MaxDepth) {
    Int8Product piece;
    piece.a = p.activations->codes.data() + t.row * depth + k;
    piece.aStride = depth;
    piece.b = static_cast<const std::int8_t*>(p.w.codes) + p.w.offset + t.col * p.w.stride + k;
    piece.bStride = p.w.stride;
    piece.c = sums.data();
    piece.cRowStride = t.cols;
    piece.cColStride = 1;
    piece.m = t.rows;
    piece.n = t.cols;
    piece.k = least(kInt8MaxDepth, depth - k);
    lower(piece);
    for (std::size_t i = 0; i < total.size(); ++i) total[i] += sums[i];
  }
}

float weightAt(const DecomposedProduct& p, Index j, Index k) {
  const ConstDenseView& w = p.outlierWeights;
  if (!w.data) return p.w.coeff(j, k);
  return static_cast<float>(readScalar(w.data, w.scalar, j * w.rowStride + k * w.colStride));
}

/** acc (rows×cols) = Xₒ·Wₒᵀ of a tile. */
void multiplyOutliers(const DecomposedProduct& p, const Tile& t, std::vector<float>& acc) {
  std::fill(acc.begin(), acc.end(), 0.0f);
  std::vector<float> weights(static_cast<std::size_t>(t.cols));
  for (const Index k : p.activations->outliers) {
    for (Index j = 0; j < t.cols; ++j) weights[static_cast<std::size_t>(j)] = weightAt(p, t.col + j, k);
    for (Index i = 0; i < t.rows; ++i) {
      const Index at = (t.row + i) * p.x.rowStride + k * p.x.colStride;
      const float x = static_cast<float>(readScalar(p.x.data, p.x.scalar, at));
      float* out = acc.data() + i * t.cols;
      for (Index j = 0; j < t.cols; ++j) out[j] += x * weights[static_cast<std::size_t>(j)];
    }
  }
}

void multiplyTile(const DecomposedProduct& p, const Tile& t) {
  const std::size_t size = static_cast<std::size_t>(t.rows * t.cols);
  std::vector<std::int32_t> sums(size);
  std::vector<double> total(size);
  std::vector<float> acc(size);
  sumCodes(p, t, sums, total);
  multiplyOutliers(p, t, acc);
  for (Index i = 0; i < t.rows; ++i) {
    const double rowScale =
        static_cast<double>(p.activations->rowStats[static_cast<std::size_t>(t.row + i)]) * kInverse127Squared;
    for (Index j = 0; j < t.cols; ++j) {
      const std::size_t at = static_cast<std::size_t>(i * t.cols + j);
      const double scaled = total[at] * (rowScale * static_cast<double>(p.w.rowAbsmax[t.col + j]));
      acc[at] = static_cast<float>(scaled + static_cast<double>(acc[at]));
    }
  }
  storeTile(acc.data(), t.cols, t.row, t.col, t.rows, t.cols, p.y, p.epilogue);
}

bool holdsNaN(const ConstDenseView& x, Index row) {
  return dispatchScalar(x.scalar, [&](auto traits) {
    const auto* data = static_cast<const typename decltype(traits)::Storage*>(x.data) + row * x.rowStride;
    for (Index j = 0; j < x.cols; ++j) {
      if ((bitsOf(traits.toFloat(data[j * x.colStride])) & ~kFloatSign) > kFloatInfinity) return true;
    }
    return false;
  });
}

}  // namespace

void markRowsWithNaN(const ConstDenseView& x, float* stats) {
  if (x.cols == 0) return;  // and maybe no memory at all
  for (Index i = 0; i < x.rows; ++i) {
    if (holdsNaN(x, i)) stats[i] = std::numeric_limits<float>::quiet_NaN();
  }
}

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
  const Index tileRows = ceilDiv(p.y.rows, kTileRows), tileCols = ceilDiv(p.y.cols, kTileCols);
  forEachTask(tileRows * tileCols, p.y.rows * p.y.cols * p.w.cols / 2, [&](Index task) {
    const Index row = task / tileCols * kTileRows, col = task % tileCols * kTileCols;
    multiplyTile(p, {row, col, least(kTileRows, p.y.rows - row), least(kTileCols, p.y.cols - col)});
  });
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
