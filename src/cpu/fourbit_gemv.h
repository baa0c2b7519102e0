// SPDX-License-Identifier: MPL-2.0
// What the kernels for few rows of X and 4-bit weights share: a row of W is decoded in registers, kStep codes at a
// time, and multiplied there by every row of X. Internal linkage; see simd.h for the reason.
//
//   row of W   │ step 0: kStep codes │ step 1 │ … │ the rest, zeros behind it │     kStep/2 bytes each
//   scales     │ one for each kGroup codes, gathered where absmax does not lie that way
//   X          once, in the order in which a step's codes leave their bytes, with zeros behind it
#ifndef EIGENQ_CPU_FOURBIT_GEMV_H
#define EIGENQ_CPU_FOURBIT_GEMV_H

#include "absmax_run.h"
#include "operands.h"
#include "prefetch.h"

#include <cstring>

namespace EigenQ {
namespace internal {
namespace {

constexpr Index roundUp(Index a, Index b) { return ceilDiv(a, b) * b; }

/** The rows of W, whose blocks hold whole groups of kGroup codes and which begin at multiples of one. */
template <Index kGroup>
struct FourBitRows {
  const WeightView& w;

  Index flat(Index row) const { return w.offset + row * w.stride; }
  const std::uint8_t* bytes(Index row) const { return static_cast<const std::uint8_t*>(w.codes) + flat(row) / 2; }

  /** The absmax of each group of a row: where they lie, or else \a buffer. */
  const float* scales(Index row, float* buffer) const {
    const Index begin = flat(row), groups = ceilDiv(w.cols, kGroup), first = begin >> w.blockShift;
    const bool blockEach = (Index(1) << w.blockShift) == kGroup;
    if (w.absmax.plain && blockEach) return w.absmax.plain + first;
    if (groups == 0) return buffer;
    const float* decoded = nullptr;
    if (w.absmax.plain) {
      decoded = w.absmax.plain + first;
    } else {
      const Index blocks = ((begin + (groups - 1) * kGroup) >> w.blockShift) + 1 - first;
      float* const tail = buffer + groups - blocks;  // no group is written before its block's value is read
      decodeAbsmax(w.absmax, first, blocks, tail);
      decoded = tail;
    }
    if (!blockEach) {
      for (Index g = 0; g < groups; ++g) buffer[g] = decoded[((begin + g * kGroup) >> w.blockShift) - first];
    }
    return buffer;
  }

  /** Asks for the plain absmax of rows to come: they are a stream of their own, beside that of the codes. */
  EIGENQ_STRONG_INLINE void prefetchScales(Index row) const {
    if (!w.absmax.plain) return;
    const float* const absmax = w.absmax.plain + (flat(row) >> w.blockShift) + kStreamAhead / 2 / Index(sizeof(float));
    constexpr Index kLine = kCacheLine / Index(sizeof(float));
    for (Index i = 0; i << w.blockShift < w.cols; i += kLine) prefetch(absmax + i);
  }
};

/** The last codes of a row, fewer than kStep, with zeros behind them: no byte behind the row's is read. */
template <Index kStep>
struct LastStep {
  alignas(64) std::uint8_t bytes[kStep / 2] = {};
  LastStep(const std::uint8_t* codes, Index count) {
    std::memcpy(bytes, codes, static_cast<std::size_t>((count + 1) / 2));
  }
};

/** Row \a row of x as contiguous floats: where it lies, or else \a buffer. */
inline const float* contiguousRow(const ConstDenseView& x, Index row, float* buffer) {
  if (x.scalar == ScalarType::kFloat && x.colStride == 1) return static_cast<const float*>(x.data) + row * x.rowStride;
  packTile(x, row, 1, 0, x.cols, buffer);
  return buffer;
}

constexpr Index kGemvOutputs = 16;  // of a task

/** Y's columns in tasks: task(output, outputs, acc) writes acc[r·kGemvOutputs + j], r < y.rows, j < outputs. */
template <Index kMaxRows, typename Task>
void forOutputs(const QuantizedProduct& p, const Task& task) {
  const Index m = p.y.rows, n = p.y.cols;
  forEachTask(ceilDiv(n, kGemvOutputs), m * n * p.x.cols, [&](Index i) {
    const Index output = i * kGemvOutputs, outputs = least(kGemvOutputs, n - output);
    float acc[kMaxRows * kGemvOutputs];
    task(output, outputs, acc);
    storeTile(acc, kGemvOutputs, 0, output, m, outputs, p.y, p.epilogue);
  });
}

/** The same output by output: dot(output, acc, ld) writes acc[r·ld]. */
template <Index kMaxRows, typename Dot>
void forEachOutput(const QuantizedProduct& p, const Dot& dot) {
  forOutputs<kMaxRows>(p, [&](Index output, Index outputs, float* acc) {
    for (Index j = 0; j < outputs; ++j) dot(output + j, acc + j, kGemvOutputs);
  });
}

}  // namespace
}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_FOURBIT_GEMV_H
