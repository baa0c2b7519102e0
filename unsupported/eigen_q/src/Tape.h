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
#include "Place.h"
#include "Random.h"
#include "Var.h"

namespace EigenQ {
namespace ad {

namespace internal {
template <typename Scalar, typename Place>
class Segment;

inline std::size_t countOf(Eigen::Index rows, Eigen::Index cols) {
  return static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols);
}
}  // namespace internal

/** A matrix in the tape's arena that no node owns yet: fill it, then record() it without a copy, or capture it in a
 * pullback as a saved value. Copying it copies the pointer; assigning to it writes the entries. Lives until clear(). */
template <typename Scalar, typename Place>
class ArenaMatrix : public Place::template Map<Scalar> {
 public:
  using Base = typename Place::template Map<Scalar>;
  using Base::Base;
  using Base::operator=;
  explicit ArenaMatrix(const Base& map) : Base(map) {}
  ArenaMatrix(const ArenaMatrix&) = default;
  ArenaMatrix& operator=(const ArenaMatrix& other) {
    Base::operator=(other);
    return *this;
  }
};

/** Records matrix operations and runs them backwards (reverse mode).
 *
 * Every op appends one node: a value, and, where a gradient is wanted, a pullback. Nodes stand in the order of their
 * creation, which is a topological order, so backward() is one walk from the end. Values stay until clear(); the
 * gradient of a result is given back when its pullback has run. clear() empties the tape's memory but keeps it: from
 * the second identical step on nothing is allocated.
 *
 * One tape belongs to one thread at a time. Scalar is float, or double for gradient checks on the host.
 * \tparam Place_  Host, or Device (unsupported/eigen_q/AutodiffCuda) */
template <typename Scalar_, typename Place_>
class Tape {
 public:
  using Scalar = Scalar_;
  using Place = Place_;
  using Matrix = typename Place::template Matrix<Scalar>;
  using Map = typename Place::template Map<Scalar>;
  using ConstMap = typename Place::template ConstMap<Scalar>;
  using Integers = typename Place::Integers;
  using Variable = Var<Scalar, Place>;
  using Uninitialised = ArenaMatrix<Scalar, Place>;

  /** \param seed  of the random ops, see setSeed(). On a device: work is queued on the current context. */
  explicit Tape(std::uint64_t seed = 0) { setSeed(seed); }
  /** On a device: all work is queued on \a context, which outlives the tape. */
  template <typename P = Place>
  explicit Tape(typename P::Context& context, std::uint64_t seed = 0) : m_memory(context) {
    setSeed(seed);
  }
  ~Tape() { destroyPayloads(); }
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  /** A value without gradient. \a value is copied, to the device too. */
  template <typename Xpr>
  Variable constant(const Xpr& value) {
    return append("constant", copy(value), false);
  }

  /** A leaf with a gradient on the tape, read with Var::grad(). \a value is copied. */
  template <typename Xpr>
  Variable variable(const Xpr& value) {
    return append("variable", copy(value), true);
  }

  /** A leaf that reads the parameter in place and accumulates into Parameter::grad(). */
  Variable parameter(Parameter<Scalar, Place>& p);

  /** A float parameter on a 16-bit tape: a copy rounded to Scalar, made once between two clear() for each value, inside
   * a checkpoint too. Contributions of one backward() add up in Scalar, and that sum is added to Parameter::grad() in
   * float. */
  template <typename Master, std::enable_if_t<internal::kIsMasterOf<Master, Scalar>, int> = 0>
  Variable parameter(Parameter<Master, Place>& p);

  /** \returns an uninitialised matrix in the arena. */
  Uninitialised newMatrix(Eigen::Index rows, Eigen::Index cols) {
    eigen_assert(rows >= 0 && cols >= 0);
    return Uninitialised(Place::map(m_memory.template allocate<Scalar>(internal::countOf(rows, cols)), rows, cols));
  }

  /** y = or += a dense expression that does not read y, for ops that write matrices themselves; on a device queued.
   * Products of floats on the host run in the library's kernels. */
  template <typename Xpr>
  void store(const Map& y, const Xpr& xpr, bool accumulate = false) {
    m_memory.template store<Scalar>(y, xpr, accumulate);
  }

  /** Copies integers (token ids, offsets) into the arena, for a pullback to capture; on a device uploads them, once
   * between two clear() for each content. */
  Integers keep(const Eigen::Ref<const Eigen::VectorXi>& integers) { return m_memory.keep(integers); }

  /** Ops that assign to matrices themselves do so while this lives: on a device it makes the tape's context current.
   * Pullbacks run inside one. */
  auto scope() const { return typename Place::Memory::Scope(m_memory); }

