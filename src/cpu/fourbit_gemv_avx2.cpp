// SPDX-License-Identifier: MPL-2.0
// Y (m×n) = X·Wᵀ for at most four rows of X and 4-bit weights, in 16-bit fixed point.
//
//   32 bytes of a row:  │ c0c1 c2c3 … c30c31 │ c32c33 … c62c63 │      the high nibble of a byte is the earlier code
//     earlier codes, later codes ── 2 vpshufb each (low, high byte of a level) ── 2 vpunpck ──▶ 4×16 levels
//     vpmaddwd with X in the same order, two of the four sums added in int32, then to float, times the group's scale
//
// Arithmetic  Levels are integers, level = q/L, |q| ≤ L < 2¹⁴; X has 32767 steps up to the largest magnitude of each
//             64 values. A sum of four products stays below 2³¹ and is exact, so that with x' and w' the rounded
//             operands only float additions round:  |y - Σxŵ| ≤ Σ (½/32767·max₆₄|x|·|ŵ| + ε·absmax·|x|), ε the error of
//             a level, 1.6e-5 for NF4 (L = 15684) and nothing for FP4 (L = 16320 = 85·192). For normal values that is a
//             relative error of 3e-5; 8-bit activations have 4e-3.
// Traffic     0.5 B of codes + 4/64 B of absmax a weight; X stays in the first-level cache (2 B a value).
// Work        64 weights take 1 load, 1 shift, 2 ands, 8 shuffles, 4 vpmaddwd, 2 additions, 2 conversions, 2 fused
//             multiplications and the scale: 0.47 instructions a weight in all (callgrind), 9 shuffles and shifts on
//             two ports: 5 clocks for 64; it takes 6.4, and 7.2 where both sums of a step are added to one. A float
//             look-up is two vpermps and a blend for 8 weights; products of floats took 1.7 ms where this takes 0.45
//             to 0.49 (4096×4096, one thread).
#include "fourbit_gemv.h"
#include "int_vectors.h"
#include "kernels.h"
#include "simd.h"

#include <cmath>

namespace EigenQ {
namespace internal {
namespace {

constexpr Index kStep = 64;
constexpr int kMaxRows = 4;
constexpr float kSteps = 32767;  // of X

/** 16-bit levels, and the one that they are multiples of. */
struct Levels {
  __m256i low, high;  // bytes of the sixteen levels, in both halves
  float unit;
};

/** The largest rounding error of a level when \a count integers make up 1. */
float worstError(const float* table16, float count) {
  float worst = 0;
  for (int i = 0; i < 16; ++i) {
    const float exact = table16[i] * count;
    worst = std::fmax(worst, std::fabs(std::nearbyint(exact) - exact) / count);
  }
  return worst;
}

Levels roundLevels(const float* table16) {
  // The best of [12000, 16383] for NF4, and a multiple of FP4's 192.
  constexpr float kCounts[] = {15684, 16320};
  static_assert(4 * 16320LL * 32767 < (1LL << 31), "a sum of four products fits int32");
  const float count = worstError(table16, kCounts[0]) <= worstError(table16, kCounts[1]) ? kCounts[0] : kCounts[1];
  alignas(16) std::uint8_t low[16], high[16];
  for (int i = 0; i < 16; ++i) {
    const int level = static_cast<int>(std::nearbyint(table16[i] * count));
    low[i] = static_cast<std::uint8_t>(level & 255);
    high[i] = static_cast<std::uint8_t>(level >> 8 & 255);
  }
  const auto both = [](const std::uint8_t* bytes) {
    return _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(bytes)));
  };
  return {both(low), both(high), 1 / count};
}

// ---- X ------------------------------------------------------------------------------------------------------------

/** One row of X: kStep integers a step, and a scale for each group. */
struct FixedRow {
  const std::int16_t* values;
  const float* scales;
};

/** Values 0, 2, …, 14 of sixteen, or 1, 3, …, 15. */
template <int kOdd>
__m256 everySecond(const float* x) {
  constexpr int kPick = kOdd ? 0xdd : 0x88;
  const __m256 mixed = _mm256_shuffle_ps(_mm256_loadu_ps(x), _mm256_loadu_ps(x + 8), kPick);
  return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(mixed), 0xd8));
}

