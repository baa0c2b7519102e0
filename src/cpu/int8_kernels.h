// SPDX-License-Identifier: MPL-2.0
// C (m×n) = A (m×k)·Bᵀ (n×k) of int8 codes, exact in int32, for one instruction set.
//
//   A, prepared once   │ block of up to 6 rows │: step 0: row 0 … row 5 │ step 1: row 0 … row 5 │ …
//   B, as stored       row j: k codes          ─┬─▶ R×C sums in registers, folded to one integer each after kDepth
//   codes or widened         │ C rows, by steps │    ─╯
//
//   task: up to 128 rows × 64 columns of C
//     ╰ panel of 8 columns, kDepth codes deep, in L1 with one block of A; the other blocks come past from L2
//         ╰ tile of R×C
//
// Traffic  B once from memory for every 128 rows of A, one byte a code; A once from L2 for every 8 columns.
// Work     m·n·k multiplications: 32 a clock and core where pmaddwd and paddd fill four vector ports, 128 with vpdpbusd
//          in 512 bits.
// Shape    Both operands run along k, so B needs no transposition: a product of one row reads it as it lies. From
//          kPanelRows rows on, where B would be widened for every block again, it is widened once, into the panel.
//          Blocks have equally many rows but for one: 8 rows are 4 + 4, not 6 + 2.
//
// Integer sums have no order to keep, so results are the same on every thread count and instruction set. Everything
// here has internal linkage; see simd.h for the reason.
#ifndef EIGENQ_CPU_INT8_KERNELS_H
#define EIGENQ_CPU_INT8_KERNELS_H

#include "int8_simd.h"
#include "tasks.h"

#include <eigen_q/src/Int8Product.h>

#include <type_traits>
#include <utility>

namespace EigenQ {
namespace internal {
namespace {

/** \a size items in \a count parts that differ by one at most. */
struct EvenParts {
  Index size, count;

  static EvenParts ofAtMost(Index size, Index most) { return {size, ceilDiv(size, most)}; }
  Index begin(Index part) const { return size * part / count; }
  Index sizeOf(Index part) const { return begin(part + 1) - begin(part); }
};

/** a + b modulo 2³²: sums with an offset may leave 32 bits on the way, and are back when it is taken away. */
inline std::int32_t wrapped(std::int32_t a, std::int32_t b) {
  return static_cast<std::int32_t>(static_cast<std::uint32_t>(a) + static_cast<std::uint32_t>(b));
}

constexpr Index kCacheLine = 64;

EIGENQ_STRONG_INLINE void prefetch(const std::int8_t* at) {
#if defined(__GNUC__)
  __builtin_prefetch(at);
#else
  (void)at;
#endif
}

template <typename Isa>
struct Int8Kernels {
  using Code = typename Isa::Code;
  using Vec = typename Isa::Vec;
  using Sums = typename Isa::Sums;
  static constexpr int kStep = Isa::kStep, kBlockRows = Isa::kBlockRows;
  static constexpr bool kPairs = Isa::kCorrection == Int8Correction::kPairs;
  static constexpr Index kTaskRows = 128, kTaskCols = 64;
  static constexpr Index kStreamDepth = 8192;  // of one block, whose codes no other block drives from L1
  static constexpr Index kPanelRows = 2 * kBlockRows - 1;
  static constexpr int kFewestPanelRows = kBlockRows / 2 + 1;  // in a block of a task that has kPanelRows

  /** A as kernels read it. */
  struct Operand {
    Code* codes;  // of a task's rows: pieces of depthOf(rows), blocks, steps, rows of the block, kStep codes
    std::int32_t* correction;  // m; added to each sum of a row
    Index depth;               // k, rounded up to whole steps of zeros
  };

  /** Codes of a row between two visits to a sum. */
  static Index depthOf(Index taskRows) { return taskRows <= kBlockRows ? kStreamDepth : Index(Isa::kDepth); }
  static Index padded(Index depth) { return ceilDiv(depth, kStep) * kStep; }

  /** The \a count < kStep codes at \a codes, and zeros. */
  static Vec loadTail(const std::int8_t* codes, Index count) {
    std::int8_t padded[kStep] = {};
    std::memcpy(padded, codes, static_cast<std::size_t>(count));
    return Isa::loadB(padded);
  }

