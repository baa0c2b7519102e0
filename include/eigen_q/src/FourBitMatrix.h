// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_FOURBITMATRIX_H
#define EIGENQ_FOURBITMATRIX_H

#include "QuantizedBase.h"
#include "QuantizedIO.h"
#include "Quantize.h"

#include <string>
#include <utility>

namespace EigenQ {

/** How the absmax of the blocks is kept: as float, or itself quantised to 8 bits (QLoRA's double quantisation). */
enum class Statistics { kPlain, kNested };

template <FourBitType kType>
class FourBitMatrix;

/** 4-bit NormalFloat codes: levels at the quantiles of a normal distribution. */
using NF4Matrix = FourBitMatrix<FourBitType::kNF4>;
/** 4-bit floating-point codes: a sign, two bits of exponent, one of mantissa. */
using FP4Matrix = FourBitMatrix<FourBitType::kFP4>;

}  // namespace EigenQ

namespace Eigen {
namespace internal {
template <EigenQ::FourBitType kType>
struct traits<EigenQ::FourBitMatrix<kType>> : EigenQ::internal::QuantizedTraits<RowMajorBit | NestByRefBit> {};
}  // namespace internal
}  // namespace Eigen

namespace EigenQ {

/** A matrix of 4-bit codes, two a byte, with one absmax for each block of its row-major flattening:
 * w = r32(level·absmax). Source: Dettmers et al., QLoRA, arXiv:2305.14314. Bytes: doc/formats.md. */
template <FourBitType kType>
class FourBitMatrix : public QuantizedBase<FourBitMatrix<kType>> {
 public:
  using Nested = const FourBitMatrix&;
  using NestedExpression = FourBitMatrix;
  using QuantizedBase<FourBitMatrix>::operator=;

  /** 0×0. */
  FourBitMatrix() : m_state(kType, 64, ScalarType::kFloat, {0, 0}, Eigen::VectorXf()) {}

  /** Quantises \a w; see quantize4bit for the error. Explicit, since it loses information.
   * \param blockSize  values per absmax, a power of two from 32 to 4096
   * Throws std::invalid_argument on a coefficient that is not finite, FormatError on another block size. */
  template <typename Derived>
  explicit FourBitMatrix(const Eigen::MatrixBase<Derived>& w, Index blockSize = 64,
                         Statistics statistics = Statistics::kPlain) {
    internal::DirectOrPlain<Derived> direct(w.derived());
    internal::requireFinite(name(), internal::viewOf(direct));
    FourBitQuantized quantized = quantize4bit(direct, kType, blockSize, statistics == Statistics::kNested);
    m_packed = std::move(quantized.packed);
    m_state = std::move(quantized.state);
  }

  /** Takes stored codes, two a byte, the first in the high nibble, and the state that decodes them.
   * Throws FormatError where the state is of another type, of no matrix, or does not fit; \a where names the source. */
  FourBitMatrix(ByteVector packed, QuantState state, const std::string& where = name())
      : m_packed(std::move(packed)), m_state(std::move(state)) {
    internal::requireFourBitMatrix(where, m_packed, m_state, kType);
  }

  Index rows() const { return m_state.shape()[0]; }
  Index cols() const { return m_state.shape()[1]; }

  const ByteVector& packed() const { return m_packed; }
  const QuantState& state() const { return m_state; }
  Index blockSize() const { return m_state.blockSize(); }

  /** Bytes of codes and statistics. */
  Index sizeInBytes() const { return m_packed.size() + m_state.absmaxBytes(); }

  internal::QuantizedView quantizedView() const {
    return {internal::WeightView::fourBit(m_packed.data(), rows(), cols(), m_state.codeTable().data(),
                                          m_state.absmaxView(), internal::blockShift(m_state.blockSize()))};
  }

  static const char* name() { return kType == FourBitType::kNF4 ? "NF4Matrix" : "FP4Matrix"; }

  /** One line of facts, then the dequantised values, or the corner of a large matrix. */
  friend std::ostream& operator<<(std::ostream& os, const FourBitMatrix& w) {
    return internal::printQuantized(
        os, w, name(), "blocks of " + std::to_string(w.blockSize()) + (w.state().isNested() ? ", nested absmax" : ""));
  }

 private:
  ByteVector m_packed;
  QuantState m_state;
};

}  // namespace EigenQ

#endif  // EIGENQ_FOURBITMATRIX_H
