// SPDX-License-Identifier: MPL-2.0
// The innermost loop: a tile of rows of X times a decoded panel of W, sums in registers.
//
// A sum runs over k in chains of kChain products in registers, which are added in memory. One chain of k additions
// would lose about sqrt(k/2) half-ulps; this loses about sqrt(kChain/2 + k/kChain). Shorter chains lose less, but
// interrupt the multiplications: 128 rows of 4096×4096 take 23.3 ms with AVX-512 in chains of 8 (and blocks of
// 64), 22.7 of 16, 22.3 of 64, 21.8 of 128; with AVX2 46.1, 41.7, 41.2 and 40.3 (one thread). Where that does not
// matter, chains are short and added in double: then only the chains themselves round.
#ifndef EIGENQ_CPU_TILE_KERNEL_H
#define EIGENQ_CPU_TILE_KERNEL_H

#include "simd.h"

#include <eigen_q/src/Macros.h>
#include <eigen_q/src/Views.h>

#include <type_traits>
#include <utility>

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
  static constexpr Index kChain = 128, kDoubleChain = 8;

  /** How rows of X are read, and in what their chains are added. */
  enum class Variant { kPacked, kInPlace, kInPlaceDouble };

  static void addChain(Vec sum, bool first, float* to) { Isa::store(to, first ? sum : Isa::add(Isa::load(to), sum)); }
  static void addChain(Vec sum, bool first, double* to) { Isa::addWidened(sum, first, to); }

  /** The sums of R rows, each cut in kParts. Indices are constants for the front end already, by expansion of packs:
   * before and behind a loop, g++ 12 keeps an array that loops index in memory. */
  template <int R, int kParts>
  struct Sums {
    template <int kCount>
    using Upto = std::make_integer_sequence<int, kCount>;
    Vec low[kParts * R], high[kParts * R];

    EIGENQ_STRONG_INLINE Sums() { clear(Upto<kParts * R>()); }
    template <int... I>
    EIGENQ_STRONG_INLINE void clear(std::integer_sequence<int, I...>) {
      ((low[I] = high[I] = Isa::zero()), ...);
    }
    template <int I>
    EIGENQ_STRONG_INLINE void addRow(Vec x, Vec w0, Vec w1) {
      low[I] = Isa::multiplyAdd(x, w0, low[I]);
      high[I] = Isa::multiplyAdd(x, w1, high[I]);
    }
    /** One step of k, to one part. */
    template <int kPart, int... r>
    EIGENQ_STRONG_INLINE void addStep(const float* x, Index rowStride, const float* panel,
                                      std::integer_sequence<int, r...>) {
      const Vec w0 = Isa::load(panel), w1 = Isa::load(panel + kLanes);
      (addRow<kPart * R + r>(Isa::broadcast(x[r * rowStride]), w0, w1), ...);
    }
    /** kParts steps. */
    template <int... part>
    EIGENQ_STRONG_INLINE void addSteps(const float* x, Index rowStride, Index depthStride, const float* panel,
                                       std::integer_sequence<int, part...>) {
      (addStep<part>(x + part * depthStride, rowStride, panel + part * kPanel, Upto<R>()), ...);
    }
    template <int kPart, int... r>
    EIGENQ_STRONG_INLINE void addPart(std::integer_sequence<int, r...>) {
      ((low[r] = Isa::add(low[r], low[kPart * R + r]), high[r] = Isa::add(high[r], high[kPart * R + r])), ...);
    }
    /** Adds the other parts to the first. */
    template <int... part>
    EIGENQ_STRONG_INLINE void join(std::integer_sequence<int, 0, part...>) {
      (addPart<part>(Upto<R>()), ...);
    }
    template <typename Sum, int... r>
    EIGENQ_STRONG_INLINE void store(bool first, Sum* to, Index stride, std::integer_sequence<int, r...>) const {
      ((addChain(low[r], first, to + r * stride), addChain(high[r], first, to + r * stride + kLanes)), ...);
    }
  };

  /** to[R][kPanel] (+)= x[R][depth]·panel[depth][kPanel], one chain; rows of \a to are \a toStride apart. */
  template <int R, typename Sum>
  static void multiplyChain(Index depth, const float* data, Index rowStride, Index depthStride, const float* panel,
                            bool first, Sum* to, Index toStride) {
    // Few rows have few sums: then each is cut in several, lest every addition wait for the last.
    constexpr int kParts = R == 1 ? 4 : R <= 3 ? 2 : 1;
    constexpr std::make_integer_sequence<int, kParts> kEveryPart;
    constexpr std::make_integer_sequence<int, R> kEveryRow;
    Sums<R, kParts> sums;
    Index k = 0;
    for (; k + kParts <= depth; k += kParts, data += kParts * depthStride, panel += kParts * kPanel)
      sums.addSteps(data, rowStride, depthStride, panel, kEveryPart);
    for (; k < depth; ++k, data += depthStride, panel += kPanel)
      sums.template addStep<0>(data, rowStride, panel, kEveryRow);
    sums.join(kEveryPart);
    sums.store(first, to, toStride, kEveryRow);
  }

  /** to[R][kPanel] (+)= x[R][depth]·panel[depth][kPanel], in chains of \a chain. A packed tile has R rows side by side:
   * its strides are constants. */
  template <int R, bool kPacked, typename Sum>
  static void multiplyChains(Index depth, Index chain, const RowTile& x, const float* panel, bool first, Sum* to,
                             Index toStride = kPanel) {
    const Index rowStride = kPacked ? 1 : x.rowStride, depthStride = kPacked ? R : x.depthStride;
    for (Index k = 0; k == 0 || k < depth; k += chain, first = false) {  // depth 0 clears
      multiplyChain<R>(depth - k < chain ? depth - k : chain, x.data + k * depthStride, rowStride, depthStride,
                       panel + k * kPanel, first, to, toStride);
    }
  }

  /** acc[R][kPanel] (+)= x[R][depth]·panel[depth][kPanel]. */
  template <int R, Variant kVariant>
  static void multiply(Index depth, const RowTile& x, const float* panel, bool first, float* acc) {
    if constexpr (kVariant == Variant::kInPlaceDouble) {
      double sums[R * kPanel];
      multiplyChains<R, false>(depth, kDoubleChain, x, panel, true, sums);
      for (int i = 0; i < R * kPanel; i += kLanes) addChain(Isa::loadNarrowed(sums + i), first, acc + i);
    } else {
      multiplyChains<R, kVariant == Variant::kPacked>(depth, kChain, x, panel, first, acc);
    }
  }

  using Function = void (*)(Index, const RowTile&, const float*, bool, float*);
  using IntoFunction = void (*)(Index, const RowTile&, const float*, bool, float*, Index);

  /** y[R][kPanel] (+)= x[R][depth]·panel[depth][kPanel] with rows of y \a yStride apart. */
  template <int R>
  static void multiplyInto(Index depth, const RowTile& x, const float* panel, bool first, float* y, Index yStride) {
    multiplyChains<R, false>(depth, kChain, x, panel, first, y, yStride);
  }
  template <int R = Isa::kTileRows>
  static IntoFunction intoFunction(Index rows) {
    if constexpr (R > 1) {
      if (rows < R) return intoFunction<R - 1>(rows);
    }
    return &multiplyInto<R>;
  }

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
