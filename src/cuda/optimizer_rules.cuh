// SPDX-License-Identifier: MPL-2.0
// The arithmetic of one value of AdamStep and LionStep, whatever its moments are kept in. Roundings are the host's
// (src/cpu/optimizer_kernels.h): every operation rounds but the fused ones named here.
#ifndef EIGENQ_CUDA_OPTIMIZER_RULES_CUH
#define EIGENQ_CUDA_OPTIMIZER_RULES_CUH

#include "eight_values.cuh"
#include <eigen_q/src/gpu/OptimizerKernels.h>

#include <eigen_q/src/ScalarConvert.h>

namespace EigenQ {
namespace gpu {
namespace internal {

/** runAdam and runLion where the moments are floats. */
void runAdamOfFloats(const AdamStep& step, const StepInputs& inputs, Context& context);
void runLionOfFloats(const LionStep& step, const StepInputs& inputs, Context& context);

__device__ __forceinline__ void setRates(const StepRates& r, AdamStep& s) {
  s.rate = r.rate, s.keep = r.keep, s.eps = r.correction;
}
__device__ __forceinline__ void setRates(const StepRates& r, AdamWStep& s) {
  s.rate = r.rate, s.keep = r.keep, s.unbias2 = r.correction;
}
__device__ __forceinline__ void setRates(const StepRates& r, LionStep& s) { s.rate = r.rate, s.keep = r.keep; }
__device__ __forceinline__ void setRates(const StepRates& r, SgdStep& s) { s.rate = r.rate; }

/** \returns whether the step is made. */
template <typename Step>
__device__ __forceinline__ bool takeInputs(const StepInputs& inputs, Step& step) {
  if (inputs.gradScale) step.gradScale *= *inputs.gradScale;
  if (inputs.rates) setRates(*inputs.rates, step);
  return !inputs.norm || isfinite(*inputs.norm);
}

/** Subnormal results become zeros of their sign. */
__device__ __forceinline__ float flushed(float v) {
  return fabsf(v) < FLT_MIN ? __uint_as_float(__float_as_uint(v) & EigenQ::internal::kFloatSign) : v;
}

__device__ __forceinline__ float signOf(float v) { return static_cast<float>((v > 0) - (v < 0)); }

/** \param g  scaled */
__device__ __forceinline__ void updateAdam(const AdamStep& s, float g, float& m, float& v, float& w) {
  using EigenQ::internal::isFinite;
  const float rest1 = 1 - s.beta1, rest2 = 1 - s.beta2;
  const float newM = flushed(fmaf(rest1, g, s.beta1 * m));
  const float newV = flushed(fmaf(rest2 * g, g, s.beta2 * v));
  const float moved = s.keep * fmaf(-s.rate, newM / (sqrtf(newV) + s.eps), w);
  const bool finite = isFinite(newM) && isFinite(newV);
  m = finite ? newM : 0;
  v = finite ? newV : 0;
  w = finite ? moved : w;
}

/** \param g  scaled */
__device__ __forceinline__ void updateLion(const LionStep& s, float g, float& m, float& w) {
  const float rest1 = 1 - s.beta1, rest2 = 1 - s.beta2;
  const float direction = signOf(fmaf(rest1, g, s.beta1 * m));
  const float newM = flushed(fmaf(rest2, g, s.beta2 * m));
  const float moved = fmaf(-s.rate, direction, s.keep * w);
  const bool finite = EigenQ::internal::isFinite(newM);
  m = finite ? newM : 0;
  w = finite ? moved : w;
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_OPTIMIZER_RULES_CUH
