// SPDX-License-Identifier: MPL-2.0
// Y (m×n) = X·Wᵀ for at most three rows of X and 4-bit weights, in float.
//
//   64 bytes of a row:  │ c0 … c7 │ c8 … c15 │ … │ c120 … c127 │      sixteen dwords of eight codes
//     vpermps looks sixteen floats up by the low four bits of a dword: eight shifts, eight look-ups, 128 levels,
//     multiplied by X in the same order; the sums of each 32 codes lie in a lane of their own, and meet their scale
//     there
//
// Arithmetic  Sums in float of exact levels; a block's absmax is multiplied with the sum of its products instead of
//             with each of them.
// Traffic     0.5 B of codes + 4/64 B of absmax a weight; X stays in the first-level cache (4 B a value), by pieces of
//             which each meets 16 rows of W: 4096×11008 with one row of X takes 1.1 ms, and 1.9 with X as a whole.
// Work        128 weights take 1 load, 7 shifts, 8 look-ups, 8 fused multiplications, and 3 for the scale: 0.21
//             instructions a weight, 8 clocks for 128 where two of each start in a clock. Codes are loaded once: as an
//             operand of each shift, from any address, they took two rows of X from 0.59 to 0.97 ms (4096×4096, cold).
#include "fourbit_gemv.h"
#include "fourbit_simd.h"
#include "kernels.h"

namespace EigenQ {
namespace internal {
namespace {

constexpr Index kStep = 128;
constexpr int kMaxRows = 3;
constexpr Index kL1Steps = 48;  // of rows of X, 24 KiB, that stay in the first-level cache while 16 rows of W pass by

/** One row of X in the order of a step's look-ups: packed[16·j + lane] = x[8·lane + j]. */
void packRow(const float* x, Index cols, float* packed) {
  const __m512i lanes = _mm512_set_epi32(120, 112, 104, 96, 88, 80, 72, 64, 56, 48, 40, 32, 24, 16, 8, 0);
  for (Index k = 0; k < cols; k += kStep, packed += kStep) {
    float last[kStep] = {};
    if (k + kStep > cols) std::memcpy(last, x + k, static_cast<std::size_t>(cols - k) * sizeof(float));
    const float* from = k + kStep > cols ? last : x + k;
    for (int j = 0; j < 8; ++j) _mm512_storeu_ps(packed + 16 * j, _mm512_i32gather_ps(lanes, from + j, 4));
  }
}

/** sum[r] += the products of a step's kStep codes with row r's values. */
template <int M>
__attribute__((always_inline)) inline void multiplyStep(const std::uint8_t* codes, __m512 table, __m512 scale,
                                                        const float* x, Index rowFloats, __m512 (&sum)[M]) {
  const __m512i dwords = IntVectors::loadOnce(codes);
  __m512 products[M];
  for (int j = 0; j < 8; ++j) {
    const __m512 w = FourBitAvx512::lookUp(dwords, j, table);
    for (int r = 0; r < M; ++r) {
      const __m512 values = _mm512_loadu_ps(x + r * rowFloats + 16 * j);
      products[r] = j == 0 ? _mm512_mul_ps(w, values) : _mm512_fmadd_ps(w, values, products[r]);
    }
  }
  for (int r = 0; r < M; ++r) sum[r] = _mm512_fmadd_ps(products[r], scale, sum[r]);
}

/** The outputs of a task. */
template <int M, Index kPerScale>
struct GemvTask {
  static constexpr Index kScales = kStep / kPerScale;
  const FourBitRows<kPerScale>& rows;
  const float* x;
  Index rowFloats;
  Index output;

