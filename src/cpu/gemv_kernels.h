// SPDX-License-Identifier: MPL-2.0
// Y (m×n) = X·Wᵀ for at most eight rows of X and weights of any alignment, in float: a row of W is decoded in registers
// and multiplied by every row of X there.
//
//   int8     sums of x·code, a step of 64 codes after the other; a row's scale is a factor of its sum
//   4 bits   sums of x·ŵ, ŵ as WeightView::coeff decodes it: blocks may begin and end anywhere
//
// Traffic  W once, from one end to the other; X stays in the first-level cache.
// Work     Eight int8 codes take a widening, a conversion and M fused multiplications with AVX2.
// Pieces   M rows of X are multiplied by kL1Floats/M columns of 16 rows of W, then by the next: all of X would not stay
//          in the first-level cache. Meanwhile the next piece of each row of W is asked for.
//          4096×4096 int8 weights, one thread of a Zen 5, ms before (two multiplications by the scale for each vector,
//          X as it lies, no pieces and no requests) and now: AVX2 1 row 0.94, 0.55; 4 rows 2.92, 1.57; 8 rows 4.05,
//          2.72; AVX-512 1 row 0.61, 0.45; 4 rows 2.48, 1.05; 8 rows 4.3, 1.7.
//
// The sum behind an output runs over k in one fixed order, whatever the number of threads. Internal linkage; see simd.h
// for the reason.
#ifndef EIGENQ_CPU_GEMV_KERNELS_H
#define EIGENQ_CPU_GEMV_KERNELS_H

#include "fourbit_gemv.h"
#include "row_reader.h"

#include <cmath>

namespace EigenQ {
namespace internal {
namespace {

/** The sums of a row of W with M rows of X, each in several chains, so that additions do not wait for each other. */
template <typename Isa, int M>
struct RowSums {
  using Vec = typename Isa::Vec;
  static constexpr int kChains = M <= 2 ? 4 : M <= 4 ? 2 : 1;
  Vec at[M][kChains];

  RowSums() {
    for (auto& row : at) {
      for (Vec& chain : row) chain = Isa::zero();
    }
  }
  EIGENQ_STRONG_INLINE void add(int chain, Vec weights, const float* x, Index xStride) {
    for (int r = 0; r < M; ++r) at[r][chain] = Isa::multiplyAdd(Isa::load(x + r * xStride), weights, at[r][chain]);
  }
  Vec operator[](int r) const {
    Vec sum = at[r][0];
    for (int c = 1; c < kChains; ++c) sum = Isa::add(sum, at[r][c]);
    return sum;
  }
};

/** X with contiguous rows. */
struct RowsOfX {
  const float* values;
  Index stride;
};

constexpr Index kL1Floats = 8192;  // of X, that stay in the first-level cache while the outputs of a task pass by

/** acc[r·kGemvOutputs + j] = Σ x(r, k)·w(output + j, k) for r < M, j < outputs. */
template <typename Isa, WeightFormat Format, int M>
struct GemvTask;

template <typename Isa, int M>
struct GemvTask<Isa, WeightFormat::kInt8, M> {
  using Vec = typename Isa::Vec;
  using Sums = RowSums<Isa, M>;
  static constexpr int kLanes = Isa::kLanes, kVectors = kCacheLine / kLanes;

  const WeightView& w;
  const RowsOfX& x;
  Index output;

  const std::int8_t* codes(Index row) const {
    return static_cast<const std::int8_t*>(w.codes) + w.offset + row * w.stride;
  }

  /** lanes (+)= the products of whole vectors of [from, to), while what \a next points to is asked for. */
  void add(Index row, Index from, Index to, const std::int8_t* next, float (&lanes)[M][kLanes]) const {
    const std::int8_t* const at = codes(row);
    Sums sums;
    Index k = from;
    for (; k + kCacheLine <= to; k += kCacheLine, next += kCacheLine) {
      prefetch(next);
      for (int v = 0; v < kVectors; ++v) {
        sums.add(v % Sums::kChains, Isa::fromInt8(at + k + v * kLanes), x.values + k + v * kLanes, x.stride);
      }
    }
    for (; k + kLanes <= to; k += kLanes) sums.add(0, Isa::fromInt8(at + k), x.values + k, x.stride);
    for (int r = 0; r < M; ++r) Isa::store(lanes[r], from == 0 ? sums[r] : Isa::add(Isa::load(lanes[r]), sums[r]));
  }

  /** The sum of a row of W as coeff() decodes it: with codes, up to 127 times as large, it may leave float on the way.
   */
  float decodedSum(Index row, int r) const {
    double sum = 0;
    for (Index k = 0; k < w.cols; ++k) {
      sum += static_cast<double>(x.values[r * x.stride + k]) * static_cast<double>(w.coeff(row, k));
    }
    return static_cast<float>(sum);
  }

