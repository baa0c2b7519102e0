// SPDX-License-Identifier: MPL-2.0
// Any dense view as panels of whole rows that lie row-major: the view itself where its rows are contiguous, else copies
// in scratch memory, small enough to be read back from L2.
#ifndef EIGENQ_CUDA_ROW_PANELS_H
#define EIGENQ_CUDA_ROW_PANELS_H

#include <algorithm>

#include "context_state.h"
#include "dense_view.h"

namespace EigenQ {
namespace gpu {
namespace internal {

/** Whether the elements of each row lie side by side. */
inline bool hasContiguousRows(const ConstDenseView& a) { return a.cols <= 1 || a.colStride == 1; }

/** Whether the whole view is one run. */
template <typename Void>
bool isRowMajorRun(const EigenQ::internal::BasicDenseView<Void>& a) {
  return (a.cols == 1 || a.colStride == 1) && (a.rows == 1 || a.rowStride == a.cols);
}

/** Lays out \a a row-major without gaps at \a to, which has room for it. Throws std::invalid_argument for double. */
void copyRowMajor(const ConstDenseView& a, void* to, Context& context);

constexpr Index kPanelBytes = Index{16} << 20;  // with its codes well inside 50 MB (H200) or 40 MB (A100) of L2

/** Calls \a f(panel, first row) for panels of a that lie row-major without gaps; all but the last have a multiple of
 * \a rowUnit rows. */
template <typename F>
void forEachCopiedPanel(const ConstDenseView& a, Index rowUnit, Context& context, F&& f) {
  const auto size = static_cast<Index>(sizeOf(a.scalar));
  const Index units = std::max<Index>(1, kPanelBytes / (rowUnit * a.cols * size));
  const Index step = std::min(a.rows, units * rowUnit);
  Scratch scratch(context);
  void* const copy = scratch.bytes(static_cast<std::size_t>(step * a.cols * size));
  for (Index row = 0; row < a.rows; row += step) {
    ConstDenseView part = a;
    part.rows = std::min(step, a.rows - row);
    part.data = static_cast<const char*>(a.data) + row * a.rowStride * size;
    copyRowMajor(part, copy, context);
    f(ConstDenseView{copy, a.scalar, part.rows, a.cols, a.cols, 1}, row);
  }
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_ROW_PANELS_H
