// SPDX-License-Identifier: MPL-2.0
// The steps of optimisers on the device. Every pointer is a device pointer, also inside the steps; work is queued on
// the context's stream and nothing waits for it.
#ifndef EIGENQ_GPU_OPTIMIZERKERNELS_H
#define EIGENQ_GPU_OPTIMIZERKERNELS_H

#include "../OptimizerKernels.h"
#include "Context.h"

namespace EigenQ {
namespace gpu {
namespace internal {

using EigenQ::internal::AdamStep;
using EigenQ::internal::LionStep;
using EigenQ::internal::StepRates;

/** What a step reads on the device when it runs; null: what it was given. */
struct StepInputs {
  const float* gradScale = nullptr;  // multiplies the step's, rounded once: a clipping factor computed there
  const StepRates* rates = nullptr;  // instead of the step's: each replay of a graph has its own
  const double* norm = nullptr;      // of the gradients: where it is not finite, nothing is written
};

/** The same bits as on the host, with moments of 8 bits or float. */
void runAdam(const AdamStep& step, const StepInputs& inputs, Context& context);
void runLion(const LionStep& step, const StepInputs& inputs, Context& context);

/** For each value, every operation in float and rounded by itself, in the order of the tape's Sgd:
 *   g ← gradScale·gradient + decay·w,  b ← momentum·b + g,  w ← w - rate·b;  without b: w ← w - rate·g. */
struct SgdStep {
  Index size = 0;
  float* parameter = nullptr;
  const float* gradient = nullptr;
  float* momentumBuffer = nullptr;  // b; null without momentum
  float gradScale = 1;
  float rate = 0;
  float momentum = 0;
  float decay = 0;
};
void runSgd(const SgdStep& step, const StepInputs& inputs, Context& context);

/** For each value, every operation in float and rounded by itself, in the order of the tape's AdamW:
 *   g ← gradScale·gradient,  m ← β₁m + (1 - β₁)g,  v ← β₂v + (1 - β₂)g²,
 *   w ← keep·w - rate·m/(√v·unbias2 + eps). */
struct AdamWStep {
  Index size = 0;
  float* parameter = nullptr;
  const float* gradient = nullptr;
  float* m = nullptr;
  float* v = nullptr;
  float gradScale = 1;
  float beta1 = 0;
  float beta2 = 0;
  float rate = 0;  // learning rate/(1 - β₁ᵗ)
  float eps = 0;
  float unbias2 = 1;  // 1/√(1 - β₂ᵗ)
  float keep = 1;     // 1 - learning rate·decay
};
void runAdamW(const AdamWStep& step, const StepInputs& inputs, Context& context);

/** The tape's Lion, every operation in float and rounded by itself:
 *   w ← keep·w - rate·sign(β₁m + (1 - β₁)g),  m ← β₂m + (1 - β₂)g.
 * LionStep with a float momentum fuses and flushes as the 8-bit optimiser does; this one does not. */
void runPlainLion(const LionStep& step, const StepInputs& inputs, Context& context);

/** *sum += Σ values², in double by a tree that depends on \a count alone. */
void addSumOfSquares(const float* values, Index count, double* sum, Context& context);

/** *gradScale = maxNorm/(norm + 1e-6) where that is below 1 and the norm = √*sumOfSquares is finite, else 1: the factor
 * of clipGradNorm. \param norm  receives the norm; may be null */
void clipFactor(const double* sumOfSquares, double maxNorm, float* gradScale, double* norm, Context& context);

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_GPU_OPTIMIZERKERNELS_H
