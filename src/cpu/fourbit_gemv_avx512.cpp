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
// Traffic     0.5 B of codes + 4/64 B of absmax a weight; X stays in the first-level cache (4 B a value).
// Work        128 weights take 1 load, 7 shifts, 8 look-ups, 8 fused multiplications, and 3 for the scale: 0.21
//             instructions a weight, 8 clocks for 128 where two of each start in a clock. Codes are loaded once: as an
//             operand of each shift, from any address, they took two rows of X from 0.63 to 0.97 ms (4096×4096, cold).
#include "fourbit_gemv.h"
#include "fourbit_simd.h"
#include "kernels.h"

namespace EigenQ {
namespace internal {
namespace {

constexpr Index kStep = 128;
constexpr int kMaxRows = 3;

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

/** acc[r·ld] = Σ x[r·rowFloats + k]·w(row, k). */
template <int M, Index kPerScale>
void dotRow(const FourBitRows<kPerScale>& rows, Index row, const float* x, Index rowFloats, float* buffer, float* acc,
            Index ld) {
  constexpr Index kScales = kStep / kPerScale;
  const Index steps = rows.w.cols / kStep, groups = ceilDiv(rows.w.cols, kPerScale);
  const std::uint8_t* codes = rows.bytes(row);
  const float* absmax = rows.scales(row, buffer);
  const __m512 table = FourBitAvx512::loadTable(rows.w.codeTable);
  const auto spread = [](const float* scales) { return FourBitAvx512::spread<kPerScale>(scales); };
  __m512 sum[M];
  for (int r = 0; r < M; ++r) sum[r] = _mm512_setzero_ps();
  rows.prefetchScales(row);
  Index step = 0;
  for (; step < steps; ++step, x += kStep) {
    prefetch(codes + step * kStep / 2 + kStreamAhead);
    multiplyStep<M>(codes + step * kStep / 2, table, spread(absmax + step * kScales), x, rowFloats, sum);
  }
  if (step * kStep < rows.w.cols) {
    const LastStep<kStep> last(codes + step * kStep / 2, rows.w.cols - step * kStep);
    alignas(16) float scales[kScales] = {};
    for (Index g = step * kScales; g < groups; ++g) scales[g - step * kScales] = absmax[g];
    multiplyStep<M>(last.bytes, table, spread(scales), x, rowFloats, sum);
  }
  for (int r = 0; r < M; ++r) acc[r * ld] = _mm512_reduce_add_ps(sum[r]);
}

template <int M, Index kPerScale>
void multiply(const QuantizedProduct& p) {
  const Index k = p.x.cols, rowFloats = roundUp(k, kStep);
  float* const packed = scratch(Scratch::kActivations, M * rowFloats);
  float* const contiguous = scratch(Scratch::kTile, k);
  for (int r = 0; r < M; ++r) packRow(contiguousRow(p.x, r, contiguous), k, packed + r * rowFloats);
  const FourBitRows<kPerScale> rows{p.w};
  forEachOutput<kMaxRows>(p, [&](Index output, float* acc, Index ld) {
    float* buffer = scratch(Scratch::kPanel, rowFloats / kPerScale);
    dotRow<M, kPerScale>(rows, output, packed, rowFloats, buffer, acc, ld);
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
