// SPDX-License-Identifier: MPL-2.0
#include "Case.h"

#include <algorithm>

#include <src/cuda/check.h>

namespace EigenQ {
namespace bench {

int coldCopies(double bytes) {
  int device = 0, cache = 0;
  EIGENQ_CUDA_CHECK(cudaGetDevice(&device));
  EIGENQ_CUDA_CHECK(cudaDeviceGetAttribute(&cache, cudaDevAttrL2CacheSize, device));
  const double together = std::max(120e6, 2.0 * cache);
  return std::max(4, static_cast<int>(together / bytes) + 1);
}

double weightBytes(const KernelSpec& spec, const Shape& shape, ScalarType scalar) {
  const double n = static_cast<double>(shape.n), values = n * static_cast<double>(shape.k);
  switch (spec.format) {
    case KernelSpec::Format::kDense:
      return values * (scalar == ScalarType::kFloat ? 4 : 2);
    case KernelSpec::Format::kNF4:
      return values * (0.5 + 4.0 / 64);
    case KernelSpec::Format::kNF4Nested:
      return values * (0.5 + 1.0 / 64 + 4.0 / (64 * 256));
    case KernelSpec::Format::kInt8:
      break;
  }
  return values + 4 * n;
}

std::string mismatch(Index i, Index j, double expected, double found) {
  return "(" + std::to_string(i) + ", " + std::to_string(j) + "): expected " + std::to_string(expected) + ", found " +
         std::to_string(found);
}

}  // namespace bench
}  // namespace EigenQ
