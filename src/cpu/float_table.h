// SPDX-License-Identifier: MPL-2.0
// The row of hostFloatLowerings() for one instruction set. Internal linkage; see simd.h for the reason.
#ifndef EIGENQ_CPU_FLOAT_TABLE_H
#define EIGENQ_CPU_FLOAT_TABLE_H

#include "float_attention.h"
#include "float_dropout.h"
#include "float_product.h"
#include "float_rows.h"
#include "kernels.h"

namespace EigenQ {
namespace internal {
namespace {

template <typename Isa>
constexpr FloatKernels floatKernelsOf() {
  using Attention = AttentionKernels<Isa>;
  using Rows = RowKernels<Isa>;
  return {
      &multiplyFloat<Isa>, &Attention::attend,    &Attention::attendBackward, &Rows::rmsNorm,   &Rows::rmsNormBackward,
      &Rows::swiglu,       &Rows::swigluBackward, &Rows::logSumExp,           &Rows::scaledExp, &dropFloats,
      &Rows::rope,         &Rows::adamW};
}

}  // namespace
}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_FLOAT_TABLE_H
