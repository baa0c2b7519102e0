// SPDX-License-Identifier: MPL-2.0
#include "convert.h"

#include <iterator>

#include "../cpu/cpu_features.h"
#include "../lowering_log.h"

namespace EigenQ {
namespace internal {
namespace {

constexpr ConvertLowering kHostConverters[] = {
#if defined(EIGENQ_HAVE_X86_KERNELS)
    {"avx512.convert", cpuLacksAvx512, &kConvertAvx512},
    {"avx2.convert", cpuLacksAvx2, &kConvertAvx2},
#endif
    {"portable.convert", cpuLacksNothing, &kConvertPortable},
};

}  // namespace

LoweringTable<ConvertLowering> hostConverters() { return {std::begin(kHostConverters), std::end(kHostConverters)}; }

const ConvertKernels& convertKernels() {
  static const ConvertKernels& chosen = *firstWilling(hostConverters()).kernels;
  return chosen;
}

}  // namespace internal
}  // namespace EigenQ
