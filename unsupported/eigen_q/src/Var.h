// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_VAR_H
#define EIGENQ_VAR_H

#include <cstdint>
#include <type_traits>

#include <Eigen/Core>

#include "Parameter.h"

namespace EigenQ {
namespace ad {

/** Handle to one matrix on a tape, 16 bytes, passed and captured by value.
 *
 * Valid until Tape::clear(), and, where it was made by the function of a checkpoint(), until that returns; any use
 * after that throws std::logic_error. The tape outlives the handle. */
template <typename Scalar_, typename Place_>
class Var {
 public:
  using Scalar = Scalar_;
  using Place = Place_;
  using Matrix = typename Place::template Matrix<Scalar>;
  using Map = typename Place::template Map<Scalar>;
  using ConstMap = typename Place::template ConstMap<Scalar>;

  /** Where one contribution to a gradient goes: added if accumulate, else assigned (the target is uninitialised). */
  struct GradTarget {
    Map grad;
    bool accumulate;
  };

  /** No matrix at all: false in a condition; reading it throws. */
  Var() = default;
  explicit operator bool() const { return m_tape != nullptr; }

  Eigen::Index rows() const;
  Eigen::Index cols() const;
  Eigen::Index size() const { return rows() * cols(); }

  /** The value; written once, when the node is recorded. */
  ConstMap value() const;

  /** The value of a 1×1 matrix. On a device it waits for the stream. */
  Scalar item() const;

  bool requiresGrad() const;

  /** The gradient of a leaf: what all backward() calls left here, zero where none arrived. Of the result of an op it is
   * there after retainGrad() only, as the last backward() left it; and for pullbacks, which may add to the gradient of
   * an input, or to a block of it. Throws std::logic_error where there is none to read. */
  Map grad() const;

  /** Keeps the gradient of an op's result, which backward() otherwise gives back once it has been used. Before
   * backward(). Throws std::logic_error where requiresGrad() is false. */
  void retainGrad() const;

  /** Adds a dense expression to the gradient; costs nothing, not even the expression, where requiresGrad() is false.
   * The expression must not read this gradient. */
  template <typename Xpr>
  void addGrad(const Xpr& contribution) const;

  /** For kernels that write a gradient themselves. The caller has checked requiresGrad() and writes every entry. */
  GradTarget gradTarget() const;

  /** The same value, without its history: nothing flows back through the result. No copy. */
  Var detach() const;

  /** Throws std::logic_error for a default-constructed Var. */
  Tape<Scalar, Place>& tape() const;

 private:
  friend class ad::Tape<Scalar, Place>;
  Var(Tape<Scalar, Place>* tape, std::uint32_t id, std::uint32_t generation)
      : m_tape(tape), m_id(id), m_generation(generation) {}

  Tape<Scalar, Place>* m_tape = nullptr;
  std::uint32_t m_id = 0;
  std::uint32_t m_generation = 0;
};

namespace internal {
/** Whether parameters of this scalar may stand beside a tape of another: in float, where steps are too small to show in
 * 16 bits. */
template <typename Master, typename Scalar>
constexpr bool kIsMasterOf = std::is_same_v<Master, float> && sizeof(Scalar) == 2;
}  // namespace internal

/** What an op takes where a trainable matrix may stand: a Var, a Parameter, or nothing. */
template <typename Scalar, typename Place = Host>
class Operand {
 public:
  Operand() = default;
  Operand(const Var<Scalar, Place>& var) : m_var(var) {}
  Operand(Parameter<Scalar, Place>& parameter) : m_parameter(&parameter) {}
  template <typename Master, std::enable_if_t<internal::kIsMasterOf<Master, Scalar>, int> = 0>
  Operand(Parameter<Master, Place>& parameter)
      : m_master(&parameter), m_round([](Tape<Scalar, Place>& tape, void* master) {
          return tape.parameter(*static_cast<Parameter<Master, Place>*>(master));
        }) {}
  // A const parameter could take no gradient: better no program than one that silently trains nothing.
  Operand(const Parameter<Scalar, Place>&) = delete;

  /** The operand as a Var on \a tape; a false Var if there is none. Throws std::logic_error if it lives on another. */
  Var<Scalar, Place> on(Tape<Scalar, Place>& tape) const;

 private:
  Var<Scalar, Place> m_var;
  Parameter<Scalar, Place>* m_parameter = nullptr;
  void* m_master = nullptr;  // a parameter of another scalar, and what makes a Var of it
  Var<Scalar, Place> (*m_round)(Tape<Scalar, Place>&, void*) = nullptr;
};

namespace internal {
template <typename T>
struct NonDeduced {
  using type = T;
};
}  // namespace internal

/** An Operand whose Scalar follows from the other arguments, so that a Parameter converts to it. */
template <typename Scalar, typename Place = Host>
using OperandArg = typename internal::NonDeduced<Operand<Scalar, Place>>::type;

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_VAR_H
