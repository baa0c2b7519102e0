// SPDX-License-Identifier: MPL-2.0
// The activations A of an int8 product as its tiles read them. Internal linkage; see simd.h for the reason.
//
//   A, m×k, prepared once   task of up to 128 rows │: piece of k │: block of up to 6 rows │: step: row 0 … row 5 │ …
#ifndef EIGENQ_CPU_INT8_LAYOUT_H
#define EIGENQ_CPU_INT8_LAYOUT_H

#include "int8_simd.h"
#include "prefetch.h"
#include "tasks.h"

#include <eigen_q/src/Int8Product.h>

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

template <typename Isa>
struct Int8Layout {
  using Code = typename Isa::Code;
  using Vec = typename Isa::Vec;
  using Sums = typename Isa::Sums;
  static constexpr int kStep = Isa::kStep, kBlockRows = Isa::kBlockRows;
  static constexpr bool kPairs = Isa::kCorrection == Int8Correction::kPairs;
  static constexpr Index kTaskRows = 128, kTaskCols = 64;
  static constexpr Index kStreamDepth = 8192;  // of one block, whose codes no other block drives from L1
  // A panel costs a copy: 32 rows of 4096×4096 take 2.1 ms from stored codes and 2.3 from a panel with VNNI, 6.5
  // and 7.1 with AVX2; 64 rows take 3.8 and 3.6, 12.8 and 13.0.
  static constexpr Index kPanelRows = 33;
  static constexpr int kFewestPanelRows = kBlockRows / 2 + 1;  // in a block of a task that has kPanelRows

  /** A as kernels read it. */
  struct Operand {
    Code* codes;  // of a task's rows: pieces of depthOf(rows), blocks, steps, rows of the block, kStep codes
    std::int32_t* correction;  // m; added to each sum of a row
    Index depth;               // k, rounded up to whole steps of zeros
  };

  /** Codes of a row between two visits to a sum. */
  static Index depthOf(Index taskRows) { return taskRows <= Isa::kStreamRows ? kStreamDepth : Index(Isa::kDepth); }
  static EvenParts blocksOf(Index taskRows) {
    return EvenParts::ofAtMost(taskRows, usesPanel(taskRows) ? kBlockRows : Isa::kStreamRows);
  }
  static Index padded(Index depth) { return ceilDiv(depth, kStep) * kStep; }

  /** The \a count < kStep codes at \a codes, and zeros. */
  static Vec loadTail(const std::int8_t* codes, Index count) {
    std::int8_t padded[kStep] = {};
    std::memcpy(padded, codes, static_cast<std::size_t>(count));
    return Isa::loadB(padded);
  }

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
    const EvenParts blocks = blocksOf(rows);
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
};

}  // namespace
}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_INT8_LAYOUT_H
