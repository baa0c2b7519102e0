// SPDX-License-Identifier: MPL-2.0
// row_panels.cu: B[i·cols + j] = A(i, j) for any strides of A.
//
//   A, down its columns ─→ tile 32×32 in shared memory ─→ B, along its rows
//
// Traffic  each element read and written once, in runs of 32: 64 B of 16-bit values, 128 B of floats.
// Needs    nothing: strides of any size and sign.
#include <cstdint>
#include <type_traits>

#include "op_launch.cuh"
#include "row_panels.h"
#include "scalar.cuh"
#include "tile_walk.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

template <typename Word>
__global__ void __launch_bounds__(kTileThreads)
    copyTiles(const Word* a, Index rows, Index cols, Index rowStride, Index colStride, bool down, Word* to) {
  walkTiles<Word>(
      rows, cols, down, [=](Index i, Index j) { return a[i * rowStride + j * colStride]; }, false,
      [=](Index i, Index j, Word v) { to[i * cols + j] = v; });
}

template <typename Word>
void copyWords(const ConstDenseView& a, void* to, Context& context) {
  launch("copyTiles", copyTiles<Word>, {tileGrid(a.rows, a.cols), kTileThreads}, context,
         static_cast<const Word*>(a.data), a.rows, a.cols, a.rowStride, a.colStride,
         liesAlongColumns(a.rowStride, a.colStride), static_cast<Word*>(to));
}

}  // namespace

void copyRowMajor(const ConstDenseView& a, void* to, Context& context) {
  if (a.rows == 0 || a.cols == 0) return;
  dispatchDeviceScalar(a.scalar, [&](auto tag) {
    using Word = std::conditional_t<sizeof(typename decltype(tag)::type) == 2, std::uint16_t, std::uint32_t>;
    copyWords<Word>(a, to, context);
  });
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
