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
template <FourBitType kType>
class FourBitWithInt8Activations;

/** 4-bit NormalFloat codes: levels at the quantiles of a normal distribution. */
using NF4Matrix = FourBitMatrix<FourBitType::kNF4>;
/** 4-bit floating-point codes: a sign, two bits of exponent, one of mantissa. */
using FP4Matrix = FourBitMatrix<FourBitType::kFP4>;

}  // namespace EigenQ

namespace Eigen {
namespace internal {
template <EigenQ::FourBitType kType>
struct traits<EigenQ::FourBitMatrix<kType>> : EigenQ::internal::QuantizedTraits<RowMajorBit | NestByRefBit> {};
template <EigenQ::FourBitType kType>
struct traits<EigenQ::FourBitWithInt8Activations<kType>> : EigenQ::internal::QuantizedTraits<RowMajorBit> {};
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

  /** Does not compile: write W.asDense(), which says that it rounds what was rounded once. */
  template <typename Other>
  explicit FourBitMatrix(const QuantizedBase<Other>&, Index = 64, Statistics = Statistics::kPlain) {
    internal::refuseToQuantizeAgain<Other>();
  }

  /** Takes stored codes, two a byte, the first in the high nibble, and the state that decodes them.
   * Throws FormatError where the state is of another type, of no matrix, or does not fit; \a where names the source. */
  FourBitMatrix(ByteVector packed, QuantState state, const std::string& where = name())
      : m_packed(std::move(packed)), m_state(std::move(state)) {
    internal::requireFourBitMatrix(where, m_packed, m_state, kType);
  }

  Index rows() const { return extent(0); }
  Index cols() const { return extent(1); }

  const ByteVector& packed() const { return m_packed; }
  const QuantState& state() const { return m_state; }
  Index blockSize() const { return m_state.blockSize(); }

  /** Bytes of codes and statistics. */
  Index sizeInBytes() const { return m_packed.size() + m_state.absmaxBytes(); }

  internal::QuantizedView quantizedView() const {
    return {internal::WeightView::fourBit(m_packed.data(), rows(), cols(), m_state.codeTable().data(),
                                          m_state.absmaxView(), internal::blockShift(m_state.blockSize()))};
  }

  /** The same matrix, in whose products X·Wᵀ and W·X the tokens may be rounded to 8 bits. Refers to this matrix. */
  FourBitWithInt8Activations<kType> withInt8Activations() const& { return {*this}; }
  void withInt8Activations() const&& = delete;  // of a temporary it would dangle

  static const char* name() { return kType == FourBitType::kNF4 ? "NF4Matrix" : "FP4Matrix"; }

  /** One line of facts, then the dequantised values, or the corner of a large matrix. */
  friend std::ostream& operator<<(std::ostream& os, const FourBitMatrix& w) {
    return internal::printQuantized(
        os, w, name(), "blocks of " + std::to_string(w.blockSize()) + (w.state().isNested() ? ", nested absmax" : ""));
  }

 private:
  /** Once moved from, the state has no shape: the matrix is 0×0. */
  Index extent(std::size_t dimension) const { return m_state.shape().empty() ? 0 : m_state.shape()[dimension]; }

  ByteVector m_packed;
  QuantState m_state;
};

/** A 4-bit matrix W, n×k, whose kernels may trade accuracy for speed: in X·Wᵀ (tokens as rows) and W·X (tokens as
 * columns) each token may be rounded to int8 in groups of 64 features by the largest magnitude X₆₄ of the group, and
 * the levels of W to multiples of a unit, so that products are summed in integers. Bias, activation and further terms
 * join the kernel as for W itself.
 *
 * Error, beside float sums: |y - Σ x·w| ≤ Σ (X₆₄/214·(|w| + ε·absmax) + ε·absmax·|x|), ε = 5.3e-3, absmax that of w's
 * block; with VNNI or NEON's dot products X₆₄/254 and ε = 3.7e-3. For normal tokens and weights that is a relative
 * error of 9e-3, with VNNI 7e-3, where W itself has some 1e-6. A token with a value that is not finite may give NaN
 * throughout.
 *
 * A permission, not an order: kernels that gain nothing, those for rows of W that do not begin at multiples of 32
 * codes or are shorter than 64, leave the tokens as they are, as do all on the device and on processors that are
 * neither x86 nor ARM with dot products. In all else it is W: products that sum over W's rows (those of the backward
 * pass), assignments, coefficients.
 */
template <FourBitType kType>
class FourBitWithInt8Activations : public QuantizedBase<FourBitWithInt8Activations<kType>> {
 public:
  using Nested = FourBitWithInt8Activations;
  using NestedExpression = FourBitWithInt8Activations;
  using QuantizedBase<FourBitWithInt8Activations>::operator=;

  FourBitWithInt8Activations(const FourBitMatrix<kType>& w) : m_w(w) {}

  Index rows() const { return m_w.rows(); }
  Index cols() const { return m_w.cols(); }
  const FourBitMatrix<kType>& weight() const { return m_w; }

  internal::QuantizedView quantizedView() const {
    internal::QuantizedView view = m_w.quantizedView();
    view.weights.int8Activations = true;
    return view;
  }

 private:
  const FourBitMatrix<kType>& m_w;
};

}  // namespace EigenQ

#endif  // EIGENQ_FOURBITMATRIX_H
