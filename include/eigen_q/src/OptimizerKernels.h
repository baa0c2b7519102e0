// SPDX-License-Identifier: MPL-2.0
// One step of an 8-bit optimiser in plain numbers, and the table of kernels that run it. Moments are kept as codes into
// the dynamic maps, one absmax for each block, decoded, updated and encoded anew in one pass.
// Source: Dettmers et al., 8-bit Optimizers via Block-wise Quantization, arXiv:2110.02861.
#ifndef EIGENQ_OPTIMIZERKERNELS_H
#define EIGENQ_OPTIMIZERKERNELS_H

#include <cstdint>

#include "Lowering.h"

namespace EigenQ {
namespace internal {

/** Values that share an absmax; blocks run along the parameter as it lies in memory. */
constexpr Index kOptimizerBlockSize = 256;

/** A moment of each value of a parameter: codes and ⌈size/kOptimizerBlockSize⌉ absmax, or, where codes is null, floats.
 */
struct MomentView {
  std::uint8_t* codes = nullptr;
  float* absmax = nullptr;
  float* values = nullptr;

  EIGENQ_STRONG_INLINE MomentView from(Index begin) const {
    return codes ? MomentView{codes + begin, absmax + begin / kOptimizerBlockSize, nullptr}
                 : MomentView{nullptr, nullptr, values + begin};
  }
};

/** What changes from one step of an optimiser to the next. */
struct StepRates {
  float rate = 0;
  float keep = 1;        // what decay leaves of a parameter
  float correction = 0;  // of Adam's bias: the eps of an AdamStep, the unbias2 of a gpu::internal::AdamWStep
};

/** For each value, with g = gradScale·gradient, every operation in float:
 *   m ← fma(1 - β₁, g, r(β₁m)),  v ← fma(r((1 - β₂)g), g, r(β₂v)),  w ← r(keep·fma(-rate, r(m/r(√v + eps)), w)).
 * An m or v below FLT_MIN counts as zero of its sign. Where m or v is not finite, w stays and m and v restart at 0.
 * The roundings are those of bitsandbytes' CUDA kernel, whose compiler fuses these products. */
struct AdamStep {
  Index size = 0;
  float* parameter = nullptr;
  const float* gradient = nullptr;
  MomentView m;  // signed codes
  MomentView v;  // unsigned codes
  float gradScale = 1;
  float beta1 = 0;
  float beta2 = 0;
  float rate = 0;  // learning rate·√(1 - β₂ᵗ)/(1 - β₁ᵗ)
  float eps = 0;   // times √(1 - β₂ᵗ)
  float keep = 1;  // 1 - learning rate·decay

  EIGENQ_STRONG_INLINE AdamStep part(Index begin, Index count) const {
    AdamStep s = *this;
    s.size = count;
    s.parameter += begin;
    s.gradient += begin;
    s.m = m.from(begin);
    s.v = v.from(begin);
    return s;
  }
};

/** As AdamStep:
 *   w ← fma(-rate, sign(fma(1 - β₁, g, r(β₁m))), r(keep·w)),  m ← fma(1 - β₂, g, r(β₂m));  sign(0) = 0. */
struct LionStep {
  Index size = 0;
  float* parameter = nullptr;
  const float* gradient = nullptr;
  MomentView m;  // signed codes
  float gradScale = 1;
  float beta1 = 0;
  float beta2 = 0;
  float rate = 0;  // learning rate
  float keep = 1;

  EIGENQ_STRONG_INLINE LionStep part(Index begin, Index count) const {
    LionStep s = *this;
    s.size = count;
    s.parameter += begin;
    s.gradient += begin;
    s.m = m.from(begin);
    return s;
  }
};

/** The kernels of one instruction set. All give the same bits. */
struct OptimizerLowering {
  const char* name;
  const char* (*refuse)();  // null: "mine". Otherwise the reason, in words.
  void (*adam)(const AdamStep&);
  void (*lion)(const LionStep&);
};

/** Best first; the last row never refuses. */
LoweringTable<OptimizerLowering> hostOptimizers();

/** Runs the first row that does not refuse, on up to maxThreads() threads; the result does not depend on them.
 * Allocates nothing. */
void runAdam(const AdamStep& step);
void runLion(const LionStep& step);

}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_OPTIMIZERKERNELS_H
