// SPDX-License-Identifier: MPL-2.0
// The chunks of linearCrossEntropy() on the device, whose text is that of every place.
#ifndef EIGENQ_OPS_DEVICE_LINEAR_CROSS_ENTROPY_H
#define EIGENQ_OPS_DEVICE_LINEAR_CROSS_ENTROPY_H

#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#include "../linear_cross_entropy.h"
#include "helpers.h"

namespace EigenQ {
namespace ad {

namespace internal {

template <typename Scalar>
class ChunkedCrossEntropy<Scalar, Device> {
 public:
  using ConstMap = Device::ConstMap<Scalar>;
  using Accumulator = gpu::DeviceView<float>;

  ChunkedCrossEntropy(Tape<Scalar, Device>& tape, const Device::Integers& targets, int ignoreIndex, Reduction reduction)
      : m_tape(&tape) {
    m_op.targets = reading(targets, tape.context());
    m_op.tokens = targets.size();
    m_op.ignoreIndex = ignoreIndex;
    m_op.mean = reduction == Reduction::Mean;
    m_op.factors = newFloats(tape, 3);
    m_op.tokenLoss = newFloats(tape, targets.size());
    gpu::internal::crossEntropyFactors(m_op, tape.context());
  }

  template <typename T>
  static gpu::DeviceView<T> columns(const gpu::DeviceView<T>& m, Eigen::Index first, Eigen::Index n) {
    return m.middleCols(first, n);
  }
  Accumulator newAccumulator(Eigen::Index rows, Eigen::Index cols) const {
    return Device::map(m_tape->memory().template allocate<float>(countOf(rows, cols)), rows, cols);
  }

  void add(const gpu::DeviceView<Scalar>& logits, Eigen::Index first, bool gradient) const {
    gpu::Context& context = m_tape->context();
    gpu::internal::crossEntropyChunk(m_op, writing(logits, context), first, gradient, context);
  }
  /** In float whatever the operands: a product whose sums are not rounded before they are added. */
  void accumulate(const Accumulator& sum, const ConstMap& dlogits, const ConstMap& x, bool first) const {
    const auto product = gpu::internal::asSum(dlogits * x.transpose());
    gpu::internal::evaluate(product.terms().data(), 1, sum.mutableDense(), sum.memory(),
                            first ? gpu::internal::Store::kSet : gpu::internal::Store::kAdd, m_tape->context());
  }

  ArenaMatrix<Scalar, Device> loss() const {
    gpu::Context& context = m_tape->context();
    ArenaMatrix<Scalar, Device> y = m_tape->newMatrix(1, 1);
    gpu::internal::crossEntropyTotal(m_op, writing(y, context), context);
    return y;
  }

  template <typename T>
  void pull(const Var<Scalar, Device>& x, const gpu::DeviceView<T>& gradients, const ConstMap& dloss) const {
    gpu::Context& context = m_tape->context();
    Scratch<Scalar, Device> scratch(*m_tape);
    // 2ᵏ·dloss in float: on its own it may be too small for 16 bits.
    const gpu::DeviceView<float> factor =
        Device::map(m_tape->memory().template allocateScratch<float>(1), Eigen::Index(1), Eigen::Index(1));
    const gpu::DeviceView<float> power(m_op.factors + 1, 1, 1);
    gpu::internal::broadcast(reading(dloss, context), 1, writing(factor, context), /*accumulate=*/false, context);
    gpu::internal::scaleBy(power.dense(), factor.dense(), 1, factor.mutableDense(), /*accumulate=*/false, context);
    const GradientView dx = gradientOf(x);
    gpu::internal::scaleBy(reading(inScalar(gradients, scratch), context), factor.dense(), 1, dx.view, dx.accumulate,
                           context);
  }

 private:
  template <typename T>
  ConstMap inScalar(const gpu::DeviceView<T>& x, Scratch<Scalar, Device>& scratch) const {
    if constexpr (std::is_same_v<T, Scalar>) {
      return x;
    } else {
      const auto rounded = scratch.matrix(x.rows(), x.cols());
      m_tape->memory().template store<Scalar>(rounded, x.template cast<Scalar>(), /*accumulate=*/false);
      return rounded;
    }
  }

  Tape<Scalar, Device>* m_tape;
  gpu::internal::ChunkedCrossEntropy m_op;
};

}  // namespace internal

/** With targets on the device, for graphs that are replayed with other targets; see crossEntropy(). */
template <typename Weight, typename Scalar>
Var<Scalar, Device> linearCrossEntropy(Weight&& weight, const Var<Scalar, Device>& h,
                                       const gpu::DeviceView<const int>& targets, int ignoreIndex = -100,
                                       Reduction reduction = Reduction::Mean, Eigen::Index chunk = 0) {
  if (targets.size() != h.cols())
    throw std::invalid_argument("linearCrossEntropy: expected " + std::to_string(h.cols()) +
                                " targets, one per column of h, found " + std::to_string(targets.size()));
  return internal::linearCrossEntropy(
      std::forward<Weight>(weight), h,
      internal::ChunkedCrossEntropy<Scalar, Device>(h.tape(), targets, ignoreIndex, reduction), chunk);
}

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPS_DEVICE_LINEAR_CROSS_ENTROPY_H
