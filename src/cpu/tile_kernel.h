// SPDX-License-Identifier: MPL-2.0
// The innermost loop: a tile of rows of X times a decoded panel of W, sums in registers.
#ifndef EIGENQ_CPU_TILE_KERNEL_H
#define EIGENQ_CPU_TILE_KERNEL_H

#include "simd.h"

#include <eigen_q/src/Views.h>

namespace EigenQ {
namespace internal {
namespace {

/** R rows of X, in place or packed: row r at depth k is data[r·rowStride + k·depthStride]. */
struct RowTile {
  const float* data;
  Index rowStride;
  Index depthStride;
};

template <typename Isa>
struct TileKernel {
  using Vec = typename Isa::Vec;
  static constexpr int kLanes = Isa::kLanes;
  static constexpr int kPanel = 2 * kLanes;  // outputs of a panel

  /** acc[R][kPanel] (+)= x[R][depth]·panel[depth][kPanel]. A packed tile has R rows side by side: its strides are
   * constants. */
  template <int R, bool kPacked>
  static void multiply(Index depth, const RowTile& x, const float* panel, bool first, float* acc) {
    Vec sum[R][2];
    for (int r = 0; r < R; ++r) {
      for (int v = 0; v < 2; ++v) sum[r][v] = first ? Isa::zero() : Isa::load(acc + r * kPanel + v * kLanes);
    }
    const float* data = x.data;
    const Index rowStride = kPacked ? 1 : x.rowStride, depthStride = kPacked ? R : x.depthStride;
    for (Index k = 0; k < depth; ++k, data += depthStride, panel += kPanel) {
      const Vec w0 = Isa::load(panel), w1 = Isa::load(panel + kLanes);
      for (int r = 0; r < R; ++r) {
        const Vec xr = Isa::broadcast(data[r * rowStride]);
        sum[r][0] = Isa::multiplyAdd(xr, w0, sum[r][0]);
        sum[r][1] = Isa::multiplyAdd(xr, w1, sum[r][1]);
      }
    }
    for (int r = 0; r < R; ++r) {
      for (int v = 0; v < 2; ++v) Isa::store(acc + r * kPanel + v * kLanes, sum[r][v]);
    }
  }

  using Function = void (*)(Index, const RowTile&, const float*, bool, float*);

  /** multiply<rows>, rows in [1, Isa::kTileRows]. */
  template <int R = Isa::kTileRows>
  static Function function(Index rows, bool packed) {
    if constexpr (R > 1) {
      if (rows < R) return function<R - 1>(rows, packed);
    }
    return packed ? &multiply<R, true> : &multiply<R, false>;
  }
};

}  // namespace
}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_TILE_KERNEL_H
