// SPDX-License-Identifier: MPL-2.0
// The innermost loop of int8 products: R rows of A by C columns of B, sums in registers. Internal linkage; see simd.h
// for the reason.
#ifndef EIGENQ_CPU_INT8_TILE_H
#define EIGENQ_CPU_INT8_TILE_H

#include "int8_layout.h"

#include <type_traits>
#include <utility>

namespace EigenQ {
namespace internal {
namespace {

template <typename Isa>
struct Int8Tiles {
  using Code = typename Isa::Code;
  using Vec = typename Isa::Vec;
  using Sums = typename Isa::Sums;
  static constexpr int kStep = Isa::kStep;
  static constexpr Index kTaskCols = Int8Layout<Isa>::kTaskCols;

  /** The sums of a tile. Indices are constants for the front end already, by expansion of packs: g++ 12 keeps an array
   * that loops index, or that has its address taken, in memory. */
  template <int R, int C>
  struct Sums2d {
    static constexpr int kCount = (R * C + 3) / 4 * 4;
    Sums at[kCount];

    EIGENQ_STRONG_INLINE Sums2d() { clear(std::make_integer_sequence<int, kCount>()); }
    template <int... I>
    EIGENQ_STRONG_INLINE void clear(std::integer_sequence<int, I...>) {
      ((at[I] = Isa::zero()), ...);
    }
    /** Row \a r with all columns. */
    template <typename B, int r, int... S>
    EIGENQ_STRONG_INLINE void addRow(Vec row, const Vec (&columns)[C], std::integer_sequence<int, S...>) {
      Isa::keep(row);
      ((at[r * C + S] = B::multiplyAdd(row, columns[S], at[r * C + S]), Isa::keep(at[r * C + S])), ...);
    }
    template <typename B, int... r>
    EIGENQ_STRONG_INLINE void add(const Code* a, const Vec (&columns)[C], std::integer_sequence<int, r...>) {
      (addRow<B, r>(Isa::loadA(a + r * kStep), columns, std::make_integer_sequence<int, C>()), ...);
    }
    /** One step. */
    template <typename B>
    EIGENQ_STRONG_INLINE void add(const Code* a, const Vec (&columns)[C]) {
      add<B>(a, columns, std::make_integer_sequence<int, R>());
    }
    template <int... I>
    EIGENQ_STRONG_INLINE void fold(std::int32_t* to, std::integer_sequence<int, I...>) const {
      (Isa::sumFour(at[4 * I], at[4 * I + 1], at[4 * I + 2], at[4 * I + 3], to + 4 * I), ...);
    }
    EIGENQ_STRONG_INLINE void fold(std::int32_t* to) const { fold(to, std::make_integer_sequence<int, kCount / 4>()); }
  };

  template <int... S, typename Load>
  static EIGENQ_STRONG_INLINE void loadColumns(Vec* columns, std::integer_sequence<int, S...>, const Load& load) {
    ((columns[S] = load(S)), ...);
  }

  /** sums(r, s) (+)= the products of a block's R rows and C columns of \a b. */
  template <int R, int C, typename B>
  static void multiplyTile(const Code* a, const B b, bool first, std::int32_t* sums) {
    constexpr auto kColumns = std::make_integer_sequence<int, C>();
    Sums2d<R, C> sum;
    Vec columns[C];
    const Index steps = b.wholeSteps();
    for (Index step = 0; step < steps; ++step, a += R * kStep) {
      loadColumns(columns, kColumns, [&](Index s) { return b.load(s, step); });
      sum.template add<B>(a, columns);
    }
    if (b.tail() > 0) {
      loadColumns(columns, kColumns, [&](Index s) { return b.loadTail(s); });
      sum.template add<B>(a, columns);
    }
    std::int32_t folded[Sums2d<R, C>::kCount];
    sum.fold(folded);
    for (int r = 0; r < R; ++r) {
      for (int s = 0; s < C; ++s) {
        std::int32_t& to = sums[r * kTaskCols + s];
        to = first ? folded[r * C + s] : wrapped(to, folded[r * C + s]);
      }
    }
  }

  /** Calls \a f(rows) with the constant that equals \a rows, in [kFewest, kMost]. */
  template <int kFewest, int kMost, typename F>
  static void dispatchRows(Index rows, const F& f) {
    if constexpr (kFewest < kMost) {
      if (rows != kFewest) return dispatchRows<kFewest + 1, kMost>(rows, f);
    }
    f(std::integral_constant<int, kFewest>());
  }

  /** One block of rows with \a cols columns of \a b. */
  template <int R, typename B>
  static void multiplyBlock(const Code* a, Index cols, const B& b, bool first, std::int32_t* sums) {
    constexpr int C = B::tileCols(R);
    Index col = 0;
    for (; col + C <= cols; col += C) multiplyTile<R, C>(a, b.template tile<C>(col), first, sums + col);
    for (; col < cols; ++col) multiplyTile<R, 1>(a, b.template tile<1>(col), first, sums + col);
  }
};

}  // namespace
}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_INT8_TILE_H
