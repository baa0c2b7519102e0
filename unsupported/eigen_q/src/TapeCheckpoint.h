// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_TAPE_CHECKPOINT_H
#define EIGENQ_TAPE_CHECKPOINT_H

// Parts of a tape that are recorded, forgotten and replayed. Included by Tape.h only.

namespace EigenQ {
namespace ad {

namespace internal {

/** What is recorded while it lives is forgotten when it ends, by an exception too: nodes, values, gradients; and the
 * random streams go back to where they were. Segments nest. */
template <typename Scalar, typename Place>
class Segment {
 public:
  using Tape = ad::Tape<Scalar, Place>;
  using Variable = Var<Scalar, Place>;

  /** \param forwardOnly  ops keep no pullbacks, but results know whether they depend on a gradient. */
  Segment(Tape& tape, bool forwardOnly)
      : m_tape(tape),
        m_first(tape.m_nodes.size()),
        m_reads(tape.m_reads.size()),
        m_values(tape.m_memory.valuesMark()),
        m_random(tape.randomStreams()),
        m_forwardOnly(tape.m_forwardOnly, forwardOnly),
        m_inBackward(tape.m_inBackward, false),
        m_open(tape.m_segments, tape.m_segments + 1) {}

  ~Segment() {
    m_tape.destroyPayloads(m_first);
    for (std::size_t i = m_tape.m_nodes.size(); i-- > m_first;) release(m_tape.m_nodes[i]);
    m_tape.m_nodes.erase(m_tape.m_nodes.begin() + static_cast<std::ptrdiff_t>(m_first), m_tape.m_nodes.end());
    auto& rounded = m_tape.m_roundedParameters;
    while (!rounded.empty() && rounded.back() >= m_first) rounded.pop_back();
    m_tape.m_reads.erase(m_tape.m_reads.begin() + static_cast<std::ptrdiff_t>(m_reads), m_tape.m_reads.end());
    m_tape.m_memory.rewindValues(m_values);
    m_tape.m_random = m_random;
    ++m_tape.m_generation;
  }

  Segment(const Segment&) = delete;
  Segment& operator=(const Segment&) = delete;

  bool contains(const Variable& v) const { return m_tape.check(v) >= m_first; }
  std::size_t first() const { return m_first; }

  /** The streams stay where they are now. */
  void keepRandomStreams() { m_random = m_tape.randomStreams(); }

  /** \returns a node with the value of \a y: the one to append after the segment's end. What it needs stays: rounded
   * parameters, and which parameters were read. */
  typename Tape::Node keep(const Variable& y) {
    typename Tape::Node kept = takeValue(m_tape.node(y));
    keepRoundedParameters();
    for (std::size_t i = m_reads; i < m_tape.m_reads.size(); ++i) m_tape.m_reads[i].node = m_first;
    for (std::size_t i = m_first; i < m_tape.m_nodes.size(); ++i)
      if (const ParameterRecord* const p = m_tape.m_nodes[i].source)
        m_tape.m_reads.push_back({p, m_tape.m_nodes[i].parameterVersion, m_first});
    m_reads = m_tape.m_reads.size();
    return kept;
  }

 private:
  void release(typename Tape::Node& n) {
    m_tape.releaseGrad(n);
    if (n.ownsValue) m_tape.m_memory.release(n.value, countOf(n.rows, n.cols));
  }

  /** Values of the arena are copied to the pool; those that are there change their owner. */
  typename Tape::Node takeValue(typename Tape::Node& from) {
    typename Tape::Node kept{"checkpoint", from.value, from.rows, from.cols};
    kept.requiresGrad = from.requiresGrad;
    kept.ownsValue = true;
    if (from.ownsValue && !from.source) {
      from.ownsValue = false;
    } else {
      const auto value = m_tape.m_memory.template allocatePooled<Scalar>(countOf(kept.rows, kept.cols));
      m_tape.m_memory.template store<Scalar>(Place::map(value, kept.rows, kept.cols),
                                             Place::map(from.value, kept.rows, kept.cols), /*accumulate=*/false);
      kept.value = value;
    }
    return kept;
  }

  /** Moves the rounded copies of parameters out of the segment, in front of it. Whoever rounds one of them later finds
   * it there, so that its gradients add up in 16 bits as they do without a segment. */
  void keepRoundedParameters() {
    for (std::uint32_t& id : m_tape.m_roundedParameters) {
      if (id < m_first) continue;
      std::swap(m_tape.m_nodes[id], m_tape.m_nodes[m_first]);  // ids ascend: what is swapped up is no such copy
      id = static_cast<std::uint32_t>(m_first++);
      m_tape.m_nodes[id].generation = m_tape.m_generation + 1;  // Vars of the segment do not stand for it
    }
  }

  Tape& m_tape;
  std::size_t m_first;  // node
  std::size_t m_reads;
  typename Place::Memory::ValuesMark m_values;
  RandomStream m_random;
  Restored<bool> m_forwardOnly, m_inBackward;
  Restored<int> m_open;
};

}  // namespace internal

template <typename Scalar, typename Place>
template <typename Run>
Var<Scalar, Place> Tape<Scalar, Place>::checkpoint(Run run) {
  if (m_inBackward) throw std::logic_error("Tape::checkpoint: called inside a pullback");
  const RandomStream random = randomStreams();
  Node result;
  {
    internal::Segment<Scalar, Place> segment(*this, /*forwardOnly=*/true);
    const Variable y = std::as_const(run)();
    segment.keepRandomStreams();
    if (!segment.contains(y)) return y;  // nothing was computed that anybody could see
    result = segment.keep(y);
  }
  const Variable y = append(result);
  if (result.requiresGrad && !m_forwardOnly)
    attach(m_nodes.back(), [this, run = std::move(run), random, id = y.m_id](const auto&) { replay(run, random, id); });
  return y;
}

/** The pullback of a checkpoint, node \a result: records what led to it once more, and walks that. */
template <typename Scalar, typename Place>
template <typename Run>
void Tape<Scalar, Place>::replay(const Run& run, const RandomStream& random, std::size_t result) {
  const internal::Restored<bool> gradEnabled(m_gradEnabled, true);
  internal::Segment<Scalar, Place> segment(*this, /*forwardOnly=*/false);
  m_random = random;
  const Variable y = run();
  if (y.rows() != m_nodes[result].rows || y.cols() != m_nodes[result].cols || !(segment.contains(y) || y.m_id < result))
    throw std::logic_error("Tape::checkpoint: the function returned another matrix when backward() called it again");
  Node &from = m_nodes[result], &to = m_nodes[y.m_id];
  if (!to.requiresGrad) return;
  if (to.pull && !from.retainsGrad && segment.contains(y)) {  // the one contribution: handed over, not copied
    std::swap(to.grad, from.grad);
    to.hasGrad = true;
  } else {
    y.addGrad(Place::map(ConstPointer(from.grad), from.rows, from.cols));
  }
  if (segment.contains(y)) walk(y.m_id, segment.first());
}

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_TAPE_CHECKPOINT_H
