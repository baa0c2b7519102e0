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

/** One column of rates a parameter, on the device and, until they are sent, on the host; and the norm that has to be
 * finite for a step. */
template <>
class OptimizerReplay<Device> {
 public:
  explicit OptimizerReplay(std::size_t parameters) : m_next(kFloats, static_cast<Eigen::Index>(parameters)) {}

  /** While it lives, steps depend on a DeviceNorm. */
  class Condition {
   public:
    template <typename Norm>
    Condition(OptimizerReplay& replay, const Norm& norm) : m_replay(replay) {
      m_replay.m_norm = norm.onDevice(gpu::Context::current());
    }
    ~Condition() { m_replay.m_norm = nullptr; }
    Condition(const Condition&) = delete;
    Condition& operator=(const Condition&) = delete;

   private:
    OptimizerReplay& m_replay;
  };
  template <typename Norm>
  static bool isKnownNotFinite(const Norm&) {
    return false;
  }

  static bool isCapturing() { return gpu::Context::current().isCapturing(); }
  const std::vector<std::size_t>& captured() const { return m_captured; }

  /** What a step of parameter \a i reads on the device: inside of a capture, the rates of the replay. */
  gpu::internal::StepInputs inputs(std::size_t i, gpu::Context& context) {
    if (m_current.size() == 0) m_current.resize(kFloats, m_next.cols(), context);  // a capture cannot ask for memory
    gpu::internal::StepInputs inputs;
    inputs.norm = m_norm;
    if (!context.isCapturing()) return inputs;
    if (std::find(m_captured.begin(), m_captured.end(), i) == m_captured.end()) m_captured.push_back(i);
    inputs.rates = reinterpret_cast<const StepRates*>(stepReads(m_current, context)) + i;
    return inputs;
  }

  /** \param value  which the replay writes: contexts that read it now come first */
  void set(std::size_t i, const StepRates& r, gpu::DeviceView<float> value) {
    stepWrites(value, gpu::Context::current());
    m_next.col(static_cast<Eigen::Index>(i)) << r.rate, r.keep, r.correction;
  }
  void send() {
    if (!m_captured.empty()) m_current.view().copyFromHost(m_next);
  }

 private:
  static constexpr Eigen::Index kFloats = 3;
  static_assert(sizeof(StepRates) == kFloats * sizeof(float), "rate, keep, correction");

  Eigen::MatrixXf m_next;
  gpu::DeviceMatrix<float> m_current;
  std::vector<std::size_t> m_captured;  // by the last captures of step()
  const double* m_norm = nullptr;       // on the device; null: steps are made whatever the gradient
};

template <>
struct SgdRule<Device> {
  template <typename Scalar>
  static void step(const SgdOptions& o, OptimizerReplay<Device>& replay, std::size_t i, float gradScale,
                   const gpu::DeviceMatrix<float>& gradient, gpu::DeviceView<float> w,
                   gpu::DeviceMatrix<float>* momentum) {
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
    gpu::internal::runSgd(s, replay.inputs(i, context), context);
  }
};

template <>
struct AdamWRule<Device> {
  static void step(const AdamWRates<float>& r, OptimizerReplay<Device>& replay, std::size_t i, float gradScale,
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
    s.rate = r.step;
    s.unbias2 = r.unbias2;
    s.keep = r.keep;
    gpu::internal::runAdamW(s, replay.inputs(i, context), context);
  }
};

template <>
struct LionRule<Device> {
  template <typename Scalar>
  static void step(const LionOptions& o, OptimizerReplay<Device>& replay, std::size_t i, float gradScale,
                   const gpu::DeviceMatrix<float>& gradient, gpu::DeviceView<float> w,
                   gpu::DeviceMatrix<float>& momentum) {
    gpu::Context& context = gpu::Context::current();
    gpu::internal::LionStep s;
    s.size = w.size();
    s.parameter = stepWrites(w, context);
    s.gradient = stepReads(gradient, context);
    s.m.values = stepWrites(momentum.view(), context);
    s.gradScale = gradScale;
    s.beta1 = static_cast<float>(o.beta1);
    s.beta2 = static_cast<float>(o.beta2);
    const StepRates r = lionRates(o);
    s.rate = r.rate;
    s.keep = r.keep;
    gpu::internal::runPlainLion(s, replay.inputs(i, context), context);
  }
};

}  // namespace internal
}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPTIM_DEVICE_RULES_H
