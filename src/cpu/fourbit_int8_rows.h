// SPDX-License-Identifier: MPL-2.0
// Y (m×n) = X·Wᵀ of 4-bit weights with X in 8 bits for at most four rows of X, for one instruction set.
//
//   row of W   │ step: kBytes bytes: c0c1 c2c3 … │ step 1 │ …      one stream through W, row after row
//     earlier codes, later codes ── vpshufb each ──▶ 2 vectors of levels, in the order of the bytes
//     times X in the same order: sums of 8 codes in 32 bits, to float, times the scale of their group
//   X          step: codes of the earlier ones │ of the later ones │ corrections of the lanes in which they meet
//
// Arithmetic  That of fourbit_int8.h; a lane holds eight products, which meet in 16 bits in two fours without VNNI.
// Traffic     0.5 B of codes + 4/64 B of absmax a weight; X stays in the first-level cache (1.5 or 2 B a value).
// Work        64 weights in 256 bits: 1 shift, 2 ands, 2 look-ups, 5 to multiply (2 with VNNI), a conversion, a fused
//             multiplication: 12 instructions, of four a clock 21 weights, and 0.27 a weight with loads (with VNNI in
//             512 bits 0.14), where 16-bit fixed point (fourbit_gemv_avx2.cpp) takes 0.47. Two rows of W at once share
//             the loads of X, and take 5 % less time from L2 but 12 % more from L3: two streams.
#ifndef EIGENQ_CPU_FOURBIT_INT8_ROWS_H
#define EIGENQ_CPU_FOURBIT_INT8_ROWS_H

#include "fourbit_int8_tokens.h"

namespace EigenQ {
namespace internal {
namespace {

template <typename Isa>
struct FourBitInt8Rows {
  using Ints = typename Isa::Ints;
  using Floats = typename Isa::Floats;
  using Correction = typename Isa::Correction;
  static constexpr Index kMaxRows = 4, kBytes = sizeof(Ints), kStep = 2 * kBytes;

  /** One row of X. */
  struct Row {
    const std::uint8_t* steps;  // of 3·kBytes
    const float* scales;        // of a group each
  };

  // ---- X ----------------------------------------------------------------------------------------------------------

  /** Codes of a step to where its bytes meet them. */
  static void layOut(const std::int8_t* codes, std::uint8_t* to) {
    std::int8_t halves[2][kBytes];
    Correction corrections[kBytes / Index(sizeof(Correction))] = {};
    for (Index i = 0; i < kStep; ++i) {
      halves[i % 2][i / 2] = codes[i];
      Correction& c = corrections[i / 2 / Index(sizeof(Correction))];
      c = static_cast<Correction>(c - Isa::kOffset * codes[i]);
    }
    std::memcpy(to, halves, sizeof halves);
    std::memcpy(to + sizeof halves, corrections, sizeof corrections);
  }

  /** \param unit  of W's levels, which X's scales take along */
  template <Index kGroup>
  static void roundRow(const float* x, Index cols, float unit, std::uint8_t* steps, float* scales) {
    for (Index k = 0; k < cols; k += kStep, steps += 3 * kBytes) {
      std::int8_t codes[kStep];
      for (Index i = 0; i < kStep; i += kTokenGroup) {
        float values[kTokenGroup] = {};
        const Index count = least(kTokenGroup, cols - k - i);
        if (count > 0) std::memcpy(values, x + k + i, static_cast<std::size_t>(count) * sizeof(float));
        const float step = unit * roundTokenGroup(values, static_cast<float>(Isa::kSteps), codes + i);
        for (Index g = 0; g < kTokenGroup; g += kGroup) *scales++ = step;
      }
      layOut(codes, steps);
    }
  }

  // ---- products ---------------------------------------------------------------------------------------------------

  /** A row of W with M rows of X. */
  template <int M, Index kGroup>
  struct Dot {
    static constexpr Index kScales = kStep / kGroup;  // of a step
    const Row (&x)[M];
    Ints levels;
    const float* scales;  // (M, padded): of W times those of X
    Index padded;
    Floats sum[2][M];  // of even and of odd steps, each a chain of additions

    Dot(const Row (&rows)[M], Ints bytes, const float* products, Index ofRow)
        : x(rows), levels(bytes), scales(products), padded(ofRow) {
      for (auto& chain : sum) {
        for (Floats& s : chain) s = Isa::broadcastFloat(0);
      }
    }

