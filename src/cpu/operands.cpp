// SPDX-License-Identifier: MPL-2.0
#include "operands.h"

#include "../formats/convert.h"

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

/** v[i] = epilogue(v[i]) for \a count values of a line from \a begin on, but for the scale. */
template <typename Traits>
void finish(float* v, const Line& line, Index begin, Index count, const Epilogue& e) {
  using Storage = typename Traits::Storage;
  if (e.biasAxis != BiasAxis::kNone) {
    const Storage* b = static_cast<const Storage*>(e.bias) + line.biasOffset * e.biasStride;
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
  for (Index i = 0; i < count; ++i) v[i] *= e.sign;
  if (e.residual.data) {
    const Storage* r = static_cast<const Storage*>(e.residual.data) + line.residualOffset + begin * line.residualStride;
    for (Index i = 0; i < count; ++i) v[i] += e.residualSign * Traits::toFloat(r[i * line.residualStride]);
  }
}

/** Nothing but a scale. */
bool isScaleOnly(const Epilogue& e) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  return e.biasAxis == BiasAxis::kNone && e.activation == Activation::kNone && e.lower == -kInfinity &&
         e.upper == kInfinity && e.sign == 1 && !e.residual.data;
}

template <typename Traits>
void storeLine(const Line& line, typename Traits::Storage* y, const Epilogue& e, bool scaleOnly) {
  typename Traits::Storage* out = y + line.yOffset;
  if (scaleOnly && line.yStride == 1 && line.accStride == 1) {
    for (Index i = 0; i < line.count; ++i) out[i] = Traits::fromFloat(e.alpha * line.acc[i]);
    return;
  }
  float v[kChunk];
  for (Index begin = 0; begin < line.count; begin += kChunk) {
    const Index count = std::min(kChunk, line.count - begin);
    const float* acc = line.acc + begin * line.accStride;
    for (Index i = 0; i < count; ++i) v[i] = e.alpha * acc[i * line.accStride];
    if (!scaleOnly) finish<Traits>(v, line, begin, count, e);
    typename Traits::Storage* o = out + begin * line.yStride;
    for (Index i = 0; i < count; ++i) o[i * line.yStride] = Traits::fromFloat(v[i]);
  }
}

template <typename Traits>
void packTileAs(const ConstDenseView& x, Index row, Index rows, Index col, Index cols, float* packed) {
  const auto* data = static_cast<const typename Traits::Storage*>(x.data) + row * x.rowStride + col * x.colStride;
  for (Index k = 0; k < cols; ++k, data += x.colStride, packed += rows) {
    for (Index i = 0; i < rows; ++i) packed[i] = Traits::toFloat(data[i * x.rowStride]);
  }
}

/** Whether row \a i is known to be finite at a glance: others are looked at value by value. */
bool isFiniteRow(const ConstDenseView& x, Index i) {
  if (x.scalar != ScalarType::kFloat || x.colStride != 1) return false;
  return !convertKernels().holdsNonFinite(static_cast<const float*>(x.data) + i * x.rowStride, x.cols);
}

}  // namespace

void packTile(const ConstDenseView& x, Index row, Index rows, Index col, Index cols, float* packed) {
  dispatchScalar(x.scalar, [&](auto traits) { packTileAs<decltype(traits)>(x, row, rows, col, cols, packed); });
}

void storeTile(const float* acc, Index ld, Index row, Index col, Index rows, Index cols, const DenseView& y,
               const Epilogue& e) {
  dispatchScalar(y.scalar, [&](auto traits) {
    using Traits = decltype(traits);
    const Index yOffset = row * y.rowStride + col * y.colStride;
    const ConstDenseView& c = e.residual;
    const bool scaleOnly = isScaleOnly(e);
    auto* data = static_cast<typename Traits::Storage*>(y.data);
    const Index residualOffset = row * c.rowStride + col * c.colStride;
    // Lines run along y's contiguous direction.
    if (y.rowStride == 1 && y.colStride != 1) {
      for (Index j = 0; j < cols; ++j) {
        const bool varies = e.biasAxis == BiasAxis::kPerRow;
        storeLine<Traits>({acc + j, ld, rows, yOffset + j * y.colStride, y.rowStride, residualOffset + j * c.colStride,
                           c.rowStride, varies ? row : col + j, varies},
                          data, e, scaleOnly);
      }
    } else {
      for (Index i = 0; i < rows; ++i) {
        const bool varies = e.biasAxis == BiasAxis::kPerCol;
        storeLine<Traits>({acc + i * ld, 1, cols, yOffset + i * y.rowStride, y.colStride,
                           residualOffset + i * c.rowStride, c.colStride, varies ? col : row + i, varies},
                          data, e, scaleOnly);
      }
    }
  });
}

bool isPlain(const Epilogue& e) { return e.alpha == 1 && isScaleOnly(e); }

bool inFixedPointRange(const ConstDenseView& x) {
  constexpr std::uint32_t kLeast = (127 - 40) << 23, kMost = (127 + 40) << 23;
  return dispatchScalar(x.scalar, [&](auto traits) {
    const auto* data = static_cast<const typename decltype(traits)::Storage*>(x.data);
    bool inside = true;
    for (Index i = 0; i < x.rows; ++i) {
      for (Index j = 0; j < x.cols; ++j) {
        const std::uint32_t magnitude =
            bitsOf(static_cast<float>(traits.toFloat(data[i * x.rowStride + j * x.colStride]))) & 0x7fffffffu;
        inside &= magnitude == 0 || magnitude - kLeast <= kMost - kLeast;
      }
    }
    return inside;
  });
}

bool findNonFinite(const ConstDenseView& x, Index* row, Index* col) {
  return dispatchScalar(x.scalar, [&](auto traits) {
    const auto* data = static_cast<const typename decltype(traits)::Storage*>(x.data);
    for (Index i = 0; i < x.rows; ++i) {
      if (isFiniteRow(x, i)) continue;
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
