// SPDX-License-Identifier: MPL-2.0
// The steps of the float optimisers on the device: the same operations in the same order as on the host, one kernel a
// parameter, on the current context.
#ifndef EIGENQ_OPTIM_DEVICE_RULES_H
#define EIGENQ_OPTIM_DEVICE_RULES_H

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

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

/** A step that a graph would repeat as it was captured, learning rate and all, is an error rather than a surprise. */
inline void refuseCapture(const char* optimizer, const gpu::Context& context) {
  if (context.isCapturing())
    throw std::logic_error(std::string(optimizer) +
                           ": step() inside a graph capture: replays would repeat its learning rate and step count; "
                           "capture AdamW, whose prepareReplay() renews them, or step outside the graph");
}

template <>
struct SgdRule<Device> {
  template <typename Scalar>
  static void step(const SgdOptions& o, float gradScale, const gpu::DeviceMatrix<float>& gradient,
                   gpu::DeviceView<float> w, gpu::DeviceMatrix<float>* momentum) {
    gpu::Context& context = gpu::Context::current();
    refuseCapture("Sgd", context);
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

/** One column of rates a parameter, on the device and, until they are sent, on the host. */
template <>
class AdamWReplay<Device> {
 public:
  using Rates = gpu::internal::AdamWRates;

  explicit AdamWReplay(std::size_t parameters)
      : m_next(kFloats, static_cast<Eigen::Index>(parameters)), m_current(kFloats, m_next.cols()) {}

  static bool isCapturing() { return gpu::Context::current().isCapturing(); }
  const std::vector<std::size_t>& captured() const { return m_captured; }

  /** Where a step that is captured now will find its rates; null outside captures. */
  const Rates* capture(std::size_t i, gpu::Context& context) {
    if (!context.isCapturing()) return nullptr;
    if (std::find(m_captured.begin(), m_captured.end(), i) == m_captured.end()) m_captured.push_back(i);
    return reinterpret_cast<const Rates*>(stepReads(m_current, context)) + i;
  }

  /** \param value  which the replay writes: contexts that read it now come first */
  void set(std::size_t i, const AdamWRates<float>& r, gpu::DeviceView<float> value) {
    stepWrites(value, gpu::Context::current());
    m_next.col(static_cast<Eigen::Index>(i)) << r.step, r.unbias2, r.keep;
  }
  void send() { m_current.view().copyFromHost(m_next); }

 private:
  static constexpr Eigen::Index kFloats = 3;
  static_assert(sizeof(Rates) == kFloats * sizeof(float), "rate, unbias2, keep");

  Eigen::MatrixXf m_next;
  gpu::DeviceMatrix<float> m_current;
  std::vector<std::size_t> m_captured;  // by the last captures of step()
};

template <>
struct AdamWRule<Device> {
  static void step(const AdamWRates<float>& r, AdamWReplay<Device>& replay, std::size_t i, float gradScale,
                   const gpu::DeviceMatrix<float>& gradient, gpu::DeviceView<float> w, gpu::DeviceMatrix<float>& m,
                   gpu::DeviceMatrix<float>& v) {
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
    s.eps = r.eps;
    s.rates = {r.step, r.unbias2, r.keep};
    s.ratesAt = replay.capture(i, context);
    gpu::internal::runAdamW(s, nullptr, context);
  }
};

template <>
struct LionRule<Device> {
  template <typename Scalar>
  static void step(const LionOptions& o, float gradScale, const gpu::DeviceMatrix<float>& gradient,
                   gpu::DeviceView<float> w, gpu::DeviceMatrix<float>& momentum) {
    gpu::Context& context = gpu::Context::current();
    refuseCapture("Lion", context);
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
