// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_INT8MATRIX_H
#define EIGENQ_INT8MATRIX_H

#include "QuantizedBase.h"
#include "QuantizedIO.h"
#include "Quantize.h"

#include <utility>

namespace EigenQ {
class Int8Matrix;
}

namespace Eigen {
namespace internal {
template <>
struct traits<EigenQ::Int8Matrix> : EigenQ::internal::QuantizedTraits<RowMajorBit | NestByRefBit> {};
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

  /** One line of facts, then the dequantised values, or the corner of a large matrix. */
  friend std::ostream& operator<<(std::ostream& os, const Int8Matrix& w) {
    return internal::printQuantized(os, w, "Int8Matrix", "one absmax a row");
  }

 private:
  Int8Codes m_codes;
  Eigen::VectorXf m_rowAbsmax;
};

}  // namespace EigenQ

#endif  // EIGENQ_INT8MATRIX_H
