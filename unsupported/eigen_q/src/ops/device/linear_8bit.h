// SPDX-License-Identifier: MPL-2.0
// What linear8bit(), whose text is that of every place, needs of the device.
#ifndef EIGENQ_OPS_DEVICE_LINEAR_8BIT_H
#define EIGENQ_OPS_DEVICE_LINEAR_8BIT_H

#include "../linear_8bit.h"
#include "helpers.h"

namespace EigenQ {
namespace ad {
namespace internal {

template <>
class Int8LinearOn<Device> {
 public:
  using State = gpu::MatmulLtState;
  using Ops = gpu::internal::DeviceInt8Linear;

  template <typename Scalar>
  explicit Int8LinearOn(const Tape<Scalar, Device>& tape) : m_context(&tape.context()) {}

  Ops ops() const { return {*m_context}; }
  template <typename Scalar>
  ConstDenseView reading(const gpu::DeviceView<Scalar>& m) const {
    return internal::reading(m, *m_context);
  }
  template <typename Scalar>
  DenseView writing(const gpu::DeviceView<Scalar>& m) const {
    return internal::writing(m, *m_context);
  }

  /** A copy in the tape's memory: the state's list is overwritten by the next forward pass. */
  template <typename Scalar>
  gpu::internal::OutlierList keepOutliers(Tape<Scalar, Device>& tape, const State& state) const {
    const gpu::DeviceMatrix<int>& list = state.outlierColumns.list();
    if (list.size() == 0) return {};
    const auto count = static_cast<std::size_t>(list.size());
    const Device::Pointer<int> kept = tape.memory().template allocate<int>(count);
    kept.block->beginWrite(*m_context);
    gpu::internal::copyAsync(kept.data, gpu::internal::toRead(list, *m_context).data(), count * sizeof(int),
                             *m_context);
    return {kept.data + 1, kept.data};
  }
  template <typename Scalar>
  void addOutlierGradient(const Var<Scalar, Device>& w, const Device::ConstMap<Scalar>& dy,
                          const Var<Scalar, Device>& x, const gpu::internal::OutlierList& outliers) const {
    gpu::internal::outlierGradient(reading(dy).transpose(), reading(x.value()).transpose(), outliers, writing(w.grad()),
                                   /*accumulate=*/true, *m_context);
  }

 private:
  gpu::Context* m_context;
};

}  // namespace internal
}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPS_DEVICE_LINEAR_8BIT_H