  /** lanes (+)= the products of steps [from, to) of a row, while \a next is asked for. */
  void add(Index row, const float* absmax, Index from, Index to, const std::uint8_t* next,
           float (&lanes)[M][16]) const {
    const Index cols = rows.w.cols, whole = least(to, cols / kStep);
    const std::uint8_t* codes = rows.bytes(row);
    const __m512 table = FourBitAvx512::loadTable(rows.w.codeTable);
    const auto spread = [](const float* scales) { return FourBitAvx512::spread<kPerScale>(scales); };
    __m512 sum[M];
    for (int r = 0; r < M; ++r) sum[r] = from == 0 ? _mm512_setzero_ps() : _mm512_load_ps(lanes[r]);
    Index step = from;
    for (; step < whole; ++step, next += kStep / 2) {
      prefetch(next);
      multiplyStep<M>(codes + step * kStep / 2, table, spread(absmax + step * kScales), x + step * kStep, rowFloats,
                      sum);
    }
    if (step < to) {
      const LastStep<kStep> last(codes + step * kStep / 2, cols - step * kStep);
      alignas(16) float scales[kScales] = {};
      for (Index g = step * kScales; g < ceilDiv(cols, kPerScale); ++g) scales[g - step * kScales] = absmax[g];
      multiplyStep<M>(last.bytes, table, spread(scales), x + step * kStep, rowFloats, sum);
    }
    for (int r = 0; r < M; ++r) _mm512_store_ps(lanes[r], sum[r]);
  }

  /** acc[r·kGemvOutputs + j] = Σ x(r, k)·w(output + j, k). \a buffer has room for the scales of kGemvOutputs rows. */
  void run(Index outputs, float* buffer, float* acc) const {
    alignas(64) float lanes[kGemvOutputs][M][16];
    const float* absmax[kGemvOutputs];
    const Index steps = ceilDiv(rows.w.cols, kStep), groups = ceilDiv(rows.w.cols, kPerScale);
    const Index piece = ceilDiv(steps, ceilDiv(M * steps, kL1Steps));
    for (Index j = 0; j < outputs; ++j) {
      absmax[j] = rows.scales(output + j, buffer + j * groups);
      rows.prefetchScales(output + j);
    }
    for (Index from = 0; from < steps; from += piece) {
      const Index to = least(from + piece, steps);
      for (Index j = 0; j < outputs; ++j) {
        const std::uint8_t* const next =
            to < steps ? rows.bytes(output + j) + to * kStep / 2 : rows.bytes(output + j + kGemvOutputs);
        add(output + j, absmax[j], from, to, next, lanes[j]);
      }
    }
    for (Index j = 0; j < outputs; ++j) {
      for (int r = 0; r < M; ++r) acc[r * kGemvOutputs + j] = _mm512_reduce_add_ps(_mm512_load_ps(lanes[j][r]));
    }
  }
};

template <int M, Index kPerScale>
void multiply(const QuantizedProduct& p) {
  const Index k = p.x.cols, rowFloats = roundUp(k, kStep);
  float* const packed = scratch(Scratch::kActivations, M * rowFloats);
  float* const contiguous = scratch(Scratch::kTile, k);
  for (int r = 0; r < M; ++r) packRow(contiguousRow(p.x, r, contiguous), k, packed + r * rowFloats);
  const FourBitRows<kPerScale> rows{p.w};
  forOutputs<kMaxRows>(p, [&](Index output, Index outputs, float* acc) {
    float* const buffer = scratch(Scratch::kPanel, kGemvOutputs * ceilDiv(k, kPerScale));
    GemvTask<M, kPerScale>{rows, packed, rowFloats, output}.run(outputs, buffer, acc);
  });
}

template <Index kPerScale>
void multiplyRows(const QuantizedProduct& p) {
  switch (p.y.rows) {
    case 1:
      return multiply<1, kPerScale>(p);
    case 2:
      return multiply<2, kPerScale>(p);
    default:
      return multiply<kMaxRows, kPerScale>(p);
  }
}

}  // namespace

void runFourBitGemvAvx512(const QuantizedProduct& p) {
  p.w.offset % 64 == 0 && p.w.stride % 64 == 0 && p.w.blockShift >= 6 ? multiplyRows<64>(p) : multiplyRows<32>(p);
}

}  // namespace internal
}  // namespace EigenQ
