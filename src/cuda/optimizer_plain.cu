// SPDX-License-Identifier: MPL-2.0
// optimizer_plain.cu: steps whose state is float, a thread a value, and what clips their gradients.
//
// Traffic  parameter and state in and out, gradient in: 12 B a value (SGD) to 28 B (Adam); memory is all that counts.
#include "op_launch.cuh"
#include <eigen_q/src/gpu/OptimizerKernels.h>
#include "optimizer_rules.cuh"
#include "tree_sum.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

constexpr unsigned kThreads = 256;

/** \tparam Rule  has step and update(i) */
template <typename Rule>
__global__ void __launch_bounds__(kThreads) updateValues(Rule rule, const StepInputs inputs) {
  if (!takeInputs(inputs, rule.step)) return;
  const Index stride = static_cast<Index>(gridDim.x) * kThreads;
  for (Index i = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x; i < rule.step.size; i += stride)
    rule.update(i);
}

template <typename Rule>
void runRule(const char* name, const Rule& rule, const StepInputs& inputs, Context& context) {
  if (rule.step.size == 0) return;
  const Index blocks = std::min<Index>((rule.step.size + kThreads - 1) / kThreads, Index{1} << 30);
  launch(name, updateValues<Rule>, {static_cast<unsigned>(blocks), kThreads}, context, rule, inputs);
}

struct AdamRule {
  AdamStep step;

  __device__ __forceinline__ void update(Index i) const {
    updateAdam(step, step.gradScale * step.gradient[i], step.m.values[i], step.v.values[i], step.parameter[i]);
  }
};

struct LionRule {
  LionStep step;

  __device__ __forceinline__ void update(Index i) const {
    updateLion(step, step.gradScale * step.gradient[i], step.m.values[i], step.parameter[i]);
  }
};

struct SgdRule {
  SgdStep step;

  __device__ __forceinline__ void update(Index i) const {
    const float w = step.parameter[i];
    float g = step.gradScale * step.gradient[i] + step.decay * w;
    if (step.momentumBuffer) step.momentumBuffer[i] = g = step.momentum * step.momentumBuffer[i] + g;
    step.parameter[i] = w - step.rate * g;
  }
};

struct AdamWRule {
  AdamWStep step;

  __device__ __forceinline__ void update(Index i) const {
    const AdamWStep& s = step;
    const float g = s.gradScale * s.gradient[i];
    const float m = s.beta1 * s.m[i] + (1 - s.beta1) * g;
    const float v = s.beta2 * s.v[i] + (1 - s.beta2) * (g * g);
    s.m[i] = m;
    s.v[i] = v;
    s.parameter[i] = s.keep * s.parameter[i] - s.rate * m / (sqrtf(v) * s.unbias2 + s.eps);
  }
};

struct PlainLionRule {
  LionStep step;

  __device__ __forceinline__ void update(Index i) const {
    const LionStep& s = step;
    const float g = s.gradScale * s.gradient[i], m = s.m.values[i];
    s.parameter[i] = s.keep * s.parameter[i] - s.rate * signOf(s.beta1 * m + (1 - s.beta1) * g);
    s.m.values[i] = s.beta2 * m + (1 - s.beta2) * g;
  }
};

struct Square {
  __device__ __forceinline__ double operator()(double v) const { return v * v; }
};

struct AddTo {
  double* total;

  __device__ __forceinline__ void operator()(double sum) const { *total += sum; }
};

__global__ void computeClipFactor(const double* sumOfSquares, double maxNorm, float* gradScale, double* norm) {
  const double found = sqrt(*sumOfSquares);
  const double factor = maxNorm / (found + 1e-6);
  *gradScale = isfinite(found) && factor < 1 ? static_cast<float>(factor) : 1.0f;
  if (norm) *norm = found;
}

}  // namespace

void runAdamOfFloats(const AdamStep& step, const StepInputs& inputs, Context& context) {
  runRule("runAdam", AdamRule{step}, inputs, context);
}
void runLionOfFloats(const LionStep& step, const StepInputs& inputs, Context& context) {
  runRule("runLion", LionRule{step}, inputs, context);
}
void runSgd(const SgdStep& step, const StepInputs& inputs, Context& context) {
  runRule("runSgd", SgdRule{step}, inputs, context);
}
void runAdamW(const AdamWStep& step, const StepInputs& inputs, Context& context) {
  runRule("runAdamW", AdamWRule{step}, inputs, context);
}
void runPlainLion(const LionStep& step, const StepInputs& inputs, Context& context) {
  runRule("runPlainLion", PlainLionRule{step}, inputs, context);
}

void addSumOfSquares(const float* values, Index count, double* sum, Context& context) {
  if (count == 0) return;
  treeSum("addSumOfSquares", values, count, Square(), AddTo{sum}, context);
}

void clipFactor(const double* sumOfSquares, double maxNorm, float* gradScale, double* norm, Context& context) {
  launch("computeClipFactor", computeClipFactor, {1, 1}, context, sumOfSquares, maxNorm, gradScale, norm);
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
