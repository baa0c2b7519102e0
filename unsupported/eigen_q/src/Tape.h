// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_TAPE_H
#define EIGENQ_TAPE_H

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <new>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <Eigen/Core>

#include "Arena.h"
#include "Parameter.h"
#include "Random.h"
#include "Var.h"

namespace EigenQ {
namespace ad {

template <typename Scalar>
class Scratch;

/** A matrix in the tape's arena that no node owns yet: fill it, then record() it without a copy, or capture it in a
 * pullback as a saved value. Copying it copies the pointer; assigning to it writes the entries. Lives until clear(). */
template <typename Scalar_>
class ArenaMatrix : public Eigen::Map<Eigen::MatrixX<Scalar_>> {
 public:
  using Base = Eigen::Map<Eigen::MatrixX<Scalar_>>;
  using Base::Base;
  using Base::operator=;
  ArenaMatrix(const ArenaMatrix&) = default;
  ArenaMatrix& operator=(const ArenaMatrix& other) {
    Base::operator=(other);
    return *this;
  }
};

namespace internal {
/** Products and coefficient-wise expressions alike as something that can be assigned to a matrix. */
template <typename Xpr>
decltype(auto) asMatrix(const Xpr& xpr) {
  if constexpr (std::is_base_of_v<Eigen::ArrayBase<Xpr>, Xpr>)
    return xpr.matrix();
  else
    return (xpr);
}
}  // namespace internal

/** Records matrix operations and runs them backwards (reverse mode).
 *
 * Every op appends one node: a value, and, where a gradient is wanted, a pullback. Nodes stand in the order of their
 * creation, which is a topological order, so backward() is one walk from the end. All memory comes from arenas that
 * clear() empties but keeps: from the second identical step on nothing is allocated.
 *
 * One tape belongs to one thread at a time. Scalar is float, or double for gradient checks. */
template <typename Scalar_>
class Tape {
 public:
  using Scalar = Scalar_;
  using Matrix = Eigen::MatrixX<Scalar>;
  using ConstMap = Eigen::Map<const Matrix>;
  using Variable = Var<Scalar>;

  /** \param seed  of the random ops, see setSeed(). */
  explicit Tape(std::uint64_t seed = 0) { setSeed(seed); }
  ~Tape() { destroyPayloads(); }
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  /** A value without gradient. \a value is copied. */
  template <typename Derived>
  Variable constant(const Eigen::DenseBase<Derived>& value) {
    return append("constant", copy(value.derived()), false);
  }

  /** A leaf with a gradient on the tape, read with Var::grad(). \a value is copied. */
  template <typename Derived>
  Variable variable(const Eigen::DenseBase<Derived>& value) {
    return append("variable", copy(value.derived()), true);
  }

  /** A leaf that reads the parameter in place and accumulates into Parameter::grad(). */
  Variable parameter(Parameter<Scalar>& p);

  /** \returns an uninitialised matrix in the arena. */
  ArenaMatrix<Scalar> newMatrix(Eigen::Index rows, Eigen::Index cols) {
    eigen_assert(rows >= 0 && cols >= 0);
    return {m_values.allocate<Scalar>(static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols)), rows, cols};
  }

  /** Copies integers (token ids, offsets) into the arena, for a pullback to capture. */
  Eigen::Map<const Eigen::VectorXi> keep(const Eigen::Ref<const Eigen::VectorXi>& integers) {
    int* const data = m_values.allocate<int>(static_cast<std::size_t>(integers.size()));
    Eigen::Map<Eigen::VectorXi>(data, integers.size()) = integers;
    return {data, integers.size()};
  }

  /** Appends an op.
   * \param name  a literal, for messages.
   * \param inputs  whatever a gradient may flow to; false Vars are skipped.
   * \param value  a dense expression, evaluated here; an ArenaMatrix is taken over without a copy.
   * \param pullback  called by backward() as pullback(dy) or pullback(dy, y), with the gradient and the value of the
   *   result as matrices; adds to the inputs with Var::addGrad(). Kept, and destroyed by clear(), only if an input
   *   requires a gradient. Captures by value; what it captures by reference outlives the tape's next clear().
   * Throws std::logic_error for an input of another tape or of the time before clear(). */
  template <typename Derived, typename Pullback>
  Variable record(const char* name, std::initializer_list<Variable> inputs, const Eigen::DenseBase<Derived>& value,
                  Pullback&& pullback) {
    return record(name, inputs, copy(value.derived()), std::forward<Pullback>(pullback));
  }
  template <typename Pullback>
  Variable record(const char* name, std::initializer_list<Variable> inputs, const ArenaMatrix<Scalar>& value,
                  Pullback&& pullback);

  /** Whether a record() over these inputs would keep its pullback: an op saves intermediate values only then. */
  bool needsGrad(std::initializer_list<Variable> inputs) const;