  /** B as it is stored: \a depth codes of each row. */
  template <int C>
  struct StoredB {
    const std::int8_t* codes;
    Index stride;
    Index depth;
    Index ahead;  // to what comes next from memory; 0 while it is there already

    Index wholeSteps() const { return depth / kStep; }
    EIGENQ_STRONG_INLINE Vec load(Index s, Index step) const {
      const std::int8_t* const from = codes + s * stride + step * kStep;
      prefetch(from + ahead);
      return Isa::loadB(from);
    }
    Index tail() const { return depth % kStep; }
    Vec loadTail(Index s) const { return Int8Kernels::loadTail(codes + s * stride + wholeSteps() * kStep, tail()); }
    static EIGENQ_STRONG_INLINE Sums multiplyAdd(const Vec& row, const Vec& column, Sums sum) {
      return Isa::multiplyAdd(row, column, sum);
    }
  };

  /** B copied, step by step. */
  template <int C>
  struct PanelB {
    const Code* codes;
    Index steps;

    Index wholeSteps() const { return steps; }
    EIGENQ_STRONG_INLINE Vec load(Index s, Index step) const { return Isa::loadA(codes + (step * C + s) * kStep); }
    Index tail() const { return 0; }
    Vec loadTail(Index) const { return Vec(); }
    static EIGENQ_STRONG_INLINE Sums multiplyAdd(const Vec& row, const Vec& column, Sums sum) {
      if constexpr (kPairs) {
        return Isa::multiplyAddPairs(row, column, sum);
      } else {
        return Isa::multiplyAdd(row, column, sum);
      }
    }
  };

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

