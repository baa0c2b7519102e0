// SPDX-License-Identifier: MPL-2.0
// Ops of the device that read integers beside matrices: embeddings, rotary positions, attention. As the host ops of
// these names. Integers on the host are checked here and uploaded; those on the device can only be counted.
#ifndef EIGENQ_OPS_DEVICE_TOKENS_H
#define EIGENQ_OPS_DEVICE_TOKENS_H

#include <stdexcept>
#include <string>

#include <eigen_q/src/Embedding.h>

#include "../attention.h"
#include "../rope.h"
#include "helpers.h"

namespace EigenQ {
namespace ad {

namespace internal {
inline void checkIds(const Eigen::Ref<const Eigen::VectorXi>& ids, Eigen::Index vocabulary) {
  for (Eigen::Index t = 0; t < ids.size(); ++t) EigenQ::internal::checkedId(ids, t, vocabulary);
}

template <typename Scalar>
Var<Scalar, Device> gatherColumns(const Var<Scalar, Device>& table, const Device::Integers& ids) {
  Tape<Scalar, Device>& tape = table.tape();
  gpu::Context& context = tape.context();
  ArenaMatrix<Scalar, Device> y = tape.newMatrix(table.rows(), ids.size());
  const std::int32_t* const kept = reading(ids, context);
  gpu::internal::embeddingForward(reading(table), kept, writing(y, context), context);
  return tape.record("embedding", {table}, y, [=, &context](const auto& dy) {
    const GradientView dtable = gradientOf(table);
    gpu::internal::embeddingBackward(reading(dy, context), kept, dtable.view, dtable.accumulate, context);
  });
}

template <typename Scalar>
Var<Scalar, Device> gatherRows(Tape<Scalar, Device>& tape, const gpu::internal::WeightOperand& table,
                               const Device::Integers& ids) {
  if (table.view.transposed || table.view.factor != 1)
    throw std::invalid_argument(
        "embedding: expected a quantised table as it is stored, found its transpose or multiple");
  gpu::Context& context = tape.context();
  ArenaMatrix<Scalar, Device> y = tape.newMatrix(table.cols(), ids.size());
  if (table.block) table.block->beginRead(context);
  gpu::internal::embeddingForward(table.view.weights, reading(ids, context), writing(y, context), context);
  return tape.record("embedding", {}, y, [](const auto&) {});
}
}  // namespace internal

/** Ids on the device: the column of an id that the table does not have is NaN. */
template <typename Scalar>
Var<Scalar, Device> embedding(Tape<Scalar, Device>& tape, OperandArg<Scalar, Device> table,
                              const gpu::DeviceView<const int>& ids) {
  return internal::gatherColumns(table.on(tape), ids);
}
template <typename Scalar>
Var<Scalar, Device> embedding(Tape<Scalar, Device>& tape, OperandArg<Scalar, Device> table,
                              const Eigen::Ref<const Eigen::VectorXi>& ids) {
  const Var<Scalar, Device> e = table.on(tape);
  internal::checkIds(ids, e.cols());
  return internal::gatherColumns(e, tape.keep(ids));
}

/** A frozen quantised table on the device, vocabulary×dim, or a window of one. */
template <typename Scalar, typename Table>
Var<Scalar, Device> embedding(Tape<Scalar, Device>& tape, const gpu::DeviceQuantizedBase<Table>& table,
                              const gpu::DeviceView<const int>& ids) {
  return internal::gatherRows(tape, table.derived().operand(), ids);
}
template <typename Scalar, typename Table>
Var<Scalar, Device> embedding(Tape<Scalar, Device>& tape, const gpu::DeviceQuantizedBase<Table>& table,
                              const Eigen::Ref<const Eigen::VectorXi>& ids) {
  internal::checkIds(ids, table.rows());
  return internal::gatherRows(tape, table.derived().operand(), tape.keep(ids));
}

/** Cosines and sines on the device, in float whatever the tape's scalar. */
template <typename Scalar_>
class RopeTable<Scalar_, Device> {
 public:
  using Scalar = Scalar_;

  /** As on the host. */
  RopeTable(Eigen::Index headDim, Eigen::Index maxPositions, double theta = 10000, RopePairs pairs = RopePairs::Half)
      : RopeTable(RopeTable<float>(headDim, maxPositions, theta, pairs)) {}
  RopeTable(const Eigen::Ref<const Eigen::VectorXd>& frequencies, Eigen::Index maxPositions,
            RopePairs pairs = RopePairs::Half)
      : RopeTable(RopeTable<float>(frequencies, maxPositions, pairs)) {}
  explicit RopeTable(const RopeTable<float>& table)
      : m_cos(gpu::DeviceMatrix<float>::fromHost(table.cos())),
        m_sin(gpu::DeviceMatrix<float>::fromHost(table.sin())),
        m_pairs(table.pairs()) {}

  Eigen::Index headDim() const { return 2 * m_cos.rows(); }
  Eigen::Index maxPositions() const { return m_cos.cols(); }
  RopePairs pairs() const { return m_pairs; }
  const gpu::DeviceMatrix<float>& cos() const { return m_cos; }  // headDim/2 × maxPositions
  const gpu::DeviceMatrix<float>& sin() const { return m_sin; }