  void run(Index outputs, float* acc) const {
    alignas(64) float lanes[kGemvOutputs][M][kLanes];
    const Index whole = w.cols / kLanes * kLanes, pieces = whole > 0 ? ceilDiv(whole * M, kL1Floats) : 1;
    const Index piece = ceilDiv(ceilDiv(whole, pieces), kCacheLine) * kCacheLine;
    Index from = 0;
    do {
      const Index to = least(from + piece, whole);
      for (Index j = 0; j < outputs; ++j) {
        const std::int8_t* const next = to < whole ? codes(output + j) + to : codes(output + j + kGemvOutputs);
        add(output + j, from, to, next, lanes[j]);
      }
      from = to;
    } while (from < whole);
    for (Index j = 0; j < outputs; ++j) {
      const Int8Factors scale(w.rowAbsmax[output + j]);
      for (int r = 0; r < M; ++r) {
        float sum = Isa::sum(Isa::load(lanes[j][r]));
        for (Index k = whole; k < w.cols; ++k)
          sum += x.values[r * x.stride + k] * static_cast<float>(codes(output + j)[k]);
        const float value = sum * scale.first * scale.second;
        acc[r * kGemvOutputs + j] = std::isfinite(value) ? value : decodedSum(output + j, r);
      }
    }
  }
};

template <typename Isa, int M>
struct GemvTask<Isa, WeightFormat::kFourBit, M> {
  const WeightView& w;
  const RowsOfX& x;
  Index output;

  void dotRow(Index row, float* acc) const {
    using Sums = RowSums<Isa, M>;
    RowReader<Isa, WeightFormat::kFourBit> reader(w, row, 0);
    Sums sums;
    Index k = 0;
    const auto multiply = [&](const typename Isa::Vec& weights, int chain) {
      sums.add(chain, weights, x.values + k, x.stride);
      k += Isa::kLanes;
    };
    // The inner loops are free of block ends, and so of branches and of calls that would cost them their registers.
    for (Index steps = w.cols / Isa::kLanes; steps > 0;) {
      const Index inside = least(steps, reader.stepsInside());
      Index s = 0;
      for (; s + Sums::kChains <= inside; s += Sums::kChains) {
        for (int c = 0; c < Sums::kChains; ++c) multiply(reader.inside(), c);
      }
      for (; s < inside; ++s) multiply(reader.inside(), 0);
      steps -= inside;
      if (inside == 0) {
        multiply(reader.next(), 0);
        --steps;
      }
    }
    for (int r = 0; r < M; ++r) acc[r * kGemvOutputs] = Isa::sum(sums[r]);
    for (; k < w.cols; ++k) {
      const float weight = w.coeff(row, k);
      for (int r = 0; r < M; ++r) acc[r * kGemvOutputs] += x.values[r * x.stride + k] * weight;
    }
  }
  void run(Index outputs, float* acc) const {
    for (Index j = 0; j < outputs; ++j) dotRow(output + j, acc + j);
  }
};

template <typename Isa, WeightFormat Format>
struct GemvKernels {
  static constexpr int kMaxRows = 8;  // whose sums fit every register file

  template <int M>
  static void run(const WeightView& w, const RowsOfX& x, Index output, Index outputs, float* acc) {
    GemvTask<Isa, Format, M>{w, x, output}.run(outputs, acc);
  }
  using Function = void (*)(const WeightView&, const RowsOfX&, Index, Index, float*);
  template <int M = kMaxRows>
  static Function function(Index rows) {
    if constexpr (M > 1) {
      if (rows < M) return function<M - 1>(rows);
    }
    return &run<M>;
  }

  /** X where it lies, if its rows are contiguous and no vector of them crosses a line; else a copy: from any address
   * eight rows took 1.4 times as long with AVX-512. */
  static RowsOfX contiguous(const ConstDenseView& x) {
    const bool floats = x.scalar == ScalarType::kFloat && (x.colStride == 1 || x.cols == 1);
    const auto isWhole = [](std::uintptr_t bytes) { return bytes % (Isa::kLanes * sizeof(float)) == 0; };
    const auto* const data = static_cast<const float*>(x.data);
    if (floats && isWhole(reinterpret_cast<std::uintptr_t>(data)) &&
        (x.rows == 1 || isWhole(static_cast<std::uintptr_t>(x.rowStride) * sizeof(float)))) {
      return {data, x.rowStride};
    }
    const Index stride = ceilDiv(x.cols, Isa::kLanes) * Isa::kLanes;
    float* const packed = scratch(Scratch::kActivations, x.rows * stride);
    for (Index i = 0; i < x.rows; ++i) {
      float* const to = packed + i * stride;
      if (floats) {
        std::memcpy(to, data + i * x.rowStride, static_cast<std::size_t>(x.cols) * sizeof(float));
      } else {
        packTile(x, i, 1, 0, x.cols, to);
      }
    }
    return {packed, stride};
  }

  static void gemv(const QuantizedProduct& p) {
    const RowsOfX x = contiguous(p.x);
    const Function task = function(p.y.rows);
    forOutputs<kMaxRows>(p, [&](Index output, Index outputs, float* acc) { task(p.w, x, output, outputs, acc); });
  }
};

template <typename Isa>
void runGemv(const QuantizedProduct& p) {
  p.w.format == WeightFormat::kInt8 ? GemvKernels<Isa, WeightFormat::kInt8>::gemv(p)
                                    : GemvKernels<Isa, WeightFormat::kFourBit>::gemv(p);
}

}  // namespace
}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_GEMV_KERNELS_H
