// SPDX-License-Identifier: MPL-2.0
// C (m×n) = A (m×k)·Bᵀ (n×k) of int8 codes, exact in int32, for one instruction set.
//
//   A  │ row i … row i+R │  k codes each ─╮
//   B  │ row j … row j+C │  k codes each ─┴─▶ R×C sums in registers, folded to one integer each at the end
//
// Both operands are read along k as they are stored: nothing is packed. A task multiplies kTaskCols rows of B, which
// its cache keeps, with every row of A. Integer sums have no order to keep, so results are the same on every thread
// count and instruction set.
//
// Everything here has internal linkage; see simd.h for the reason.
#ifndef EIGENQ_CPU_INT8_KERNELS_H
#define EIGENQ_CPU_INT8_KERNELS_H

#include "int8_simd.h"
#include "tasks.h"

#include <eigen_q/src/Int8Product.h>

namespace EigenQ {
namespace internal {
namespace {

template <typename Isa>
struct Int8Kernels {
  using Words = typename Isa::Words;
  using Sums = typename Isa::Sums;
  static constexpr Index kTaskCols = 32;

  /** The \a count < kStep codes at \a codes, and zeros. */
  static Words loadTail(const std::int8_t* codes, Index count) {
    std::int8_t padded[Isa::kStep] = {};
    std::memcpy(padded, codes, static_cast<std::size_t>(count));
    return Isa::load(padded);
  }

  /** c(row + r, col + s) for r < R, s < C. */
  template <int R, int C>
  static void multiplyTile(const Int8Product& p, Index row, Index col) {
    const std::int8_t* a = p.a + row * p.aStride;
    const std::int8_t* b = p.b + col * p.bStride;
    Sums sum[R][C];
    for (int r = 0; r < R; ++r) {
      for (int s = 0; s < C; ++s) sum[r][s] = Isa::zero();
    }
    const auto step = [&](const auto& load) {
      Words bWords[C];
      for (int s = 0; s < C; ++s) bWords[s] = load(b + s * p.bStride);
      for (int r = 0; r < R; ++r) {
        const Words aWords = load(a + r * p.aStride);
        for (int s = 0; s < C; ++s) sum[r][s] = Isa::multiplyAdd(aWords, bWords[s], sum[r][s]);
      }
    };
    Index k = 0;
    for (; k + Isa::kStep <= p.k; k += Isa::kStep, a += Isa::kStep, b += Isa::kStep) {
      step([](const std::int8_t* codes) { return Isa::load(codes); });
    }
    if (k < p.k) step([&](const std::int8_t* codes) { return loadTail(codes, p.k - k); });
    for (int r = 0; r < R; ++r) {
      for (int s = 0; s < C; ++s) p.c[(row + r) * p.cRowStride + (col + s) * p.cColStride] = Isa::sum(sum[r][s]);
    }
  }

  /** Columns [col, endCol) of rows row to row + R. */
  template <int R>
  static void multiplyRows(const Int8Product& p, Index row, Index col, Index endCol) {
    for (; col + Isa::kCols <= endCol; col += Isa::kCols) multiplyTile<R, Isa::kCols>(p, row, col);
    for (; col < endCol; ++col) multiplyTile<R, 1>(p, row, col);
  }

  static void run(const Int8Product& p) {
    forEachTask(ceilDiv(p.n, kTaskCols), p.m * p.n * p.k / 2, [&](Index task) {
      const Index col = task * kTaskCols, endCol = least(p.n, col + kTaskCols);
      Index row = 0;
      for (; row + Isa::kRows <= p.m; row += Isa::kRows) multiplyRows<Isa::kRows>(p, row, col, endCol);
      for (; row < p.m; ++row) multiplyRows<1>(p, row, col, endCol);
    });
  }
};

}  // namespace
}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_INT8_KERNELS_H
