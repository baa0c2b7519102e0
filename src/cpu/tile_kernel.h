// SPDX-License-Identifier: MPL-2.0
// The innermost loop: a tile of rows of X times a decoded panel of W, sums in registers.
//
// A sum runs over k in three levels: chains of kChain products in registers, kChains of them in a block, and the
// blocks. One chain of k additions would lose about sqrt(k/2) half-ulps; this loses about sqrt(kChain/2 + kChains/2 +
// k/128), and costs an addition in memory for kChain fused ones. Where that cost does not matter, chains are added in
// double: then only the chains themselves round.
#ifndef EIGENQ_CPU_TILE_KERNEL_H
#define EIGENQ_CPU_TILE_KERNEL_H

#include "simd.h"

#include <eigen_q/src/Views.h>

#include <type_traits>

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
  static constexpr Index kChain = 8, kChains = 8;

  /** to[R][kPanel] (+)= from. */
  template <int R, typename Block>
  static void addTile(const Block* from, bool first, float* to) {
    for (int i = 0; i < R * kPanel; i += kLanes) {
      const Vec v = loadBlock(from + i);
      Isa::store(to + i, first ? v : Isa::add(Isa::load(to + i), v));
    }
  }

  /** How rows of X are read, and in what their chains are added. */
  enum class Variant { kPacked, kInPlace, kInPlaceDouble };

  static void addChain(Vec sum, bool first, float* to) { Isa::store(to, first ? sum : Isa::add(Isa::load(to), sum)); }
  static void addChain(Vec sum, bool first, double* to) { Isa::addWidened(sum, first, to); }
  static Vec loadBlock(const float* from) { return Isa::load(from); }
  static Vec loadBlock(const double* from) { return Isa::loadNarrowed(from); }

  /** block[R][kPanel] (+)= x[R][depth]·panel[depth][kPanel], one chain. */
  template <int R, typename Block>
  static void multiplyChain(Index depth, const float* data, Index rowStride, Index depthStride, const float* panel,
                            bool first, Block* block) {
    Vec sum[R][2];
    for (int r = 0; r < R; ++r) {
      for (int v = 0; v < 2; ++v) sum[r][v] = Isa::zero();
    }
    for (Index k = 0; k < depth; ++k, data += depthStride, panel += kPanel) {
      const Vec w0 = Isa::load(panel), w1 = Isa::load(panel + kLanes);
      for (int r = 0; r < R; ++r) {
        const Vec xr = Isa::broadcast(data[r * rowStride]);
        sum[r][0] = Isa::multiplyAdd(xr, w0, sum[r][0]);
        sum[r][1] = Isa::multiplyAdd(xr, w1, sum[r][1]);
      }
    }
    for (int r = 0; r < R; ++r) {
      for (int v = 0; v < 2; ++v) {
        addChain(sum[r][v], first, block + r * kPanel + v * kLanes);
      }
    }
  }

  /** acc[R][kPanel] (+)= x[R][depth]·panel[depth][kPanel]. A packed tile has R rows side by side: its strides are
   * constants. */
  template <int R, Variant kVariant>
  static void multiply(Index depth, const RowTile& x, const float* panel, bool first, float* acc) {
    constexpr bool kPacked = kVariant == Variant::kPacked, kDouble = kVariant == Variant::kInPlaceDouble;
    const Index rowStride = kPacked ? 1 : x.rowStride, depthStride = kPacked ? R : x.depthStride;
    const Index blockDepth = kDouble ? depth + 1 : kChain * kChains;
    std::conditional_t<kDouble, double, float> block[R * kPanel];
    for (Index begin = 0; begin < depth || first; begin += blockDepth, first = false) {  // depth 0 clears acc
      const Index end = depth - begin < blockDepth ? depth : begin + blockDepth;
      const auto chain = [&](Index k, bool opens) {
        multiplyChain<R>(end - k < kChain ? end - k : kChain, x.data + k * depthStride, rowStride, depthStride,
                         panel + k * kPanel, opens, block);
      };
      chain(begin, true);
      for (Index k = begin + kChain; k < end; k += kChain) chain(k, false);
      addTile<R>(block, first, acc);
    }
  }

  using Function = void (*)(Index, const RowTile&, const float*, bool, float*);

  /** multiply<rows>, rows in [1, Isa::kTileRows]. */
  template <int R = Isa::kTileRows>
  static Function function(Index rows, Variant variant) {
    if constexpr (R > 1) {
      if (rows < R) return function<R - 1>(rows, variant);
    }
    switch (variant) {
      case Variant::kPacked:
        return &multiply<R, Variant::kPacked>;
      case Variant::kInPlace:
        return &multiply<R, Variant::kInPlace>;
      case Variant::kInPlaceDouble:
        break;
    }
    return &multiply<R, Variant::kInPlaceDouble>;
  }
};

}  // namespace
}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_TILE_KERNEL_H
