// SPDX-License-Identifier: MPL-2.0
#include "operands.h"

#include <eigen_q/src/ScalarConvert.h>

#include <algorithm>

namespace EigenQ {
namespace internal {
namespace {

constexpr Index kChunk = 256;  // of a line: what is computed on stays in the first-level cache

/** One row or column of a result tile. */
struct Line {
  const float* acc;
  Index accStride;
  Index count;
  Index yOffset, yStride;
  Index residualOffset, residualStride;
  Index biasOffset;
  bool biasVaries;  // along the line
};

template <typename Traits>
void storeLine(const Line& line, void* y, const Epilogue& e) {
  using Storage = typename Traits::Storage;
  const Storage* bias = static_cast<const Storage*>(e.bias);
  const Storage* residual = static_cast<const Storage*>(e.residual.data);
  Storage* out = static_cast<Storage*>(y) + line.yOffset;
  float v[kChunk];
  for (Index begin = 0; begin < line.count; begin += kChunk) {
    const Index count = std::min(kChunk, line.count - begin);
    const float* acc = line.acc + begin * line.accStride;
    for (Index i = 0; i < count; ++i) v[i] = e.alpha * acc[i * line.accStride];
    if (e.biasAxis != BiasAxis::kNone) {
      const Storage* b = bias + line.biasOffset * e.biasStride;
      if (line.biasVaries) {
        b += begin * e.biasStride;
        for (Index i = 0; i < count; ++i) v[i] += Traits::toFloat(b[i * e.biasStride]);
      } else {
        const float constant = Traits::toFloat(*b);
        for (Index i = 0; i < count; ++i) v[i] += constant;
      }
    }
    if (e.activation != Activation::kNone) {
      dispatchActivation(e.activation, [&](auto activation) {
        for (Index i = 0; i < count; ++i) v[i] = activate<decltype(activation)::value>(v[i]);
      });
    }
    // Comparisons that are false for NaN keep it.
    for (Index i = 0; i < count; ++i) v[i] = v[i] < e.lower ? e.lower : v[i];
    for (Index i = 0; i < count; ++i) v[i] = v[i] > e.upper ? e.upper : v[i];
    if (residual) {
      const Storage* r = residual + line.residualOffset + begin * line.residualStride;
      for (Index i = 0; i < count; ++i) {
        v[i] = e.sign * v[i] + e.residualSign * Traits::toFloat(r[i * line.residualStride]);
      }
    } else if (e.sign != 1) {
      for (Index i = 0; i < count; ++i) v[i] = e.sign * v[i];
    }
    Storage* o = out + begin * line.yStride;
    if (line.yStride == 1) {
      for (Index i = 0; i < count; ++i) o[i] = Traits::fromFloat(v[i]);
    } else {
      for (Index i = 0; i < count; ++i) o[i * line.yStride] = Traits::fromFloat(v[i]);
    }
  }
}

template <typename Traits>
void packTileAs(const ConstDenseView& x, Index row, Index tileRows, float* packed) {
  const auto* data = static_cast<const typename Traits::Storage*>(x.data) + row * x.rowStride;
  const Index rows = std::min(tileRows, x.rows - row);
  if (tileRows == 1) {
    for (Index k = 0; k < x.cols; ++k) packed[k] = Traits::toFloat(data[k * x.colStride]);
    return;
  }
  for (Index k = 0; k < x.cols; ++k, data += x.colStride, packed += tileRows) {
    for (Index i = 0; i < rows; ++i) packed[i] = Traits::toFloat(data[i * x.rowStride]);
    for (Index i = rows; i < tileRows; ++i) packed[i] = 0.0f;
  }
}

}  // namespace

void packTile(const ConstDenseView& x, Index row, Index tileRows, float* packed) {
  dispatchScalar(x.scalar, [&](auto traits) { packTileAs<decltype(traits)>(x, row, tileRows, packed); });
}

void storeTile(const float* acc, Index ld, Index row, Index col, Index rows, Index cols, const DenseView& y,
               const Epilogue& e) {
  dispatchScalar(y.scalar, [&](auto traits) {
    using Traits = decltype(traits);
    const Index yOffset = row * y.rowStride + col * y.colStride;
    const ConstDenseView& c = e.residual;
    const Index residualOffset = row * c.rowStride + col * c.colStride;
    // Lines run along y's contiguous direction.
    if (y.rowStride == 1 && y.colStride != 1) {
      for (Index j = 0; j < cols; ++j) {
        const bool varies = e.biasAxis == BiasAxis::kPerRow;
        storeLine<Traits>({acc + j, ld, rows, yOffset + j * y.colStride, y.rowStride, residualOffset + j * c.colStride,
                           c.rowStride, varies ? row : col + j, varies},
                          y.data, e);
      }
    } else {
      for (Index i = 0; i < rows; ++i) {
        const bool varies = e.biasAxis == BiasAxis::kPerCol;
        storeLine<Traits>({acc + i * ld, 1, cols, yOffset + i * y.rowStride, y.colStride,
                           residualOffset + i * c.rowStride, c.colStride, varies ? col : row + i, varies},
                          y.data, e);
      }
    }
  });
}

bool findNonFinite(const ConstDenseView& x, Index* row, Index* col) {
  return dispatchScalar(x.scalar, [&](auto traits) {
    const auto* data = static_cast<const typename decltype(traits)::Storage*>(x.data);
    for (Index i = 0; i < x.rows; ++i) {
      for (Index j = 0; j < x.cols; ++j) {
        const float v = traits.toFloat(data[i * x.rowStride + j * x.colStride]);
        if ((bitsOf(v) & kFloatInfinity) != kFloatInfinity) continue;
        *row = i;
        *col = j;
        return true;
      }
    }
    return false;
  });
}

}  // namespace internal
}  // namespace EigenQ