 private:
  gpu::DeviceMatrix<float> m_cos;
  gpu::DeviceMatrix<float> m_sin;
  RopePairs m_pairs;
};

namespace internal {
template <typename Scalar>
gpu::internal::Rope ropeOf(const Var<Scalar, Device>& x, const RopeTable<Scalar, Device>& table,
                           const gpu::DeviceView<const int>& positions, const gpu::DeviceView<Scalar>& y) {
  gpu::Context& context = x.tape().context();
  gpu::internal::Rope op;
  op.x = reading(x);
  op.y = writing(y, context);
  op.headDim = table.headDim();
  op.cos = static_cast<const float*>(reading(table.cos().view(), context).data);
  op.sin = static_cast<const float*>(reading(table.sin().view(), context).data);
  op.maxPositions = table.maxPositions();
  op.positions = reading(positions, context);
  op.adjacent = table.pairs() == RopePairs::Adjacent;
  return op;
}
}  // namespace internal

/** Positions on the device: a token beyond the table becomes NaN. */
template <typename Scalar>
Var<Scalar, Device> rope(const Var<Scalar, Device>& x, const RopeTable<Scalar, Device>& table,
                         const gpu::DeviceView<const int>& positions) {
  eigen_assert(x.rows() % table.headDim() == 0 && "rope: rows are not a multiple of the head dimension");
  internal::checkPositionCount(positions.size(), x.cols());
  Tape<Scalar, Device>& tape = x.tape();
  gpu::Context& context = tape.context();
  ArenaMatrix<Scalar, Device> y = tape.newMatrix(x.rows(), x.cols());
  const gpu::internal::Rope op = internal::ropeOf<Scalar>(x, table, positions, y);
  gpu::internal::rope(op, context);
  return tape.record("rope", {x}, y, [=, &context](const auto& dy) {
    const internal::GradientView dx = internal::gradientOf(x);
    gpu::internal::Rope back = op;
    back.x = internal::reading(dy, context);
    back.y = dx.view;
    back.inverse = true;
    back.accumulate = dx.accumulate;
    gpu::internal::rope(back, context);
  });
}
template <typename Scalar>
Var<Scalar, Device> rope(const Var<Scalar, Device>& x, const RopeTable<Scalar, Device>& table,
                         const Eigen::Ref<const Eigen::VectorXi>& positions) {
  internal::checkPositions(positions, x.cols(), table.maxPositions());
  return rope(x, table, x.tape().keep(positions));
}
/** A temporary table would dangle. */
template <typename Scalar, typename Positions>
Var<Scalar, Device> rope(const Var<Scalar, Device>& x, const RopeTable<Scalar, Device>&& table,
                         const Positions& positions) = delete;

/** Offsets on the device: they ascend from 0 to the number of tokens, which nothing checks. */
template <typename Scalar>
Var<Scalar, Device> causalAttention(const Var<Scalar, Device>& q, const Var<Scalar, Device>& k,
                                    const Var<Scalar, Device>& v, const AttentionHeads& heads,
                                    const gpu::DeviceView<const int>& offsets) {
  internal::checkHeads("causalAttention", heads);
  internal::assertAttentionShapes(q, k, v, heads);
  Tape<Scalar, Device>& tape = q.tape();
  gpu::Context& context = tape.context();
  ArenaMatrix<Scalar, Device> o = tape.newMatrix(q.rows(), q.cols());
  gpu::internal::CausalAttention op;
  op.heads = heads.heads;
  op.kvHeads = heads.kvHeads;
  op.headDim = heads.headDim;
  op.window = heads.window;
  op.offsets = internal::reading(offsets, context);
  op.sequences = offsets.size() - 1;
  op.q = internal::reading(q);
  op.k = internal::reading(k);
  op.v = internal::reading(v);
  op.o = internal::writing(o, context);
  op.lse = internal::newFloats(tape, heads.heads * q.cols());
  gpu::internal::causalAttentionForward(op, context);

  return tape.record("causalAttention", {q, k, v}, o, [=, &context](const auto& dy) {
    const internal::GradientView dq = internal::gradientOf(q);
    internal::SecondGradient<Scalar> dk(k, {q}), dv(v, {q, k});
    gpu::internal::CausalAttentionBackward back;
    back.forward = op;
    back.d_o = internal::reading(dy, context);
    back.dq = dq.view;
    back.accumulateQ = dq.accumulate;
    back.dk = dk->view;
    back.accumulateK = dk->accumulate;
    back.dv = dv->view;
    back.accumulateV = dv->accumulate;
    gpu::internal::causalAttentionBackward(back, context);
    dk.finish();
    dv.finish();
  });
}
template <typename Scalar>
Var<Scalar, Device> causalAttention(const Var<Scalar, Device>& q, const Var<Scalar, Device>& k,
                                    const Var<Scalar, Device>& v, const AttentionHeads& heads,
                                    const Eigen::Ref<const Eigen::VectorXi>& offsets) {
  internal::checkHeads("causalAttention", heads);
  internal::checkOffsets("causalAttention", offsets, q.cols());
  return causalAttention(q, k, v, heads, q.tape().keep(offsets));
}

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPS_DEVICE_TOKENS_H
