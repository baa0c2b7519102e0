// SPDX-License-Identifier: MPL-2.0
// The readable truth: one integer sum at a time.
#include "kernels.h"

namespace EigenQ {
namespace internal {

void runInt8GemmReference(const Int8Product& p, const Int8Sink& sink) {
  for (Index i = 0; i < p.m; ++i) {
    for (Index j = 0; j < p.n; ++j) {
      std::int64_t sum = 0;
      for (Index k = 0; k < p.k; ++k) sum += std::int64_t{p.a[i * p.aStride + k]} * p.b[j * p.bStride + k];
      const std::int32_t stored = static_cast<std::int32_t>(sum);
      float value;
      sink.take(sink.context, {i, j, 1, 1, &stored, 1, &value});
    }
  }
}

}  // namespace internal
}  // namespace EigenQ
