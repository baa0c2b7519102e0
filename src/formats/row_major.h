// SPDX-License-Identifier: MPL-2.0
// row_major.h: any dense view as runs of floats along its row-major flattening.
//
// A view that is already such a run is passed on as it is. Any other is copied panel by panel, a few rows at a time, in
// the order in which it lies in memory: a column-major matrix is read down its columns, a cache line of rows at once,
// never along its rows, which would touch a line for each element.
#ifndef EIGENQ_SRC_ROW_MAJOR_H
#define EIGENQ_SRC_ROW_MAJOR_H

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <vector>

#include <eigen_q/src/ScalarConvert.h>
#include <eigen_q/src/Views.h>

#include "convert.h"

namespace EigenQ {
namespace internal {

constexpr Index kPanelValues = Index{1} << 18;  // 1 MB of floats: half of a common L2

inline Index panelRows(Index rows, Index cols) { return std::clamp<Index>(kPanelValues / cols, 1, rows); }

template <typename Void>
bool isRowMajorFloats(const BasicDenseView<Void>& a) {
  return a.scalar == ScalarType::kFloat && (a.cols == 1 || a.colStride == 1) && (a.rows == 1 || a.rowStride == a.cols);
}

constexpr Index kTile = 8;  // tiles of 8×8: rows and columns of a power of two apart share their cache sets of 8 ways

/** Calls \a visit(offset in memory, offset in the panel) for each element of rows [row, row + rows), in an order that
 * suits both. */
template <typename Void, typename Visit>
void walkPanel(const BasicDenseView<Void>& a, Index row, Index rows, Visit&& visit) {
  const Index base = row * a.rowStride;
  const auto visitAt = [&](Index i, Index j) { visit(base + i * a.rowStride + j * a.colStride, i * a.cols + j); };
  if (std::abs(a.colStride) <= std::abs(a.rowStride)) {
    for (Index i = 0; i < rows; ++i)
      for (Index j = 0; j < a.cols; ++j) visitAt(i, j);
    return;
  }
  for (Index jTile = 0; jTile < a.cols; jTile += kTile) {
    const Index jEnd = std::min(jTile + kTile, a.cols);
    for (Index iTile = 0; iTile < rows; iTile += kTile) {
      const Index iEnd = std::min(iTile + kTile, rows);
      for (Index j = jTile; j < jEnd; ++j)
        for (Index i = iTile; i < iEnd; ++i) visitAt(i, j);
    }
  }
}

/** Where element (row, col) lies. */
inline const void* elementAt(const ConstDenseView& a, Index row, Index col) {
  return dispatchScalar(a.scalar, [&](auto traits) -> const void* {
    const auto* data = static_cast<const typename decltype(traits)::Storage*>(a.data);
    return data + row * a.rowStride + col * a.colStride;
  });
}

inline void loadPanel(const ConstDenseView& a, Index row, Index rows, float* panel) {
  if (a.colStride == 1) {
    for (Index i = 0; i < rows; ++i) {
      convertKernels().toFloat(a.scalar, elementAt(a, row + i, 0), a.cols, panel + i * a.cols);
    }
    return;
  }
  dispatchScalar(a.scalar, [&](auto traits) {
    const auto* data = static_cast<const typename decltype(traits)::Storage*>(a.data);
    walkPanel(a, row, rows, [=](Index from, Index to) { panel[to] = traits.toFloat(data[from]); });
  });
}

inline void storePanel(const float* panel, Index row, Index rows, const DenseView& out) {
  dispatchScalar(out.scalar, [&](auto traits) {
    auto* data = static_cast<typename decltype(traits)::Storage*>(out.data);
    walkPanel(out, row, rows, [=](Index to, Index from) { data[to] = traits.fromFloat(panel[from]); });
  });
}

/** Calls \a f(const float* run, Index begin, Index count) for consecutive runs that cover the flattening of \a a; begin
 * and, but for the last run, count are multiples of \a unit. */
template <typename F>
void forEachRun(const ConstDenseView& a, Index unit, F&& f) {
  const Index size = a.rows * a.cols;
  if (size == 0) return;
  if (isRowMajorFloats(a)) return f(static_cast<const float*>(a.data), 0, size);
  const Index step = panelRows(a.rows, a.cols);
  std::vector<float> buffer(static_cast<std::size_t>(unit + step * a.cols));
  Index begin = 0, carried = 0;  // values of an incomplete unit wait at the buffer's front
  for (Index row = 0; row < a.rows; row += step) {
    const Index rows = std::min(step, a.rows - row);
    loadPanel(a, row, rows, buffer.data() + carried);
    const Index filled = carried + rows * a.cols;
    carried = row + rows == a.rows ? 0 : filled % unit;
    const Index count = filled - carried;
    if (count > 0) f(static_cast<const float*>(buffer.data()), begin, count);
    std::memmove(buffer.data(), buffer.data() + count, static_cast<std::size_t>(carried) * sizeof(float));
    begin += count;
  }
}

/** Calls \a decode(Index begin, Index count, float* run), whole rows at a time, and stores the runs in \a out. */
template <typename F>
void storeRuns(const DenseView& out, F&& decode) {
  const Index size = out.rows * out.cols;
  if (size == 0) return;
  if (isRowMajorFloats(out)) return decode(Index{0}, size, static_cast<float*>(out.data));
  const Index step = panelRows(out.rows, out.cols);
  std::vector<float> panel(static_cast<std::size_t>(step * out.cols));
  for (Index row = 0; row < out.rows; row += step) {
    const Index rows = std::min(step, out.rows - row);
    decode(row * out.cols, rows * out.cols, panel.data());
    storePanel(panel.data(), row, rows, out);
  }
}

}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_SRC_ROW_MAJOR_H
