// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_TAPE_IMPL_H
#define EIGENQ_TAPE_IMPL_H

// Member functions of Tape, Var and Operand. Included by Tape.h only.

#include <utility>

namespace EigenQ {
namespace ad {

namespace internal {
/** Sets a variable, and back when it goes, also by an exception. */
template <typename T>
class Restored {
 public:
  Restored(T& variable, T value) : m_variable(variable), m_previous(std::exchange(variable, value)) {}
  ~Restored() { m_variable = m_previous; }
  Restored(const Restored&) = delete;
  Restored& operator=(const Restored&) = delete;

 private:
  T& m_variable;
  T m_previous;
};
}  // namespace internal

template <typename Scalar, typename Place>
Var<Scalar, Place> Tape<Scalar, Place>::append(const Node& node) {
  if (m_inBackward)
    throw std::logic_error(std::string("Tape: '") + node.name +
                           "' recorded inside a pullback; second derivatives are " + "not supported");
  if (m_nodes.size() >= std::numeric_limits<std::uint32_t>::max()) throw std::length_error("Tape: too many nodes");
  m_nodes.push_back(node);
  m_nodes.back().generation = m_generation;
  return varOf(m_nodes.size() - 1);
}

template <typename Scalar, typename Place>
Var<Scalar, Place> Tape<Scalar, Place>::append(const char* name, const Uninitialised& value, bool requiresGrad) {
  Node n{name, Place::pointerTo(value), value.rows(), value.cols()};
  n.requiresGrad = requiresGrad;
  return append(n);
}

template <typename Scalar, typename Place>
Var<Scalar, Place> Tape<Scalar, Place>::parameter(Parameter<Scalar, Place>& p) {
  Node n{"parameter", Place::pointerTo(p.value()), p.rows(), p.cols()};
  n.requiresGrad = p.requiresGrad();
  n.parameter = &p;
  n.source = &p;
  n.parameterVersion = p.version();
  return append(n);
}

template <typename Scalar, typename Place>
template <typename Master, std::enable_if_t<internal::kIsMasterOf<Master, Scalar>, int>>
Var<Scalar, Place> Tape<Scalar, Place>::parameter(Parameter<Master, Place>& p) {
  for (const std::uint32_t id : m_roundedParameters)
    if (m_nodes[id].source == &p && m_nodes[id].parameterVersion == p.version()) return varOf(id);
  const Pointer rounded = m_memory.template allocatePooled<Scalar>(internal::countOf(p.rows(), p.cols()));
  Node n{"parameter", rounded, p.rows(), p.cols()};
  n.ownsValue = true;
  m_memory.template store<Scalar>(Place::map(rounded, p.rows(), p.cols()), p.value().template cast<Scalar>(),
                                  /*accumulate=*/false);
  n.source = &p;
  n.parameterVersion = p.version();
  n.requiresGrad = p.requiresGrad();
  if (n.requiresGrad) {
    n.payload = &p;
    n.pull = [](Tape& tape, void* master, const ConstMap& dy, const ConstMap&) {
      auto& q = *static_cast<Parameter<Master, Place>*>(master);
      tape.m_memory.template store<Master>(q.mutableGrad(), dy.template cast<Master>(),
                                           std::exchange(q.m_hasGrad, true));
    };
  }
  const Variable y = append(n);
  m_roundedParameters.push_back(y.m_id);
  return y;
}

template <typename Scalar, typename Place>
bool Tape<Scalar, Place>::dependsOnGrad(std::initializer_list<Variable> inputs) const {
  bool needed = false;
  for (const Variable& input : inputs)  // all of them: a foreign Var is an error wherever it stands
    if (input && node(input).requiresGrad) needed = true;
  return needed && m_gradEnabled;
}

template <typename Scalar, typename Place>
template <typename Pullback>
Var<Scalar, Place> Tape<Scalar, Place>::record(const char* name, std::initializer_list<Variable> inputs,
                                               const Uninitialised& value, Pullback&& pullback) {
  const bool needed = dependsOnGrad(inputs);
  const Variable y = append(name, value, needed);
  if (needed && !m_forwardOnly) attach(m_nodes.back(), std::forward<Pullback>(pullback));
  return y;
}

template <typename Scalar, typename Place>
template <typename Pullback>
void Tape<Scalar, Place>::attach(Node& node, Pullback&& pullback) {
  using Payload = std::decay_t<Pullback>;
  node.payload = ::new (m_memory.template allocatePayload<Payload>(1)) Payload(std::forward<Pullback>(pullback));
  node.pull = [](Tape&, void* payload, const ConstMap& dy, const ConstMap& y) {
    Payload& f = *static_cast<Payload*>(payload);
    if constexpr (std::is_invocable_v<Payload&, const ConstMap&, const ConstMap&>) {
      f(dy, y);
    } else {
      static_assert(std::is_invocable_v<Payload&, const ConstMap&>,
                    "EigenQ::ad: a pullback is called as pullback(dy) or pullback(dy, y)");
      (void)y;
      f(dy);
    }
  };
  if constexpr (!std::is_trivially_destructible_v<Payload>)
    node.destroy = [](void* payload) { static_cast<Payload*>(payload)->~Payload(); };
}

template <typename Scalar, typename Place>
std::size_t Tape<Scalar, Place>::check(const Variable& v) const {
  if (v.m_tape != this) throw std::logic_error("Var: used on a tape that is not its own");
  if (v.m_id >= m_nodes.size() || m_nodes[v.m_id].generation != v.m_generation)
    throw std::logic_error(v.m_generation < m_cleared ? "Var: used after Tape::clear()"
                                                      : "Var: used after the checkpoint() in which it was made");
  return v.m_id;
}

template <typename Scalar, typename Place>
typename Var<Scalar, Place>::GradTarget Tape<Scalar, Place>::gradTarget(Node& node) {
  if (!node.requiresGrad)
    throw std::logic_error(std::string("Var::grad: the result of '") + node.name + "' requires no gradient");
  if (Parameter<Scalar, Place>* const p = node.parameter) return {p->mutableGrad(), std::exchange(p->m_hasGrad, true)};
  if (!node.grad) node.grad = m_memory.template allocatePooled<Scalar>(internal::countOf(node.rows, node.cols));
  return {Place::map(node.grad, node.rows, node.cols), std::exchange(node.hasGrad, true)};
}

template <typename Scalar, typename Place>
void Tape<Scalar, Place>::checkGradIsKept(const Node& node) const {
  if (node.requiresGrad && node.pull && !node.retainsGrad && !m_inBackward)
    throw std::logic_error(std::string("Var::grad: the gradient of the result of '") + node.name +
                           "' is not kept beyond backward(); call retainGrad() before");
}

template <typename Scalar, typename Place>
void Tape<Scalar, Place>::releaseGrad(Node& node) {
  if (node.grad) m_memory.release(node.grad, internal::countOf(node.rows, node.cols));
  node.grad = {};
  node.hasGrad = false;
}

template <typename Scalar, typename Place>
void Tape<Scalar, Place>::checkIdle(const char* function) const {
  if (m_inBackward || m_segments > 0)
    throw std::logic_error(std::string("Tape::") + function + ": called inside a " +
                           (m_inBackward ? "pullback" : "checkpoint"));
}

template <typename Scalar, typename Place>
template <typename Xpr>
void Tape<Scalar, Place>::backward(const Variable& y, const Xpr& seed) {
  const std::size_t last = check(y);
  checkIdle("backward");
  if (!m_nodes[last].requiresGrad)
    throw std::logic_error(std::string("Tape::backward: the result of '") + m_nodes[last].name +
                           "' depends on nothing that requires a gradient");
  if (seed.rows() != y.rows() || seed.cols() != y.cols())
    throw std::invalid_argument("Tape::backward: the seed and the result differ in shape");
  checkParameters(last);
  for (std::size_t i = 0; i <= last; ++i)
    if (m_nodes[i].pull) releaseGrad(m_nodes[i]);  // a pullback threw, or it was retained; leaves keep theirs
  if constexpr (Place::template kIsElsewhere<Xpr>)
    y.addGrad(copy(seed));
  else
    y.addGrad(seed);
  walk(last);
}

template <typename Scalar, typename Place>
void Tape<Scalar, Place>::checkParameters(std::size_t last) const {
  const auto compare = [](const ParameterRecord* p, std::uint64_t version) {
    if (p && p->version() != version)
      throw std::logic_error("Tape::backward: parameter '" + p->name() +
                             "' was modified after the forward pass read it");
  };
  for (std::size_t i = 0; i <= last; ++i) compare(m_nodes[i].source, m_nodes[i].parameterVersion);
  for (const Read& read : m_reads)
    if (read.node <= last) compare(read.source, read.version);
}

template <typename Scalar, typename Place>
void Tape<Scalar, Place>::walk(std::size_t last, std::size_t first) {
  const internal::Restored<bool> inBackward(m_inBackward, true);
  const auto onContext = scope();
  (void)onContext;
  for (std::size_t i = last + 1; i-- > first;) {
    const Node& n = m_nodes[i];
    if (!n.pull || !n.hasGrad) continue;
    {
      const Scratch<Scalar, Place> frame(*this);
      n.pull(*this, n.payload, Place::map(ConstPointer(n.grad), n.rows, n.cols), Place::map(n.value, n.rows, n.cols));
    }
    if (!m_nodes[i].retainsGrad) releaseGrad(m_nodes[i]);  // a replay may have moved the nodes
  }
}

template <typename Scalar, typename Place>
void Tape<Scalar, Place>::clear() {
  checkIdle("clear");
  destroyPayloads();
  m_nodes.clear();
  m_roundedParameters.clear();
  m_reads.clear();
  m_memory.clear();
  m_cleared = ++m_generation;
}

template <typename Scalar, typename Place>
void Tape<Scalar, Place>::destroyPayloads(std::size_t first) {
  for (std::size_t i = m_nodes.size(); i-- > first;)
    if (m_nodes[i].destroy) m_nodes[i].destroy(m_nodes[i].payload);
}

template <typename Scalar, typename Place>
Tape<Scalar, Place>& Var<Scalar, Place>::tape() const {
  if (!m_tape) throw std::logic_error("Var: default-constructed, it stands for no matrix");
  return *m_tape;
}

template <typename Scalar, typename Place>
Eigen::Index Var<Scalar, Place>::rows() const {
  return tape().node(*this).rows;
}

template <typename Scalar, typename Place>
Eigen::Index Var<Scalar, Place>::cols() const {
  return tape().node(*this).cols;
}

template <typename Scalar, typename Place>
typename Var<Scalar, Place>::ConstMap Var<Scalar, Place>::value() const {
  const auto& n = tape().node(*this);
  return Place::map(n.value, n.rows, n.cols);
}

template <typename Scalar, typename Place>
Scalar Var<Scalar, Place>::item() const {
  const auto v = value();
  eigen_assert(v.size() == 1 && "Var::item: the matrix is not 1x1");
  return tape().memory().read(v);
}

template <typename Scalar, typename Place>
bool Var<Scalar, Place>::requiresGrad() const {
  return tape().node(*this).requiresGrad;
}

template <typename Scalar, typename Place>
typename Var<Scalar, Place>::GradTarget Var<Scalar, Place>::gradTarget() const {
  return tape().gradTarget(tape().node(*this));
}

template <typename Scalar, typename Place>
typename Var<Scalar, Place>::Map Var<Scalar, Place>::grad() const {
  tape().checkGradIsKept(tape().node(*this));
  GradTarget target = gradTarget();
  if (!target.accumulate) tape().memory().setZero(target.grad);
  return target.grad;
}

template <typename Scalar, typename Place>
void Var<Scalar, Place>::retainGrad() const {
  auto& n = tape().node(*this);
  if (!n.requiresGrad)
    throw std::logic_error(std::string("Var::retainGrad: the result of '") + n.name + "' requires no gradient");
  n.retainsGrad = true;
}

template <typename Scalar, typename Place>
template <typename Xpr>
void Var<Scalar, Place>::addGrad(const Xpr& contribution) const {
  if (!requiresGrad()) return;
  eigen_assert(contribution.rows() == rows() && contribution.cols() == cols() && "Var::addGrad: shapes differ");
  const GradTarget target = gradTarget();
  tape().memory().template store<Scalar>(target.grad, contribution, target.accumulate);
}

template <typename Scalar, typename Place>
Var<Scalar, Place> Var<Scalar, Place>::detach() const {
  const auto& original = tape().node(*this);
  auto n = original;
  n = {"detach", original.value, original.rows, original.cols};
  n.source = original.source;  // still read in place, so still checked for modification
  n.parameterVersion = original.parameterVersion;
  return tape().append(n);
}

template <typename Scalar, typename Place>
Var<Scalar, Place> Operand<Scalar, Place>::on(Tape<Scalar, Place>& tape) const {
  if (m_parameter) return tape.parameter(*m_parameter);
  if (m_master) return m_round(tape, m_master);
  if (m_var && &m_var.tape() != &tape) throw std::logic_error("Var: used on a tape that is not its own");
  return m_var;
}

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_TAPE_IMPL_H
