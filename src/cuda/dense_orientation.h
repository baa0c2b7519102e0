// SPDX-License-Identifier: MPL-2.0
// How dense operands lie in memory, and the dense product of which Y is written by columns.
#ifndef EIGENQ_CUDA_DENSE_ORIENTATION_H
#define EIGENQ_CUDA_DENSE_ORIENTATION_H

#include <algorithm>

#include "dense_view.h"
#include "device_lowering.h"

namespace EigenQ {
namespace gpu {
namespace internal {

/** A dense operand as cuBLASLt sees it: column-major, as it is or transposed. */
struct Storage {
  bool transposed;
  Index ld;  // 0: neither rows nor columns are contiguous
};

/** Strides of dimensions of one element mean nothing; whichever view they allow is taken. */
inline Storage storageOf(Index rows, Index cols, Index rowStride, Index colStride) {
  if (rows == 0 || cols == 0) return {false, std::max<Index>(rows, 1)};
  const auto separates = [](Index stride, Index length) { return stride >= std::max<Index>(length, 1); };
  const bool plain = (rowStride == 1 || rows <= 1) && (cols <= 1 || separates(colStride, rows));
  const bool transposed = (colStride == 1 || cols <= 1) && (rows <= 1 || separates(rowStride, cols));
  // A row that is contiguous reads best as one column.
  if (transposed && (!plain || rows <= 1)) return {true, rows <= 1 ? std::max<Index>(cols, 1) : rowStride};
  if (plain) return {false, cols <= 1 ? std::max<Index>(rows, 1) : colStride};
  return {false, 0};
}

template <typename View>
Storage storageOf(const View& v) {
  return storageOf(v.rows, v.cols, v.rowStride, v.colStride);
}

inline DenseProduct transpose(const DenseProduct& p) {
  return {p.b.transpose(), p.a.transpose(), p.y.transpose(), p.epilogue.transpose()};
}

/** The product that writes \a p.y by columns: its own result where its rows are contiguous. */
inline DenseProduct orient(const DenseProduct& p) { return storageOf(p.y).transposed ? transpose(p) : p; }

/** What orient() achieves for Y where its strides allow it. */
template <typename View>
bool hasContiguousColumns(const View& v) {
  const Storage s = storageOf(v);
  return s.ld > 0 && (!s.transposed || v.rows <= 1);
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_DENSE_ORIENTATION_H