  /** On a device: where all work is queued. */
  auto& context() const { return m_memory.context(); }
  typename Place::Memory& memory() { return m_memory; }

  /** Appends an op.
   * \param name  a literal, for messages.
   * \param inputs  whatever a gradient may flow to; false Vars are skipped.
   * \param value  a dense expression, evaluated here; an ArenaMatrix is taken over without a copy.
   * \param pullback  called by backward() as pullback(dy) or pullback(dy, y), with the gradient and the value of the
   *   result as matrices; adds to the inputs with Var::addGrad(). Kept, and destroyed by clear(), only if an input
   *   requires a gradient. Captures by value; what it captures by reference outlives the tape's next clear().
   * Throws std::logic_error for an input of another tape or of the time before clear(). */
  template <typename Xpr, typename Pullback>
  Variable record(const char* name, std::initializer_list<Variable> inputs, const Xpr& value, Pullback&& pullback) {
    static_assert(!Place::template kIsElsewhere<Xpr>, "EigenQ::ad: an op on a device tape has its value on the device");
    return record(name, inputs, copy(value), std::forward<Pullback>(pullback));
  }
  template <typename Pullback>
  Variable record(const char* name, std::initializer_list<Variable> inputs, const Uninitialised& value,
                  Pullback&& pullback);

  /** Whether a record() over these inputs would keep its pullback: an op saves intermediate values only then. */
  bool needsGrad(std::initializer_list<Variable> inputs) const { return dependsOnGrad(inputs) && !m_forwardOnly; }

  /** Computes the gradient of a 1×1 \a loss with respect to every leaf it depends on, added to what the leaves hold.
   * Throws std::logic_error if \a loss needs no gradient, or if a parameter was modified since its value was read, and
   * std::invalid_argument if \a loss is not 1×1. Nothing is added in these cases. */
  void backward(const Variable& loss) {
    const Node& n = node(loss);
    if (n.rows != 1 || n.cols != 1)
      throw std::invalid_argument("Tape::backward: expected a 1x1 loss, found " + std::to_string(n.rows) + "x" +
                                  std::to_string(n.cols) + " from '" + n.name + "'");
    backward(loss, m_one);
  }

  /** The same from a \a y of any shape, starting from dL/dy = \a seed. */
  template <typename Xpr>
  void backward(const Variable& y, const Xpr& seed);

  /** Appends what run() returns, a Var, and forgets how it came about: backward() calls run() again, with the random
   * streams of the first time. See ops/checkpoint.h. \param run  kept by value, called as const. */
  template <typename Run>
  Variable checkpoint(Run run);

  /** Forgets every node, destroys every payload and keeps the memory. Vars made before become invalid. The random
   * streams go on, so that the next step draws other dropout masks. */
  void clear();

  /** Restarts the random streams: dropout masks depend on the seed and on the number of random ops since. */
  void setSeed(std::uint64_t seed) { m_random = {seed, 0}; }
  RandomStream nextRandomStream() {
    const RandomStream stream = randomStreams();
    ++m_random.stream;
    m_randomReplay.count(m_random);
    return stream;
  }
  /** On a device, before each replay of a graph in which ops of this tape were captured: gives its random ops the
   * streams that they would have if they ran now for the first time. The capture itself takes none. Of several
   * captures, the last counts. */
  void prepareReplay() { m_randomReplay.prepare(m_random, m_memory); }

  /** What NoGradGuard sets. */
  bool gradEnabled() const { return m_gradEnabled; }
  void setGradEnabled(bool enabled) { m_gradEnabled = enabled; }

  std::size_t nodeCount() const { return m_nodes.size(); }
  /** Bytes of matrices, where they live. */
  std::size_t bytesReserved() const { return m_memory.bytesReserved(); }

 private:
  friend class Var<Scalar, Place>;
  friend class internal::Segment<Scalar, Place>;
  using Pointer = typename Place::template Pointer<Scalar>;
  using ConstPointer = typename Place::template Pointer<const Scalar>;

  struct Node {
    const char* name;
    ConstPointer value;
    Eigen::Index rows;
    Eigen::Index cols;
    Pointer grad{};              // pooled; allocated when the first contribution arrives
    std::uint32_t generation{};  // of the Vars that stand for this node
    bool requiresGrad = false;
    bool hasGrad = false;      // whether grad holds a contribution of this backward(); for leaves, of any
    bool retainsGrad = false;  // beyond its pullback
    bool ownsValue = false;    // the value is pooled, and given back with the node