  /** Computes the gradient of a 1×1 \a loss with respect to every leaf it depends on, added to what the leaves hold.
   * Throws std::logic_error if \a loss needs no gradient, or if a parameter was modified since its value was read, and
   * std::invalid_argument if \a loss is not 1×1. Nothing is added in these cases. */
  void backward(const Variable& loss) {
    const Node& n = node(loss);
    if (n.rows != 1 || n.cols != 1)
      throw std::invalid_argument("Tape::backward: expected a 1x1 loss, found " + std::to_string(n.rows) + "x" +
                                  std::to_string(n.cols) + " from '" + n.name + "'");
    backward(loss, Matrix::Ones(1, 1));
  }

  /** The same from a \a y of any shape, starting from dL/dy = \a seed. */
  template <typename Derived>
  void backward(const Variable& y, const Eigen::DenseBase<Derived>& seed);

  /** Forgets every node, destroys every payload and keeps the memory. Vars made before become invalid. The random
   * streams go on, so that the next step draws other dropout masks. */
  void clear();

  /** Restarts the random streams: dropout masks depend on the seed and on the number of random ops since. */
  void setSeed(std::uint64_t seed) { m_random = {seed, 0}; }
  RandomStream nextRandomStream() {
    const RandomStream stream = m_random;
    ++m_random.stream;
    return stream;
  }

  /** What NoGradGuard sets. */
  bool gradEnabled() const { return m_gradEnabled; }
  void setGradEnabled(bool enabled) { m_gradEnabled = enabled; }

  std::size_t nodeCount() const { return m_nodes.size(); }
  std::size_t bytesReserved() const { return m_values.bytesReserved() + m_scratch.bytesReserved(); }

 private:
  friend class Var<Scalar>;
  friend class Scratch<Scalar>;

  struct Node {
    const char* name;
    const Scalar* value;
    Eigen::Index rows;
    Eigen::Index cols;
    Scalar* grad = nullptr;  // allocated when the first contribution arrives
    bool requiresGrad = false;
    bool hasGrad = false;  // whether grad holds a contribution of this backward(); for leaves, of any

    Parameter<Scalar>* parameter = nullptr;  // owns the gradient of its leaf
    std::uint64_t parameterVersion = 0;

    void* payload = nullptr;
    void (*pull)(void* payload, const ConstMap& dy, const ConstMap& y) = nullptr;
    void (*destroy)(void* payload) = nullptr;
  };

  template <typename Xpr>
  ArenaMatrix<Scalar> copy(const Xpr& value) {
    static_assert(std::is_same_v<typename Xpr::Scalar, Scalar>,
                  "EigenQ::ad: the scalar type of the value differs from the tape's; use .template cast<Scalar>()");
    ArenaMatrix<Scalar> m = newMatrix(value.rows(), value.cols());
    m.noalias() = internal::asMatrix(value);
    return m;
  }

  Variable append(const char* name, const Eigen::Map<Matrix>& value, bool requiresGrad);
  Variable append(const Node& node);
  template <typename Pullback>
  void attach(Node& node, Pullback&& pullback);

  Node& node(const Variable& v) { return m_nodes[check(v)]; }
  const Node& node(const Variable& v) const { return m_nodes[check(v)]; }
  std::size_t check(const Variable& v) const;
  typename Variable::GradTarget gradTarget(Node& node);
  void checkParameters(std::size_t last) const;
  void walk(std::size_t last);
  void destroyPayloads();

  std::vector<Node> m_nodes;
  Arena m_values;   // values, gradients, payloads
  Arena m_scratch;  // what lives no longer than one op
  RandomStream m_random;
  std::uint32_t m_generation = 0;
  bool m_gradEnabled = true;
  bool m_inBackward = false;
};

/** Temporaries of one op or pullback, in memory that the next op uses again. Frames nest like scopes. */
template <typename Scalar>
class Scratch {
 public:
  explicit Scratch(Tape<Scalar>& tape) : m_arena(tape.m_scratch), m_mark(m_arena.mark()) {}
  ~Scratch() { m_arena.rewind(m_mark); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  /** \returns an uninitialised matrix that lives as long as this frame. */
  Eigen::Map<Eigen::MatrixX<Scalar>> matrix(Eigen::Index rows, Eigen::Index cols) {
    return {m_arena.allocate<Scalar>(static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols)), rows, cols};
  }
  Eigen::Map<Eigen::ArrayXX<Scalar>> array(Eigen::Index rows, Eigen::Index cols) {
    return {matrix(rows, cols).data(), rows, cols};
  }

 private:
  Arena& m_arena;
  Arena::Mark m_mark;
};

}  // namespace ad
}  // namespace EigenQ

#include "TapeImpl.h"

#endif  // EIGENQ_TAPE_H
