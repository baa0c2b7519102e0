// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_OPTIM_DEVICE_CLIP_H
#define EIGENQ_OPTIM_DEVICE_CLIP_H

#include <memory>
#include <vector>

#include "../ClipGradNorm.h"
#include "rules.h"

namespace EigenQ {
namespace ad {

/** The norm of gradients on the device, as long as nobody needs to know it on the host. */
class DeviceNorm {
 public:
  /** Waits for the stream. */
  double toHost(gpu::Context& context = gpu::Context::current()) const {
    double norm = 0;
    gpu::internal::download(&norm, onDevice(context), sizeof norm, context);
    return norm;
  }
  /** For kernels that \a context queues next. */
  const double* onDevice(gpu::Context& context) const {
    m_memory->beginRead(context);
    return &numbers()->norm;
  }

 private:
  struct Numbers {
    double sumOfSquares;
    double norm;
    float factor;
  };
  /** Computes norm and factor. */
  DeviceNorm(const std::vector<Parameter<float, Device>*>& parameters, double maxNorm, gpu::Context& context)
      : m_memory(std::make_unique<gpu::internal::MemoryBlock>(sizeof(Numbers), context)) {
    gpu::internal::fillZero(numbers(), sizeof(Numbers), context);
    for (const Parameter<float, Device>* p : parameters)
      if (p->hasGrad())
        gpu::internal::addSumOfSquares(internal::stepReads(p->grad(), context), p->size(), &numbers()->sumOfSquares,
                                       context);
    gpu::internal::clipFactor(&numbers()->sumOfSquares, maxNorm, &numbers()->factor, &numbers()->norm, context);
  }
  Numbers* numbers() const { return static_cast<Numbers*>(m_memory->data()); }
  gpu::internal::ConstDenseView factor() const {
    return gpu::DeviceView<const float>(&numbers()->factor, 1, 1).dense();
  }

  friend DeviceNorm clipGradNorm(const std::vector<Parameter<float, Device>*>& parameters, double maxNorm);

  std::unique_ptr<gpu::internal::MemoryBlock> m_memory;
};

/** As on the host, without waiting: norm and factor are computed on the device, on the current context, and every
 * gradient is multiplied by the factor, which is 1 where the norm is small enough or not finite. */
inline DeviceNorm clipGradNorm(const std::vector<Parameter<float, Device>*>& parameters, double maxNorm) {
  internal::checkOption(maxNorm >= 0, "clipGradNorm", "maxNorm", maxNorm);
  gpu::Context& context = gpu::Context::current();
  DeviceNorm norm(parameters, maxNorm, context);
  for (Parameter<float, Device>* p : parameters)
    if (p->hasGrad()) {
      const gpu::internal::DenseView gradient = internal::writing(p->mutableGrad(), context);
      gpu::internal::scaleBy(EigenQ::internal::readOnly(gradient), norm.factor(), 1, gradient, /*accumulate=*/false,
                             context);
    }
  return norm;
}

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPTIM_DEVICE_CLIP_H
