// SPDX-License-Identifier: MPL-2.0
// From Vars to the plain numbers of the kernels, and what the ops of every place need of the device.
#ifndef EIGENQ_OPS_DEVICE_HELPERS_H
#define EIGENQ_OPS_DEVICE_HELPERS_H

#include <initializer_list>
#include <optional>

#include <eigen_q/src/gpu/OpKernels.h>

#include "../../Tape.h"
#include "../../device/DevicePlace.h"
#include "../helpers.h"

namespace EigenQ {
namespace ad {
namespace internal {

using gpu::internal::ConstDenseView;
using gpu::internal::DenseView;

/** What a kernel on \a context is about to read, as the kernel takes it: after what other streams write there. */
template <typename T>
ConstDenseView reading(const gpu::DeviceView<T>& x, gpu::Context& context) {
  if (x.memory()) x.memory()->beginRead(context);
  return x.dense();
}
template <typename Scalar>
ConstDenseView reading(const Var<Scalar, Device>& x) {
  return reading(x.value(), x.tape().context());
}
template <typename Scalar>
DenseView writing(const gpu::DeviceView<Scalar>& x, gpu::Context& context) {
  if (x.memory()) x.memory()->beginWrite(context);
  return x.mutableDense();
}
inline const std::int32_t* reading(const Device::Integers& x, gpu::Context& context) {
  static_assert(std::is_same_v<int, std::int32_t>);
  if (x.memory()) x.memory()->beginRead(context);
  return x.data();
}

/** Room for \a n floats that a pullback reads, whatever the scalar of the tape: statistics stay precise. */
template <typename Scalar>
float* newFloats(Tape<Scalar, Device>& tape, Eigen::Index n) {
  const auto p = tape.memory().template allocate<float>(static_cast<std::size_t>(n));
  p.block->beginWrite(tape.context());
  return p.data;
}

/** Where a kernel puts one contribution to the gradient of an input; without data where none is wanted. */
struct GradientView {
  DenseView view;
  bool accumulate = false;
};
template <typename Scalar>
GradientView gradientOf(const Var<Scalar, Device>& x) {
  if (!x.requiresGrad()) return {};
  const auto target = x.gradTarget();
  return {writing(target.grad, x.tape().context()), target.accumulate};
}

/** The same for kernels that write several gradients at once: an input that stands in two places gets its second
 * gradient by way of scratch memory, for the kernel may write both in any order. */
template <typename Scalar>
class SecondGradient {
 public:
  SecondGradient(const Var<Scalar, Device>& x, std::initializer_list<Var<Scalar, Device>> earlier)
      : m_x(x), m_scratch(x.tape()) {
    for (const Var<Scalar, Device>& other : earlier)
      m_again = m_again || (other.requiresGrad() && other.value().data() == x.value().data());
    m_again = m_again && x.requiresGrad();
    if (!m_again) {
      m_target = gradientOf(x);
    } else {
      m_own.emplace(m_scratch.matrix(x.rows(), x.cols()));
      m_target.view = writing(*m_own, x.tape().context());
    }
  }
  const GradientView* operator->() const { return &m_target; }
  /** After the kernel. */
  void finish() {
    if (m_again) m_x.addGrad(*m_own);
  }

 private:
  Var<Scalar, Device> m_x;
  Scratch<Scalar, Device> m_scratch;
  std::optional<gpu::DeviceView<Scalar>> m_own;
  GradientView m_target;
  bool m_again = false;
};

template <>
struct OpsOn<Device> {
  template <typename Scalar>
  using ConstMap = Device::ConstMap<Scalar>;
  template <typename Scalar>
  using Map = Device::Map<Scalar>;

  template <typename Scalar>
  static void linear(const ConstMap<Scalar>& w, const ConstMap<Scalar>& x, const Var<Scalar, Device>& b,
                     Map<Scalar> y) {
    if (b)
      y.noalias() = (w * x).colwise() + b.value().col(0);  // the kernel adds the bias
    else
      y.noalias() = w * x;
  }

  template <typename Scalar>
  static void addRowSums(const Var<Scalar, Device>& bias, const ConstMap<Scalar>& dy) {
    if (!bias.requiresGrad()) return;
    gpu::Context& context = bias.tape().context();
    const GradientView db = gradientOf(bias);
    gpu::internal::rowSums(reading(dy, context), db.view, db.accumulate, context);
  }

  template <typename Scalar>
  static void dropout(Tape<Scalar, Device>& tape, const ConstMap<Scalar>& x, double p, const RandomStream& stream,
                      Map<Scalar> y) {
    run(reading(x, tape.context()), p, stream, {writing(y, tape.context()), false}, tape.context());
  }
  template <typename Scalar>
  static void addDropout(const Var<Scalar, Device>& x, const ConstMap<Scalar>& dy, double p,
                         const RandomStream& stream) {
    if (!x.requiresGrad()) return;
    gpu::Context& context = x.tape().context();
    run(reading(dy, context), p, stream, gradientOf(x), context);
  }

 private:
  static void run(const ConstDenseView& x, double p, const RandomStream& stream, const GradientView& y,
                  gpu::Context& context) {
    gpu::internal::Dropout op;
    op.x = x;
    op.y = y.view;
    op.p = p;
    op.seed = stream.seed;
    op.stream = stream.stream;
    op.streamBase = stream.base;
    op.accumulate = y.accumulate;
    gpu::internal::dropout(op, context);
  }
};

}  // namespace internal
}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPS_DEVICE_HELPERS_H
