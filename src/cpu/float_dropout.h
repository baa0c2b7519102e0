// SPDX-License-Identifier: MPL-2.0
// Dropout whose mask is a stretch of a Philox4x32-10 stream, made anew wherever it is needed.
//
//   block b of the stream: counter (b, stream), key seed → 10 rounds → words 4b … 4b + 3, one a value
//
// Work     a round is two 32×32-bit products and six cheaper operations for as many blocks as a vector has 64-bit
//          lanes: with AVX-512 3 instructions a value, 0.3 ns, where the scalar loop takes 2.5.
//
// Internal linkage; see simd.h for the reason.
#ifndef EIGENQ_CPU_FLOAT_DROPOUT_H
#define EIGENQ_CPU_FLOAT_DROPOUT_H

#include <eigen_q/src/FloatKernels.h>
#include <eigen_q/src/Philox.h>

#include "simd.h"
#include "tasks.h"

namespace EigenQ {
namespace internal {
namespace {

// kSets vectors side by side hide the seven clocks of a round that wait for each other, as far as registers reach.
// One word in the lower half of each lane of 64 bits; what is in the upper half does not matter. store() writes the
// words 0 … 3 of each block, whose numbers order(i) are those of lane i.

#if defined(__AVX512F__) && defined(__AVX512DQ__)

struct PhiloxLanes {
  using Words = __m512i;
  static constexpr int kLanes = 8, kSets = 4;
  static int order(int lane) { return lane / 2 + lane % 2 * 4; }
  static Words load(const std::uint64_t* p) { return _mm512_loadu_si512(p); }
  static Words broadcast(std::uint64_t v) { return _mm512_set1_epi64(static_cast<long long>(v)); }
  static Words multiply(Words a, Words b) { return _mm512_mul_epu32(a, b); }
  static Words add(Words a, Words b) { return _mm512_add_epi64(a, b); }
  static Words high(Words v) { return _mm512_srli_epi64(v, 32); }
  static Words exclusiveOr(Words a, Words b) { return _mm512_xor_si512(a, b); }
  static void store(std::uint32_t* p, Words c0, Words c1, Words c2, Words c3) {
    const Words first = pairs(c0, c1), second = pairs(c2, c3);
    _mm512_storeu_si512(p, _mm512_unpacklo_epi64(first, second));
    _mm512_storeu_si512(p + 16, _mm512_unpackhi_epi64(first, second));
  }
  static Words pairs(Words a, Words b) { return _mm512_mask_shuffle_epi32(a, 0xaaaa, b, _MM_PERM_CCAA); }
};

#elif defined(__AVX2__)

struct PhiloxLanes {
  using Words = __m256i;
  static constexpr int kLanes = 4, kSets = 2;
  static int order(int lane) { return lane / 2 + lane % 2 * 2; }
  static Words load(const std::uint64_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  static Words broadcast(std::uint64_t v) { return _mm256_set1_epi64x(static_cast<long long>(v)); }
  static Words multiply(Words a, Words b) { return _mm256_mul_epu32(a, b); }
  static Words add(Words a, Words b) { return _mm256_add_epi64(a, b); }
  static Words high(Words v) { return _mm256_srli_epi64(v, 32); }
  static Words exclusiveOr(Words a, Words b) { return _mm256_xor_si256(a, b); }
  static void store(std::uint32_t* p, Words c0, Words c1, Words c2, Words c3) {
    const Words first = pairs(c0, c1), second = pairs(c2, c3);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_unpacklo_epi64(first, second));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 8), _mm256_unpackhi_epi64(first, second));
  }
  static Words pairs(Words a, Words b) { return _mm256_blend_epi32(a, _mm256_slli_epi64(b, 32), 0xaa); }
};

#else

struct PhiloxLanes {
  using Words = std::uint64_t;
  static constexpr int kLanes = 1, kSets = 2;
  static int order(int lane) { return lane; }
  static Words load(const std::uint64_t* p) { return *p; }
  static Words broadcast(std::uint64_t v) { return v; }
  static Words multiply(Words a, Words b) { return (a & 0xffffffffu) * (b & 0xffffffffu); }
  static Words add(Words a, Words b) { return a + b; }
  static Words high(Words v) { return v >> 32; }
  static Words exclusiveOr(Words a, Words b) { return a ^ b; }
  static void store(std::uint32_t* p, Words c0, Words c1, Words c2, Words c3) {
    p[0] = static_cast<std::uint32_t>(c0);
    p[1] = static_cast<std::uint32_t>(c1);
    p[2] = static_cast<std::uint32_t>(c2);
    p[3] = static_cast<std::uint32_t>(c3);
  }
};

#endif

/** Blocks of one stream. */
class PhiloxBlocks {
 public:
  using Lanes = PhiloxLanes;
  using Words = Lanes::Words;
  static constexpr int kSets = Lanes::kSets, kBlocks = kSets * Lanes::kLanes, kWords = 4 * kBlocks;

