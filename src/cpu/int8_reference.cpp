// SPDX-License-Identifier: MPL-2.0
// The readable truth: one integer sum at a time.
#include "kernels.h"

namespace EigenQ {
namespace internal {

void runInt8GemmReference(const Int8Product& p) {
  for (Index i = 0; i < p.m; ++i) {
    for (Index j = 0; j < p.n; ++j) {
      std::int64_t sum = 0;
      for (Index k = 0; k < p.k; ++k) sum += std::int64_t{p.a[i * p.aStride + k]} * p.b[j * p.bStride + k];
      p.c[i * p.cRowStride + j * p.cColStride] = static_cast<std::int32_t>(sum);
    }
  }
}

}  // namespace internal
}  // namespace EigenQ