/** Sixteen integers: every second of x[0..16) and of x[32..48), times \a factor. */
template <int kOdd>
__m256i roundHalf(const float* x, __m256 factor) {
  const __m256i a = _mm256_cvtps_epi32(_mm256_mul_ps(everySecond<kOdd>(x), factor));
  const __m256i b = _mm256_cvtps_epi32(_mm256_mul_ps(everySecond<kOdd>(x + 32), factor));
  return _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
}

float largestMagnitude(const float* x) {
  const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
  __m256 largest = _mm256_setzero_ps();
  for (Index i = 0; i < kStep; i += 8) {
    largest = _mm256_max_ps(largest, _mm256_and_ps(magnitude, _mm256_loadu_ps(x + i)));
  }
  float lanes[8], result = 0;
  _mm256_storeu_ps(lanes, largest);
  for (const float lane : lanes) result = lane > result ? lane : result;
  return result;
}

/** Rounds kStep values; returns the unit of the integers. */
float roundStep(const float* x, std::int16_t* values) {
  const float largest = largestMagnitude(x);
  const __m256 factor = _mm256_set1_ps(largest > 0 ? kSteps / largest : 0.0f);
  __m256i* out = reinterpret_cast<__m256i*>(values);
  _mm256_storeu_si256(out, roundHalf<0>(x, factor));
  _mm256_storeu_si256(out + 1, roundHalf<1>(x, factor));
  _mm256_storeu_si256(out + 2, roundHalf<0>(x + 16, factor));
  _mm256_storeu_si256(out + 3, roundHalf<1>(x + 16, factor));
  return largest / kSteps;
}

/** \param unit  of W's levels, which X's scales take along */
template <Index kGroup>
void roundRow(const float* x, Index cols, float unit, std::int16_t* values, float* scales) {
  constexpr Index kGroups = kStep / kGroup;
  for (Index k = 0; k < cols; k += kStep, values += kStep, scales += kGroups) {
    float last[kStep] = {};
    if (k + kStep > cols) std::memcpy(last, x + k, static_cast<std::size_t>(cols - k) * sizeof(float));
    const float scale = unit * roundStep(k + kStep > cols ? last : x + k, values);
    for (Index g = 0; g < kGroups; ++g) scales[g] = scale;
  }
}

// ---- products -----------------------------------------------------------------------------------------------------

__m256i load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

/** The scales of a step's two halves, lane for lane. */
template <Index kGroup>
__m256 spread(const float* scales) {
  if constexpr (kGroup == kStep) return _mm256_broadcast_ss(scales);
  return _mm256_set_m128(_mm_broadcast_ss(scales + 1), _mm_broadcast_ss(scales));
}

/** Independent sums of a row of X: with few rows, additions would wait for each other. */
constexpr int chains(int rows) { return rows <= 2 ? 2 : 1; }

/** sum[][r] += the products of a step's kStep codes with row r's values. */
template <int M, Index kGroup>
__attribute__((always_inline)) inline void multiplyStep(const std::uint8_t* codes, const Levels& levels,
                                                        const FixedRow* x, Index step, const float (*scales)[8],
                                                        Index group, __m256 (&sum)[chains(M)][M]) {
  constexpr int kLast = chains(M) - 1;
  const __m256i pairs = IntVectors::loadOnce(codes), nibble = _mm256_set1_epi8(15);
  const __m256i earlier = _mm256_and_si256(_mm256_srli_epi16(pairs, 4), nibble);
  const __m256i later = _mm256_and_si256(pairs, nibble);
  const __m256i low0 = _mm256_shuffle_epi8(levels.low, earlier), high0 = _mm256_shuffle_epi8(levels.high, earlier);
  const __m256i low1 = _mm256_shuffle_epi8(levels.low, later), high1 = _mm256_shuffle_epi8(levels.high, later);
  const __m256i w[4] = {_mm256_unpacklo_epi8(low0, high0), _mm256_unpacklo_epi8(low1, high1),
                        _mm256_unpackhi_epi8(low0, high0), _mm256_unpackhi_epi8(low1, high1)};
  for (int r = 0; r < M; ++r) {
    const std::int16_t* values = x[r].values + step * kStep;
    const auto product = [&](int i) { return _mm256_madd_epi16(w[i], load(values + 16 * i)); };
    const __m256 scale = spread<kGroup>(scales[r] + group);
    const auto products = [&](int i) { return _mm256_cvtepi32_ps(_mm256_add_epi32(product(i), product(i + 1))); };
    sum[0][r] = _mm256_fmadd_ps(products(0), scale, sum[0][r]);
    sum[kLast][r] = _mm256_fmadd_ps(products(2), scale, sum[kLast][r]);
  }
}

