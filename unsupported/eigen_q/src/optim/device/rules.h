// SPDX-License-Identifier: MPL-2.0
// The steps of the float optimisers on the device: the same operations in the same order as on the host, one kernel a
// parameter, on the current context.
#ifndef EIGENQ_OPTIM_DEVICE_RULES_H
#define EIGENQ_OPTIM_DEVICE_RULES_H

#include <eigen_q/src/gpu/OptimizerKernels.h>

#include "../../device/DevicePlace.h"
#include "../../ops/device/helpers.h"
#include "../AdamW.h"
#include "../Lion.h"
#include "../Sgd.h"

namespace EigenQ {
namespace ad {
namespace internal {

/** What a step reads and writes of a parameter's matrices. Parameters are float on the device, also beside 16-bit
 * tapes: steps smaller than half an ulp of bfloat16 would be lost. */
inline const float* stepReads(const gpu::DeviceMatrix<float>& m, gpu::Context& context) {
  return static_cast<const float*>(reading(m.view(), context).data);
}
inline float* stepWrites(gpu::DeviceView<float> m, gpu::Context& context) {
  return static_cast<float*>(writing(m, context).data);
}

template <>
struct SgdRule<Device> {
  template <typename Scalar>
  static void step(const SgdOptions& o, float gradScale, const gpu::DeviceMatrix<float>& gradient,
                   gpu::DeviceView<float> w, gpu::DeviceMatrix<float>* momentum) {
    gpu::Context& context = gpu::Context::current();
    gpu::internal::SgdStep s;
    s.size = w.size();
    s.parameter = stepWrites(w, context);
    s.gradient = stepReads(gradient, context);
    if (momentum) s.momentumBuffer = stepWrites(momentum->view(), context);
    s.gradScale = gradScale;
    s.rate = static_cast<float>(o.learningRate);
    s.momentum = static_cast<float>(o.momentum);
    s.decay = static_cast<float>(o.weightDecay);
    gpu::internal::runSgd(s, nullptr, context);
  }
};

template <>
struct AdamWRule<Device> {
  static void step(const AdamWRates<float>& r, float gradScale, const gpu::DeviceMatrix<float>& gradient,
                   gpu::DeviceView<float> w, gpu::DeviceMatrix<float>& m, gpu::DeviceMatrix<float>& v) {
    gpu::Context& context = gpu::Context::current();
    gpu::internal::AdamWStep s;
    s.size = w.size();
    s.parameter = stepWrites(w, context);
    s.gradient = stepReads(gradient, context);
    s.m = stepWrites(m.view(), context);
    s.v = stepWrites(v.view(), context);
    s.gradScale = gradScale;
    s.beta1 = r.beta1;
    s.beta2 = r.beta2;
    s.rate = r.step;
    s.unbias2 = r.unbias2;
    s.eps = r.eps;
    s.keep = r.keep;
    gpu::internal::runAdamW(s, nullptr, context);
  }
};

template <>
struct LionRule<Device> {
  template <typename Scalar>
  static void step(const LionOptions& o, float gradScale, const gpu::DeviceMatrix<float>& gradient,
                   gpu::DeviceView<float> w, gpu::DeviceMatrix<float>& momentum) {
    gpu::Context& context = gpu::Context::current();
    gpu::internal::LionStep s;
    s.size = w.size();
    s.parameter = stepWrites(w, context);
    s.gradient = stepReads(gradient, context);
    s.m.values = stepWrites(momentum.view(), context);
    s.gradScale = gradScale;
    s.beta1 = static_cast<float>(o.beta1);
    s.beta2 = static_cast<float>(o.beta2);
    s.rate = static_cast<float>(o.learningRate);
    s.keep = static_cast<float>(1 - o.learningRate * o.weightDecay);
    gpu::internal::runPlainLion(s, nullptr, context);
  }
};

}  // namespace internal
}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPTIM_DEVICE_RULES_H
