// SPDX-License-Identifier: MPL-2.0
// Decoding a row of W in vectors, exactly as WeightView::coeff decodes one code.
#ifndef EIGENQ_CPU_ROW_READER_H
#define EIGENQ_CPU_ROW_READER_H

#include "simd.h"

#include <eigen_q/src/Views.h>

namespace EigenQ {
namespace internal {
namespace {

/** Walks along a row of W from column j on and decodes kLanes codes a step. */
template <typename Isa, WeightFormat Format>
class RowReader;

template <typename Isa>
class RowReader<Isa, WeightFormat::kInt8> {
 public:
  RowReader() = default;
  RowReader(const WeightView& w, Index i, Index j)
      : m_codes(static_cast<const std::int8_t*>(w.codes) + w.offset + i * w.stride + j),
        m_first(Isa::broadcast(Int8Factors(w.rowAbsmax[i]).first)),
        m_second(Isa::broadcast(Int8Factors(w.rowAbsmax[i]).second)) {}

  /** Steps that inside() may take from here. */
  Index stepsInside() const { return PTRDIFF_MAX; }
  typename Isa::Vec inside() {
    const typename Isa::Vec codes = Isa::fromInt8(m_codes);
    m_codes += Isa::kLanes;
    return Isa::mul(Isa::mul(codes, m_first), m_second);
  }
  /** A step from anywhere. */
  typename Isa::Vec next() { return inside(); }

 private:
  const std::int8_t* m_codes;
  typename Isa::Vec m_first, m_second;
};

template <typename Isa>
class RowReader<Isa, WeightFormat::kFourBit> {
  using Vec = typename Isa::Vec;
  static constexpr int kBytes = Isa::kLanes / 2;

 public:
  RowReader() = default;
  RowReader(const WeightView& w, Index i, Index j)
      : m_w(&w), m_table(Isa::loadTable(w.codeTable)), m_flat(w.offset + i * w.stride + j), m_blockEnd(m_flat) {}

  /** Steps that inside() may take from here: they share one absmax. */
  Index stepsInside() {
    if (m_flat == m_blockEnd) enterBlock();
    return (m_blockEnd - m_flat) / Isa::kLanes;
  }
  Vec inside() {
    const Vec v = Isa::mul(values(), m_scale);
    m_flat += Isa::kLanes;
    return v;
  }
  /** A step from anywhere. */
  Vec next() {
    if (m_flat == m_blockEnd) enterBlock();
    return m_flat + Isa::kLanes <= m_blockEnd ? inside() : across();
  }

 private:
  void enterBlock() {
    const Index block = m_flat >> m_w->blockShift;
    m_blockEnd = (block + 1) << m_w->blockShift;
    m_absmax = m_w->absmax(block);
    m_scale = Isa::broadcast(m_absmax);
  }

  /** A step that spans two blocks; blocks are never shorter than a vector. Rare, and so kept out of the loops. */
  __attribute__((noinline)) Vec across() {
    const Vec v = values();
    const Index left = m_blockEnd - m_flat;
    const float first = m_absmax;
    m_flat = m_blockEnd;
    enterBlock();
    m_flat += Isa::kLanes - left;
    float scales[Isa::kLanes];
    for (int l = 0; l < Isa::kLanes; ++l) scales[l] = l < left ? first : m_absmax;
    return Isa::mul(v, Isa::load(scales));
  }

  Vec values() const {
    const std::uint8_t* pairs = static_cast<const std::uint8_t*>(m_w->codes) + (m_flat >> 1);
    if ((m_flat & 1) == 0) return Isa::decodeFourBit(pairs, m_table);
    // The first code is a low nibble: move everything up by one nibble, in big-endian order.
    std::uint64_t bytes = 0;
    std::memcpy(&bytes, pairs, kBytes);
    const std::uint64_t last = static_cast<std::uint64_t>(pairs[kBytes] >> 4) << (64 - 8 * kBytes);
    bytes = __builtin_bswap64(__builtin_bswap64(bytes) << 4 | last);
    return Isa::decodeFourBit(reinterpret_cast<const std::uint8_t*>(&bytes), m_table);
  }

  const WeightView* m_w;
  typename Isa::Table m_table;
  Index m_flat;
  Index m_blockEnd;
  float m_absmax;
  Vec m_scale;
};

}  // namespace
}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_ROW_READER_H
