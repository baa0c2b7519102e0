// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_PARAMETER_H
#define EIGENQ_PARAMETER_H

#include <cstdint>
#include <string>
#include <utility>

#include <Eigen/Core>

namespace EigenQ {
namespace ad {

template <typename Scalar>
class Tape;
template <typename Scalar>
class Var;

/** A trainable matrix that outlives the tape: a value, its gradient and a name.
 *
 * Gradients add up over backward() calls until zeroGrad(). A tape and an optimiser refer to a parameter by address:
 * it stays where it is from its first use until Tape::clear() or the optimiser's end. */
template <typename Scalar_>
class Parameter {
 public:
  using Scalar = Scalar_;
  using Matrix = Eigen::MatrixX<Scalar>;

  Parameter() = default;

  /** \param value  evaluated into the parameter, any dense expression.
   * \param requiresGrad  false freezes the parameter: no gradient is stored or computed. */
  template <typename Derived>
  explicit Parameter(const Eigen::DenseBase<Derived>& value, std::string name = {}, bool requiresGrad = true)
      : m_value(value.derived()), m_name(std::move(name)) {
    setRequiresGrad(requiresGrad);
  }

  Parameter(Parameter&&) noexcept = default;
  Parameter& operator=(Parameter&&) noexcept = default;

  Eigen::Index rows() const { return m_value.rows(); }
  Eigen::Index cols() const { return m_value.cols(); }
  Eigen::Index size() const { return m_value.size(); }
  const std::string& name() const { return m_name; }

  const Matrix& value() const { return m_value; }

  /** Write access. It marks the value as modified, so that a backward() over a graph which read the old value throws
   * instead of mixing the two. A Map: a parameter keeps its shape. */
  Eigen::Map<Matrix> mutableValue() {
    ++m_version;
    return Eigen::Map<Matrix>(m_value.data(), rows(), cols());
  }

  /** The gradient, in the shape of the value; 0×0 while requiresGrad() is false. */
  const Matrix& grad() const { return m_grad; }
  Eigen::Map<Matrix> mutableGrad() { return Eigen::Map<Matrix>(m_grad.data(), m_grad.rows(), m_grad.cols()); }

  /** Whether a backward() has reached this parameter since zeroGrad(). Optimisers leave the others alone. */
  bool hasGrad() const { return m_hasGrad; }

  /** Sets the gradient to zero; the next contribution then assigns rather than adds. */
  void zeroGrad() {
    m_grad.setZero();
    m_hasGrad = false;
  }

  bool requiresGrad() const { return m_requiresGrad; }
  void setRequiresGrad(bool requiresGrad) {
    m_requiresGrad = requiresGrad;
    m_hasGrad = false;
    if (requiresGrad)
      m_grad.setZero(rows(), cols());
    else
      m_grad.resize(0, 0);
    ++m_version;
  }

  /** Grows with every write access. */
  std::uint64_t version() const { return m_version; }

 private:
  friend class Tape<Scalar>;

  Matrix m_value;
  Matrix m_grad;
  std::string m_name;
  std::uint64_t m_version = 0;
  bool m_requiresGrad = true;
  bool m_hasGrad = false;
};

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_PARAMETER_H