  PhiloxBlocks(std::uint64_t seed, std::uint64_t stream) : m_low(Lanes::broadcast(stream)), m_high(Lanes::high(m_low)) {
    std::uint32_t key0 = static_cast<std::uint32_t>(seed), key1 = static_cast<std::uint32_t>(seed >> 32);
    for (int round = 0; round < Philox::kRounds; ++round, key0 += Philox::kWeyl0, key1 += Philox::kWeyl1) {
      m_keys[round][0] = Lanes::broadcast(key0);
      m_keys[round][1] = Lanes::broadcast(key1);
    }
    std::uint64_t order[Lanes::kLanes];
    for (int lane = 0; lane < Lanes::kLanes; ++lane) order[lane] = static_cast<std::uint64_t>(Lanes::order(lane));
    m_order = Lanes::load(order);
  }

  /** words[4·b + i] = philox(seed, stream, first + b)[i]. */
  void generate(std::uint64_t first, std::uint32_t* words) const {
    const Words multiplier0 = Lanes::broadcast(Philox::kMultiplier0);
    const Words multiplier1 = Lanes::broadcast(Philox::kMultiplier1);
    Words c0[kSets], c1[kSets], c2[kSets], c3[kSets];
    for (int s = 0; s < kSets; ++s) {
      c0[s] = Lanes::add(m_order, Lanes::broadcast(first + static_cast<std::uint64_t>(s * Lanes::kLanes)));
      c1[s] = Lanes::high(c0[s]);
      c2[s] = m_low;
      c3[s] = m_high;
    }
    for (const auto& key : m_keys) {
      for (int s = 0; s < kSets; ++s) {
        const Words p0 = Lanes::multiply(multiplier0, c0[s]), p1 = Lanes::multiply(multiplier1, c2[s]);
        c0[s] = Lanes::exclusiveOr(Lanes::exclusiveOr(Lanes::high(p1), c1[s]), key[0]);
        c2[s] = Lanes::exclusiveOr(Lanes::exclusiveOr(Lanes::high(p0), c3[s]), key[1]);
        c1[s] = p1;
        c3[s] = p0;
      }
    }
    for (int s = 0; s < kSets; ++s) Lanes::store(words + s * 4 * Lanes::kLanes, c0[s], c1[s], c2[s], c3[s]);
  }

 private:
  Words m_keys[Philox::kRounds][2], m_low, m_high, m_order;
};

/** \a count ≤ kWords values. */
void dropWords(const std::uint32_t* words, const FloatDropout& d, Index begin, Index count) {
  const float* x = d.x + begin;
  float* y = d.y.data + begin;
  const std::int32_t threshold = static_cast<std::int32_t>(d.threshold);  // 24 bits: no sign
  const float factor = d.factor;
  if (d.y.accumulate) {
    for (Index i = 0; i < count; ++i) {
      y[i] += static_cast<std::int32_t>(words[i] >> 8) >= threshold ? factor * x[i] : 0.0f;
    }
  } else {
    for (Index i = 0; i < count; ++i) {
      y[i] = static_cast<std::int32_t>(words[i] >> 8) >= threshold ? factor * x[i] : 0.0f;
    }
  }
}

void dropFloats(const FloatDropout& d) {
  constexpr Index kWords = PhiloxBlocks::kWords, kPiece = 64 * kWords;  // of a task
  forEachTask(ceilDiv(d.size, kPiece), d.size * 16, [&](Index task) {
    const PhiloxBlocks blocks(d.seed, d.stream);
    std::uint32_t words[kWords];
    for (Index i = task * kPiece, end = least(d.size, i + kPiece); i < end; i += kWords) {
      blocks.generate(static_cast<std::uint64_t>(i) / 4, words);
      const Index count = least(kWords, end - i);
      count == kWords ? dropWords(words, d, i, kWords) : dropWords(words, d, i, count);
    }
  });
}

}  // namespace
}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_FLOAT_DROPOUT_H