/** acc[r·ld] = Σ x[r][k]·w(row, k). */
template <int M, Index kGroup>
void dotRow(const FourBitRows<kGroup>& rows, Index row, const Levels& levels, const FixedRow* x, float* buffer,
            float* acc, Index ld) {
  constexpr Index kGroups = kStep / kGroup, kBatch = 8 / kGroups;  // steps whose scales make up a vector
  const Index steps = rows.w.cols / kStep, groups = ceilDiv(rows.w.cols, kGroup);
  const std::uint8_t* codes = rows.bytes(row);
  const float* absmax = rows.scales(row, buffer);
  __m256 sum[chains(M)][M];
  for (auto& chain : sum) {
    for (__m256& s : chain) s = _mm256_setzero_ps();
  }
  rows.prefetchScales(row);
  alignas(32) float scales[M][8];
  Index step = 0;
  for (; step + kBatch <= steps; step += kBatch) {
    const __m256 eight = _mm256_loadu_ps(absmax + step * kGroups);
    for (int r = 0; r < M; ++r) {
      _mm256_store_ps(scales[r], _mm256_mul_ps(eight, _mm256_loadu_ps(x[r].scales + step * kGroups)));
    }
    for (Index i = 0; i < kBatch * kStep / 2; i += kCacheLine) prefetch(codes + step * kStep / 2 + i + kStreamAhead);
    for (Index i = 0; i < kBatch; ++i) {
      multiplyStep<M, kGroup>(codes + (step + i) * kStep / 2, levels, x, step + i, scales, i * kGroups, sum);
    }
  }
  for (; step * kStep < rows.w.cols; ++step) {
    const Index group = step * kGroups, count = least(kGroups, groups - group);
    for (int r = 0; r < M; ++r) {
      scales[r][kGroups - 1] = 0;
      for (Index g = 0; g < count; ++g) scales[r][g] = absmax[group + g] * x[r].scales[group + g];
    }
    const LastStep<kStep> last(codes + step * kStep / 2, least(kStep, rows.w.cols - step * kStep));
    multiplyStep<M, kGroup>(last.bytes, levels, x, step, scales, 0, sum);
  }
  for (int r = 0; r < M; ++r) {
    acc[r * ld] = Avx2::sum(chains(M) == 1 ? sum[0][r] : _mm256_add_ps(sum[0][r], sum[chains(M) - 1][r]));
  }
}

template <int M, Index kGroup>
void multiply(const QuantizedProduct& p) {
  const Index k = p.x.cols, padded = roundUp(k, kStep), groups = padded / kGroup;
  const Levels levels = roundLevels(p.w.codeTable);
  // For each row of X half as many floats as integers, and a scale for each group.
  const Index rowFloats = padded / 2 + roundUp(groups, 8);
  float* const packed = scratch(Scratch::kActivations, M * rowFloats);
  float* const contiguous = scratch(Scratch::kTile, k);
  FixedRow x[M];
  for (int r = 0; r < M; ++r) {
    auto* values = reinterpret_cast<std::int16_t*>(packed + r * rowFloats);
    float* scales = packed + r * rowFloats + padded / 2;
    roundRow<kGroup>(contiguousRow(p.x, r, contiguous), k, levels.unit, values, scales);
    x[r] = {values, scales};
  }
  const FourBitRows<kGroup> rows{p.w};
  forEachOutput<kMaxRows>(p, [&](Index output, float* acc, Index ld) {
    dotRow<M, kGroup>(rows, output, levels, x, scratch(Scratch::kPanel, groups), acc, ld);
  });
}

template <Index kGroup>
void multiplyRows(const QuantizedProduct& p) {
  switch (p.y.rows) {
    case 1:
      return multiply<1, kGroup>(p);
    case 2:
      return multiply<2, kGroup>(p);
    case 3:
      return multiply<3, kGroup>(p);
    default:
      return multiply<kMaxRows, kGroup>(p);
  }
}

}  // namespace

void runFourBitGemvAvx2(const QuantizedProduct& p) {
  p.w.offset % 64 == 0 && p.w.stride % 64 == 0 && p.w.blockShift >= 6 ? multiplyRows<64>(p) : multiplyRows<32>(p);
}

}  // namespace internal
}  // namespace EigenQ
