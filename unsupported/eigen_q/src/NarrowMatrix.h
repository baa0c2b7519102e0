// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_AD_NARROW_MATRIX_H
#define EIGENQ_AD_NARROW_MATRIX_H

#include <algorithm>
#include <cstdint>
#include <vector>

#include <Eigen/Core>

#include <eigen_q/src/EigenViews.h>
#include <eigen_q/src/ScalarConvert.h>

namespace EigenQ {
namespace ad {

/** A dense matrix in memory as a frozen weight of linear() and loraLinear(); what it refers to outlives the tape's next
 * clear(). */
struct FrozenFloats {
  EigenQ::internal::ConstDenseView view;  // float, half or bfloat16

  Eigen::Index rows() const { return view.rows; }
  Eigen::Index cols() const { return view.cols; }
  FrozenFloats transpose() const { return {view.transpose()}; }
};

/** Floats that bfloat16 or half hold as well, kept in 16 bits: a checkpoint of such numbers takes half the memory, and
 * half the time where reading it is what takes time. Products widen them on the way, so that results are those of the
 * floats. On the host. */
class NarrowMatrix {
 public:
  /** No matrix at all: false in a condition. */
  NarrowMatrix() = default;
  /** \a value in 16 bits; false in a condition if neither type holds all of it. */
  explicit NarrowMatrix(const Eigen::Ref<const Eigen::MatrixXf>& value) {
    using namespace EigenQ::internal;
    if (!narrow<ScalarType::kBFloat16>(value)) narrow<ScalarType::kHalf>(value);
  }

  explicit operator bool() const { return !m_bits.empty(); }
  Eigen::Index rows() const { return m_rows; }
  Eigen::Index cols() const { return m_cols; }
  ScalarType scalar() const { return m_scalar; }
  Eigen::Index sizeInBytes() const { return static_cast<Eigen::Index>(m_bits.size() * sizeof(std::uint16_t)); }

  FrozenFloats operand() const { return {{m_bits.data(), m_scalar, m_rows, m_cols, 1, m_rows}}; }

  /** Column \a j as floats. */
  void copyColumn(Eigen::Index j, float* out) const {
    const std::uint16_t* const column = m_bits.data() + j * m_rows;
    std::transform(column, column + m_rows, out, [this](std::uint16_t bits) { return widened(bits); });
  }
  Eigen::MatrixXf toFloat() const {
    Eigen::MatrixXf m(m_rows, m_cols);
    for (Eigen::Index j = 0; j < m_cols; ++j) copyColumn(j, m.col(j).data());
    return m;
  }

 private:
  float widened(std::uint16_t bits) const {
    return m_scalar == ScalarType::kHalf ? EigenQ::internal::halfToFloat(bits)
                                         : EigenQ::internal::bfloat16ToFloat(bits);
  }

  /** \returns whether every value came back to the bit; otherwise nothing is kept. */
  template <ScalarType kScalar>
  bool narrow(const Eigen::Ref<const Eigen::MatrixXf>& value) {
    using Traits = EigenQ::internal::ScalarTraits<kScalar>;
    const auto fits = [](float v) {
      return EigenQ::internal::bitsOf(Traits::toFloat(Traits::fromFloat(v))) == EigenQ::internal::bitsOf(v);
    };
    for (Eigen::Index j = 0; j < value.cols(); ++j)  // most matrices are decided by the first column
      if (!std::all_of(value.col(j).data(), value.col(j).data() + value.rows(), fits)) return false;
    m_scalar = kScalar;
    m_rows = value.rows();
    m_cols = value.cols();
    m_bits.resize(static_cast<std::size_t>(value.size()));
    for (Eigen::Index j = 0; j < m_cols; ++j)
      std::transform(value.col(j).data(), value.col(j).data() + m_rows, m_bits.data() + j * m_rows, Traits::fromFloat);
    return true;
  }

  std::vector<std::uint16_t> m_bits;  // column after column
  Eigen::Index m_rows = 0, m_cols = 0;
  ScalarType m_scalar = ScalarType::kBFloat16;
};

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_AD_NARROW_MATRIX_H