    void add(const std::uint8_t* codes, Index step) {
      const Ints pairs = Isa::loadOnce(codes);
      const Ints earlier = Isa::shuffleBytes(levels, Isa::earlier(pairs));
      const Ints later = Isa::shuffleBytes(levels, Isa::later(pairs));
      for (int r = 0; r < M; ++r) {
        const std::uint8_t* const values = x[r].steps + step * 3 * kBytes;
        const Ints products = Isa::addProducts(earlier, Isa::load(values), later, Isa::load(values + kBytes),
                                               Isa::load(values + 2 * kBytes));
        const Floats scale = Isa::template spread<kScales>(scales + r * padded + step * kScales);
        sum[step % 2][r] = Isa::multiplyAdd(Isa::toFloats(products), scale, sum[step % 2][r]);
      }
    }
  };

  /** acc[r·ld] = Σ x(r, k)·w(row, k). \a scales has room for M rows of \a padded. */
  template <int M, Index kGroup>
  static void dotRow(const FourBitRows<kGroup>& rows, Index row, const Row (&x)[M], Ints levels, Index padded,
                     float* scales, float* acc, Index ld) {
    const Index cols = rows.w.cols, groups = ceilDiv(cols, kGroup), steps = cols / kStep;
    const float* const absmax = rows.scales(row, scales + M * padded);
    for (int r = 0; r < M; ++r) {
      const float* const ofX = x[r].scales;
      float* const to = scales + r * padded;
      Index g = 0;
      for (; g + Isa::kLanes <= groups; g += Isa::kLanes) {
        Isa::storeFloats(to + g, Isa::multiply(Isa::loadFloats(absmax + g), Isa::loadFloats(ofX + g)));
      }
      for (; g < padded; ++g) to[g] = g < groups ? absmax[g] * ofX[g] : 0;
    }
    rows.prefetchScales(row);
    const std::uint8_t* const codes = rows.bytes(row);
    Dot<M, kGroup> dot(x, levels, scales, padded);
    Index step = 0;
    for (; step + 2 <= steps; step += 2) {
      prefetch(codes + step * kBytes + kStreamAhead);
      if constexpr (2 * kBytes > kCacheLine) prefetch(codes + step * kBytes + kStreamAhead + kCacheLine);
      dot.add(codes + step * kBytes, step);
      dot.add(codes + (step + 1) * kBytes, step + 1);
    }
    if (step < steps) dot.add(codes + step * kBytes, step), ++step;
    if (step * kStep < cols) dot.add(LastStep<kStep>(codes + step * kBytes, cols - step * kStep).bytes, step);
    for (int r = 0; r < M; ++r) acc[r * ld] = Isa::sumOf(Isa::add(dot.sum[0][r], dot.sum[1][r]));
  }

  template <int M, Index kGroup>
  static void multiply(const QuantizedProduct& p, const RoundedLevels<Isa>& rounded) {
    const Index k = p.x.cols, steps = ceilDiv(k, kStep), padded = steps * (kStep / kGroup);
    const Index rowFloats = steps * 3 * kBytes / 4 + padded;
    float* const packed = scratch(Scratch::kActivations, M * rowFloats);
    float* const contiguous = scratch(Scratch::kTile, k);
    Row x[M];
    for (int r = 0; r < M; ++r) {
      auto* const codes = reinterpret_cast<std::uint8_t*>(packed + r * rowFloats);
      float* const scales = packed + r * rowFloats + steps * 3 * kBytes / 4;
      roundRow<kGroup>(contiguousRow(p.x, r, contiguous), k, rounded.unit, codes, scales);
      x[r] = {codes, scales};
    }
    const Ints levels = Isa::broadcast16(load16(rounded.bytes));
    const FourBitRows<kGroup> rows{p.w};
    forEachOutput<kMaxRows>(p, [&](Index output, float* acc, Index ld) {
      float* const scales = scratch(Scratch::kPanel, (M + 1) * padded);
      dotRow<M, kGroup>(rows, output, x, levels, padded, scales, acc, ld);
    });
  }

  template <int M = 1>
  static void run(const QuantizedProduct& p, const RoundedLevels<Isa>& rounded, Index group) {
    if constexpr (M < kMaxRows) {
      if (p.y.rows > M) return run<M + 1>(p, rounded, group);
    }
    group == 64 ? multiply<M, 64>(p, rounded) : multiply<M, 32>(p, rounded);
  }
};

}  // namespace
}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_FOURBIT_INT8_ROWS_H
