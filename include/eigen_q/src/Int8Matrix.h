// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_INT8MATRIX_H
#define EIGENQ_INT8MATRIX_H

#include "QuantizedBase.h"
#include "QuantizedIO.h"
#include "Quantize.h"

#include <utility>

namespace EigenQ {
class Int8Matrix;
class ThresholdedInt8;
}  // namespace EigenQ

namespace Eigen {
namespace internal {
template <>
struct traits<EigenQ::Int8Matrix> : EigenQ::internal::QuantizedTraits<RowMajorBit | NestByRefBit> {};
template <>
struct traits<EigenQ::ThresholdedInt8> : EigenQ::internal::QuantizedTraits<RowMajorBit> {};
}  // namespace internal
}  // namespace Eigen

namespace EigenQ {

/** A matrix of int8 codes with one absmax a row: w(i,j) = r32(r32(codes(i,j)·rowAbsmax(i))·RN(1/127)).
 * Source: Dettmers et al., LLM.int8(), arXiv:2208.07339. Bytes: doc/formats.md#int8. */
class Int8Matrix : public QuantizedBase<Int8Matrix> {
 public:
  using Nested = const Int8Matrix&;
  using NestedExpression = Int8Matrix;
  using QuantizedBase<Int8Matrix>::operator=;

  /** 0×0. */
  Int8Matrix() = default;

  /** Quantises each row of \a w by its own absolute maximum; see int8VectorwiseQuant for the error. Explicit, since it
   * loses information. Throws std::invalid_argument on a coefficient that is not finite. */
  template <typename Derived>
  explicit Int8Matrix(const Eigen::MatrixBase<Derived>& w) {
    internal::DirectOrPlain<Derived> direct(w.derived());
    internal::requireFinite("Int8Matrix", internal::viewOf(direct));
    Int8Quantized quantized = int8VectorwiseQuant(direct);
    m_codes = std::move(quantized.codes);
    m_rowAbsmax = std::move(quantized.rowStats);
  }

  /** Does not compile: write W.asDense(), which says that it rounds what was rounded once. */
  template <typename Other>
  explicit Int8Matrix(const QuantizedBase<Other>&) {
    internal::refuseToQuantizeAgain<Other>();
  }

  /** Takes stored codes, row-major n×k, and the absmax of each row (SCB in checkpoints), n finite values ≥ 0.
   * Throws FormatError where they do not fit; \a where names the source. */
  Int8Matrix(Int8Codes codes, Eigen::VectorXf rowAbsmax, const std::string& where = "Int8Matrix")
      : m_codes(std::move(codes)), m_rowAbsmax(std::move(rowAbsmax)) {
    internal::requireRowAbsmax(where, m_rowAbsmax, m_codes.rows());
  }

  Index rows() const { return m_codes.rows(); }
  Index cols() const { return m_codes.cols(); }

  const Int8Codes& codes() const { return m_codes; }
  /** n values in the unit of the matrix. */
  const Eigen::VectorXf& rowAbsmax() const { return m_rowAbsmax; }

  /** Bytes of codes and statistics. */
  Index sizeInBytes() const { return m_codes.size() + m_rowAbsmax.size() * Index(sizeof(float)); }

  internal::QuantizedView quantizedView() const {
    return {internal::WeightView::int8(m_codes.data(), rows(), cols(), cols(), m_rowAbsmax.data())};
  }

  /** The same matrix, in whose products X·Wᵀ and W·X the tokens are quantised to int8 too (LLM.int8()).
   * \param threshold  magnitude from which on a feature of X is an outlier and is multiplied in full precision; 0: none
   * is. The result refers to this matrix. */
  ThresholdedInt8 withThreshold(float threshold) const&;
  void withThreshold(float threshold) const&& = delete;  // of a temporary it would dangle

  /** One line of facts, then the dequantised values, or the corner of a large matrix. */
  friend std::ostream& operator<<(std::ostream& os, const Int8Matrix& w) {
    return internal::printQuantized(os, w, "Int8Matrix", "one absmax a row");
  }

 private:
  Int8Codes m_codes;
  Eigen::VectorXf m_rowAbsmax;
};

/** An Int8Matrix W, n×k, that multiplies as LLM.int8() does. In X·Wᵀ (tokens as rows) and W·X (tokens as columns) each
 * token is quantised to int8 by its own absolute maximum and multiplied with the codes of W in integers, but for the
 * features in which a magnitude reaches the threshold in any token: these are multiplied as they are, with decoded
 * weights. Bias, activation and further terms join the kernel as for W itself. Error: half a step of each token,
 * absmax/254, times Σ|w|, besides that of W's own codes.
 *
 * In all else it is W: products that sum over W's rows, G·W and Wᵀ·G (those of the backward pass), multiply by the
 * dequantised values, since the scales of the rows stand inside such a sum; so do assignments and coefficients. A token
 * that holds a NaN gives NaN, as does one with an infinity that is no outlier.
 * Source: Dettmers et al., LLM.int8(), arXiv:2208.07339, section 3.2. */
class ThresholdedInt8 : public QuantizedBase<ThresholdedInt8> {
 public:
  using Nested = ThresholdedInt8;
  using NestedExpression = ThresholdedInt8;
  using QuantizedBase<ThresholdedInt8>::operator=;

  ThresholdedInt8(const Int8Matrix& w, float threshold) : m_w(w), m_threshold(threshold) {
    eigen_assert(threshold >= 0 && "withThreshold: the outlier threshold is negative or NaN");
  }

  Index rows() const { return m_w.rows(); }
  Index cols() const { return m_w.cols(); }
  float threshold() const { return m_threshold; }
  /** The codes. */
  const Int8Matrix& weight() const { return m_w; }

  internal::QuantizedView quantizedView() const {
    internal::QuantizedView view = m_w.quantizedView();
    view.weights.int8Activations = true;
    view.weights.outlierThreshold = m_threshold;
    return view;
  }

 private:
  const Int8Matrix& m_w;
  float m_threshold;
};

inline ThresholdedInt8 Int8Matrix::withThreshold(float threshold) const& { return {*this, threshold}; }

}  // namespace EigenQ

#endif  // EIGENQ_INT8MATRIX_H
