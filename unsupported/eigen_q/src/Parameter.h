// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_PARAMETER_H
#define EIGENQ_PARAMETER_H

#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>

#include <Eigen/Core>

#include "Place.h"

namespace EigenQ {
namespace ad {

/** What backward() checks of a parameter, whatever its scalar. */
class ParameterRecord {
 public:
  const std::string& name() const { return m_name; }

  /** Grows with every write access to the value. */
  std::uint64_t version() const { return m_version; }

 protected:
  ParameterRecord() = default;
  explicit ParameterRecord(std::string name) : m_name(std::move(name)) {}
  ParameterRecord(ParameterRecord&&) noexcept = default;
  ParameterRecord& operator=(ParameterRecord&&) noexcept = default;
  ~ParameterRecord() = default;

  std::string m_name;
  std::uint64_t m_version = 0;
};

/** A trainable matrix that outlives the tape: a value, its gradient and a name.
 *
 * Gradients add up over backward() calls until zeroGrad(). A tape and an optimiser refer to a parameter by address:
 * it stays where it is from its first use until Tape::clear() or the optimiser's end. */
template <typename Scalar_, typename Place_>
class Parameter : public ParameterRecord {
 public:
  using Scalar = Scalar_;
  using Place = Place_;
  using Matrix = typename Place::template Matrix<Scalar>;
  using Map = typename Place::template Map<Scalar>;

  Parameter() = default;

  /** \param value  evaluated into the parameter, any dense expression; copied to the device for a parameter there.
   * \param requiresGrad  false freezes the parameter: no gradient is stored or computed. */
  template <typename Derived>
  explicit Parameter(const Eigen::DenseBase<Derived>& value, std::string name = {}, bool requiresGrad = true)
      : ParameterRecord(std::move(name)), m_value(Place::template fromHost<Scalar>(value)) {
    setRequiresGrad(requiresGrad);
  }

  /** A copy in another place: value, name and whether it takes a gradient. From a device it waits for the current
   * context. */
  template <typename Other, std::enable_if_t<!std::is_same_v<Other, Place>, int> = 0>
  explicit Parameter(const Parameter<Scalar, Other>& p)
      : Parameter(Other::toHost(p.value()), p.name(), p.requiresGrad()) {}

  Parameter(Parameter&&) noexcept = default;
  Parameter& operator=(Parameter&&) noexcept = default;

  Eigen::Index rows() const { return m_value.rows(); }
  Eigen::Index cols() const { return m_value.cols(); }
  Eigen::Index size() const { return m_value.size(); }

  const Matrix& value() const { return m_value; }

  /** Write access. It marks the value as modified, so that a backward() over a graph which read the old value throws
   * instead of mixing the two. A Map: a parameter keeps its shape. */
  Map mutableValue() {
    ++m_version;
    return mapOf(m_value);
  }

  /** The gradient, in the shape of the value; 0×0 while requiresGrad() is false. */
  const Matrix& grad() const { return m_grad; }
  Map mutableGrad() { return mapOf(m_grad); }

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
    m_grad = requiresGrad ? Matrix(rows(), cols()) : Matrix();
    if (requiresGrad) m_grad.setZero();
    ++m_version;
  }

 private:
  template <typename, typename>
  friend class Tape;

  static Map mapOf(Matrix& m) { return Place::map(Place::pointerTo(m), m.rows(), m.cols()); }

  Matrix m_value;
  Matrix m_grad;
  bool m_requiresGrad = true;
  bool m_hasGrad = false;
};

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_PARAMETER_H
