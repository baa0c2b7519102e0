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
    {"avx512vnni.int8", refuse<cpuLacksAvx512Vnni>, runInt8GemmAvx512Vnni, scaleInt8SumsAvx512Vnni},
    {"avx512.int8", refuse<cpuLacksAvx512>, runInt8GemmAvx512, scaleInt8SumsAvx512},
    {"avxvnni.int8", refuse<cpuLacksAvxVnni>, runInt8GemmAvxVnni, scaleInt8SumsAvxVnni},
    {"avx2.int8", refuse<cpuLacksAvx2>, runInt8GemmAvx2, scaleInt8SumsAvx2},
#endif
#if defined(EIGENQ_HAVE_NEON_KERNELS)
    {"neondot.int8", refuse<cpuLacksNeonDot>, runInt8GemmNeonDot, scaleInt8SumsNeonDot},
    {"neon.int8", refuse<cpuLacksNeon>, runInt8GemmNeon, scaleInt8SumsNeon},
#endif
    {"portable.int8", refuse<cpuLacksNothing>, runInt8GemmPortable, scaleInt8SumsPortable},
    {"reference.int8", refuse<cpuLacksNothing>, runInt8GemmReference, scaleInt8SumsPortable},
};

void storeSums(void* context, const Int8Tile& tile) {
  const Int8Product& p = *static_cast<const Int8Product*>(context);
  for (Index i = 0; i < tile.rows; ++i) {
    for (Index j = 0; j < tile.cols; ++j) {
      p.c[(tile.row + i) * p.cRowStride + (tile.col + j) * p.cColStride] = tile.sums[i * tile.ld + j];
    }
  }
}

}  // namespace

LoweringTable<Int8Lowering> hostInt8Lowerings() {
  return {std::begin(kHostInt8Lowerings), std::end(kHostInt8Lowerings)};
}

const Int8Lowering& chooseInt8Lowering(const Int8Product& product) {
  assert(product.k <= kInt8MaxDepth);
  const Int8Lowering* row = kHostInt8Lowerings;
  while (row->refuse(product)) ++row;  // the reference never refuses
  return *row;
}

void run(const Int8Lowering& row, const Int8Product& product) {
  if (product.m == 0 || product.n == 0) return;
  Int8Product p = product;
  row.run(product, {storeSums, &p});
}

void lower(const Int8Product& product) { run(chooseInt8Lowering(product), product); }

}  // namespace internal
}  // namespace EigenQ
