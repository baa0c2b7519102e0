// SPDX-License-Identifier: MPL-2.0
#include "cpu_features.h"
#include "kernels.h"

#include <cassert>
#include <iterator>

namespace EigenQ {
namespace internal {
namespace {

template <const char* (*CpuLacks)()>
const char* refuse(const Int8Product&) {
  return CpuLacks();
}

constexpr Int8Lowering kHostInt8Lowerings[] = {
#if defined(EIGENQ_HAVE_X86_KERNELS)
    {"avx512.int8", refuse<cpuLacksAvx512>, runInt8GemmAvx512},
    {"avx2.int8", refuse<cpuLacksAvx2>, runInt8GemmAvx2},
#endif
    {"portable.int8", refuse<cpuLacksNothing>, runInt8GemmPortable},
    {"reference.int8", refuse<cpuLacksNothing>, runInt8GemmReference},
};

}  // namespace

LoweringTable<Int8Lowering> hostInt8Lowerings() {
  return {std::begin(kHostInt8Lowerings), std::end(kHostInt8Lowerings)};
}

void lower(const Int8Product& product) {
  assert(product.k <= kInt8MaxDepth);
  const Int8Lowering* row = kHostInt8Lowerings;
  while (row->refuse(product)) ++row;  // the reference never refuses
  if (product.m > 0 && product.n > 0) row->run(product);
}

}  // namespace internal
}  // namespace EigenQ