  /** Calls \a f(rows) with the constant that equals \a rows, in [kFewest, kBlockRows]. */
  template <int kFewest, typename F>
  static void dispatchRows(Index rows, const F& f) {
    if constexpr (kFewest < kBlockRows) {
      if (rows != kFewest) return dispatchRows<kFewest + 1>(rows, f);
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

  struct StoredPanel {
    const std::int8_t* codes;
    Index stride, depth;
    bool last = false;  // visit to these columns

    /** Few rows take more columns: a tile of few sums would wait for each. */
    static constexpr int tileCols(int rows) { return rows <= 2 ? 4 * Isa::kTileCols / rows / 2 : Isa::kTileCols; }
    template <int C>
    StoredB<C> tile(Index col) const {
      return {codes + col * stride, stride, depth, last ? C * stride : 0};
    }
  };

  struct CopiedPanel {
    const Code* codes;
    Index steps;

    static constexpr int tileCols(int) { return Isa::kTileCols; }
    template <int C>
    PanelB<C> tile(Index col) const {
      return {codes + col * steps * kStep, steps};
    }
  };

  /** The codes of the next panel, fetched a few at a time between blocks: else the copy would wait for each line. */
  struct Prefetch {
    const std::int8_t* codes;
    Index stride, depth;
    Index share;  // codes for each row of A
    Index at = 0;

    void advance(Index rows) {
      const Index end = least(at + rows * share + kCacheLine - 1, depth * Isa::kPanelCols);
      for (; at < end; at += kCacheLine) prefetch(codes + at / depth * stride + at % depth);
    }
  };

  struct Accumulator {
    std::int32_t* sums;                        // rows×kTaskCols
    std::int32_t columnCorrection[kTaskCols];  // added to each sum of a column
  };

  struct Task {
    const Int8Product& p;
    const Operand& a;
    Index row, rows;  // of A
    Index col, cols;  // of B

    /** Calls \a f(rows, first row, codes of A) for each block, rows a constant. */
    template <int kFewest, typename F>
    void forEachBlock(Index k, Index depth, const F& f) const {
      const EvenParts blocks = EvenParts::ofAtMost(rows, kBlockRows);
      const Code* const codes = a.codes + row * a.depth + k * rows;
      for (Index i = 0; i < blocks.count; ++i) {
        const Index begin = blocks.begin(i);
        dispatchRows<kFewest>(blocks.sizeOf(i),
                              [&](auto blockRows) { f(blockRows, begin, codes + begin * padded(depth)); });
      }
    }

    /** \a depth codes of \a count columns from \a first on. */
    void multiplyColumns(Index k, Index depth, Index first, Index count, Accumulator& to) const {
      const std::int8_t* const stored = p.b + (col + first) * p.bStride + k;
      std::int32_t* const sums = to.sums + first;
      if (usesPanel(rows)) {
        const CopiedPanel panel{copyPanel(stored, p.bStride, count, depth, to.columnCorrection + first),
                                ceilDiv(depth, kStep)};
        Prefetch next{stored + Isa::kPanelCols * p.bStride, p.bStride, depth, Isa::kPanelCols * depth / rows};
        forEachBlock<kFewestPanelRows>(k, depth, [&](auto blockRows, Index begin, const Code* codes) {
          constexpr int R = decltype(blockRows)::value;
          next.advance(R);
          multiplyBlock<R>(codes, count, panel, k == 0, sums + begin * kTaskCols);
        });
      } else {
        forEachBlock<1>(k, depth, [&](auto blockRows, Index begin, const Code* codes) {
          constexpr int R = decltype(blockRows)::value;
          const StoredPanel panel{stored, p.bStride, depth, begin + R == rows};
          multiplyBlock<R>(codes, count, panel, k == 0, sums + begin * kTaskCols);
        });
      }
    }

    void correct(const Accumulator& to) const {
      for (Index i = 0; i < rows; ++i) {
        const std::int32_t rowCorrection = a.correction[row + i];
        std::int32_t* const sums = to.sums + i * kTaskCols;
        for (Index j = 0; j < cols; ++j) {
          const std::int32_t more = kPairs ? wrapped(rowCorrection, to.columnCorrection[j]) : rowCorrection;
          sums[j] = wrapped(sums[j], more);
        }
      }
    }

    void run(const Int8Sink& sink) const {
      float* memory = scratch(Scratch::kTile, 2 * rows * kTaskCols);
      Accumulator to{reinterpret_cast<std::int32_t*>(memory), {}};
      const Index most = depthOf(rows);
      Index k = 0;
      do {  // once for k = 0 too: sums of nothing are zeros
        const Index depth = least(most, p.k - k);
        for (Index first = 0; first < cols; first += Isa::kPanelCols) {
          multiplyColumns(k, depth, first, least(Isa::kPanelCols, cols - first), to);
        }
        k += depth;
      } while (k < p.k);
      if (corrects(rows)) correct(to);
      sink.take(sink.context, {row, col, rows, cols, to.sums, kTaskCols, memory + rows * kTaskCols});
    }
  };

  static bool usesPanel(Index taskRows) { return taskRows >= kPanelRows; }
  static bool corrects(Index taskRows) {
    return Isa::kCorrection == Int8Correction::kOffset || (kPairs && usesPanel(taskRows));
  }

  /** -Σ first·second of \a vectors vectors, \a distance codes apart. */
  static std::int32_t pairCorrection(const Code* codes, Index vectors, Index distance) {
    if constexpr (kPairs) {
      Sums sum = Isa::zero();
      for (Index i = 0; i < vectors; ++i) sum = Isa::addPairs(Isa::loadA(codes + i * distance), sum);
      std::int32_t lanes[4];
      Isa::sumFour(sum, Isa::zero(), Isa::zero(), Isa::zero(), lanes);
      return -lanes[0];
    }
    return 0;
  }

  /** \a depth codes of \a cols rows of B as CopiedPanel reads them. Adds to the columns' corrections. */
  static const Code* copyPanel(const std::int8_t* b, Index stride, Index cols, Index depth, std::int32_t* correction) {
    constexpr Index kMost = Isa::kPanelCols * (Isa::kDepth + kStep);
    Code* const panel = reinterpret_cast<Code*>(scratch(Scratch::kPanel, kMost * Index(sizeof(Code)) / 4));
    const Index steps = ceilDiv(depth, kStep);
    constexpr Index C = Isa::kTileCols;
    for (Index col = 0; col < cols; ++col) {
      // Tiles of C columns take turns within a step; those left over follow one after another.
      const bool inTile = col / C * C + C <= cols;
      const Index inner = inTile ? C : 1, place = inTile ? col % C : 0;
      Code* const to = panel + (col - place) * steps * kStep + place * kStep;
      const std::int8_t* from = b + col * stride;
      for (Index i = 0; i < depth / kStep; ++i) Isa::store(to + i * inner * kStep, Isa::loadB(from + i * kStep));
      const Index tail = depth % kStep;
      if (tail > 0) Isa::store(to + (steps - 1) * inner * kStep, loadTail(from + depth - tail, tail));
      if constexpr (kPairs) correction[col] += pairCorrection(to, steps, inner * kStep);
    }
    return panel;
  }

  /** Lays row \a r of a block of \a rows out, from \a to on. Returns the sum of its codes. */
  static std::int32_t prepareRow(const std::int8_t* from, Index count, Index rows, Code* to) {
    std::int32_t sum = 0;
    for (Index k = 0; k < count; k += kStep, to += rows * kStep) {
      const Index size = least(kStep, count - k);
      for (Index i = 0; i < size; ++i) {
        to[i] = from[k + i];
        sum += from[k + i];
      }
      for (Index i = size; i < kStep; ++i) to[i] = 0;
    }
    return sum;
  }

  /** Lays the codes of a task's rows out. */
  static void prepareTask(const Int8Product& p, Index row, Index rows, const Operand& a) {
    const EvenParts blocks = EvenParts::ofAtMost(rows, kBlockRows);
    for (Index k = 0; k < p.k; k += depthOf(rows)) {
      const Index depth = least(depthOf(rows), p.k - k);
      for (Index i = 0; i < blocks.count; ++i) {
        const Index begin = blocks.begin(i), size = blocks.sizeOf(i);
        for (Index r = 0; r < size; ++r) {
          Code* to = a.codes + row * a.depth + k * rows + begin * padded(depth) + r * kStep;
          const Index at = row + begin + r;
          const std::int32_t sum = prepareRow(p.a + at * p.aStride + k, depth, size, to);
          a.correction[at] += kPairs ? pairCorrection(to, padded(depth) / kStep, size * kStep) : -128 * sum;
        }
      }
    }
  }

  static Operand prepare(const Int8Product& p) {
    Operand a;
    a.depth = padded(p.k);
    const Index codes = ceilDiv(p.m * a.depth * Index(sizeof(Code)), kCacheLine) * kCacheLine / 4;  // floats
    float* memory = scratch(Scratch::kActivations, codes + p.m);
    a.codes = reinterpret_cast<Code*>(memory);
    a.correction = reinterpret_cast<std::int32_t*>(memory + codes);
    for (Index i = 0; i < p.m; ++i) a.correction[i] = 0;
    const EvenParts tasks = EvenParts::ofAtMost(p.m, kTaskRows);
    for (Index t = 0; t < tasks.count; ++t) prepareTask(p, tasks.begin(t), tasks.sizeOf(t), a);
    return a;
  }

  static void run(const Int8Product& p, const Int8Sink& sink) {
    const Operand a = prepare(p);
    const EvenParts rows = EvenParts::ofAtMost(p.m, kTaskRows);
    const Index cols = ceilDiv(p.n, kTaskCols);
    forEachTask(rows.count * cols, p.m * p.n * p.k / 2, [&](Index task) {
      const Index part = task / cols, col = task % cols * kTaskCols;
      Task{p, a, rows.begin(part), rows.sizeOf(part), col, least(kTaskCols, p.n - col)}.run(sink);
    });
  }

  /** values(i, j) = sums(i, j)·rowScale(i)·colAbsmax(j) + outliers(i, j), in double and rounded once. */
  static void scale(const Int8Tile& t, const double* rowScale, const float* colAbsmax, const float* outliers) {
    for (Index i = 0; i < t.rows; ++i) {
      const std::int32_t* const sums = t.sums + i * t.ld;
      float* const values = t.values + i * t.ld;
      const double scale = rowScale[i];
      if (outliers) {
        const float* const more = outliers + i * t.ld;
        for (Index j = 0; j < t.cols; ++j) {
          values[j] =
              static_cast<float>(sums[j] * (scale * static_cast<double>(colAbsmax[j])) + static_cast<double>(more[j]));
        }
      } else {
        for (Index j = 0; j < t.cols; ++j) {
          values[j] = static_cast<float>(sums[j] * (scale * static_cast<double>(colAbsmax[j])));
        }
      }
    }
  }
};

}  // namespace
}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_INT8_KERNELS_H