    Parameter<Scalar, Place>* parameter = nullptr;  // owns the gradient of its leaf
    const ParameterRecord* source = nullptr;        // whose value is read, at parameterVersion
    std::uint64_t parameterVersion = 0;

    void* payload = nullptr;
    void (*pull)(Tape& tape, void* payload, const ConstMap& dy, const ConstMap& y) = nullptr;
    void (*destroy)(void* payload) = nullptr;
  };

  /** A parameter that was read in a segment that is forgotten, on behalf of the node that will read it again. */
  struct Read {
    const ParameterRecord* source;
    std::uint64_t version;
    std::size_t node;
  };

  template <typename Xpr>
  Uninitialised copy(const Xpr& value) {
    static_assert(std::is_same_v<typename Xpr::Scalar, Scalar>,
                  "EigenQ::ad: the scalar type of the value differs from the tape's; use .template cast<Scalar>()");
    Uninitialised m = newMatrix(value.rows(), value.cols());
    m_memory.template store<Scalar>(m, value, /*accumulate=*/false);
    return m;
  }

  Variable append(const char* name, const Uninitialised& value, bool requiresGrad);
  Variable append(const Node& node);
  template <typename Pullback>
  void attach(Node& node, Pullback&& pullback);

  Node& node(const Variable& v) { return m_nodes[check(v)]; }
  const Node& node(const Variable& v) const { return m_nodes[check(v)]; }
  std::size_t check(const Variable& v) const;
  Variable varOf(std::size_t id) { return Variable(this, static_cast<std::uint32_t>(id), m_nodes[id].generation); }
  bool dependsOnGrad(std::initializer_list<Variable> inputs) const;
  typename Variable::GradTarget gradTarget(Node& node);
  void checkGradIsKept(const Node& node) const;
  void releaseGrad(Node& node);
  void checkIdle(const char* function) const;
  void checkParameters(std::size_t last) const;
  void walk(std::size_t last, std::size_t first = 0);
  template <typename Run>
  void replay(const Run& run, const RandomStream& random, std::size_t result);
  const RandomStream& randomStreams() {
    m_randomReplay.follow(m_random, m_memory);
    return m_random;
  }
  void destroyPayloads(std::size_t first = 0);

  std::vector<Node> m_nodes;
  std::vector<std::uint32_t> m_roundedParameters;  // their nodes
  std::vector<Read> m_reads;                       // in the order of their nodes
  typename Place::Memory m_memory;
  Matrix m_one = m_memory.template one<Scalar>();  // dloss/dloss
  RandomStream m_random;                           // that of the next random op
  internal::RandomReplay<Place> m_randomReplay;
  std::uint32_t m_generation = 0;  // of the nodes to come: another one whenever nodes are forgotten
  std::uint32_t m_cleared = 0;     // the first generation since clear()
  int m_segments = 0;              // open ones
  bool m_gradEnabled = true;
  bool m_forwardOnly = false;  // in a segment that backward() replays: no pullback is kept
  bool m_inBackward = false;
};

/** Temporaries of one op or pullback, in memory that the next op uses again. Frames nest like scopes. */
template <typename Scalar, typename Place>
class Scratch {
 public:
  explicit Scratch(Tape<Scalar, Place>& tape) : m_memory(tape.memory()), m_mark(m_memory.mark()) {}
  ~Scratch() { m_memory.rewind(m_mark); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  /** \returns an uninitialised matrix that lives as long as this frame. */
  typename Place::template Map<Scalar> matrix(Eigen::Index rows, Eigen::Index cols) {
    return Place::map(m_memory.template allocateScratch<Scalar>(internal::countOf(rows, cols)), rows, cols);
  }
  Eigen::Map<Eigen::ArrayXX<Scalar>> array(Eigen::Index rows, Eigen::Index cols) {
    return {matrix(rows, cols).data(), rows, cols};
  }
  /** \returns room for \a n objects, uninitialised, for as long. */
  template <typename T>
  T* allocate(Eigen::Index n) {
    return m_memory.template allocateScratch<T>(static_cast<std::size_t>(n));
  }

 private:
  typename Place::Memory& m_memory;
  typename Place::Memory::Mark m_mark;
};

namespace internal {
/** Where a kernel of the library leaves the gradient of \a x; it writes every entry. */
inline EigenQ::internal::FloatGradient floatGradient(const Var<float>& x) {
  if (!x.requiresGrad()) return {};
  const auto target = x.gradTarget();
  return {const_cast<float*>(target.grad.data()), target.accumulate};
}
}  // namespace internal

}  // namespace ad
}  // namespace EigenQ

#include "TapeImpl.h"
#include "TapeCheckpoint.h"

#endif  // EIGENQ_TAPE_H
