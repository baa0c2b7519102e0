// SPDX-License-Identifier: MPL-2.0
#include <eigen_q/src/FloatKernels.h>

#include <iterator>

#include "../lowering_log.h"
#include "cpu_features.h"
#include "kernels.h"

namespace EigenQ {
namespace internal {
namespace {

constexpr FloatLowering kHostFloatLowerings[] = {
#if defined(EIGENQ_HAVE_X86_KERNELS)
    {"avx512.float", cpuLacksAvx512, &kFloatAvx512},
    {"avx2.float", cpuLacksAvx2, &kFloatAvx2},
#endif
#if defined(EIGENQ_HAVE_NEON_KERNELS)
    {"neon.float", cpuLacksNeon, &kFloatNeon},
#endif
    {"portable.float", cpuLacksNothing, &kFloatPortable},
};

}  // namespace

LoweringTable<FloatLowering> hostFloatLowerings() {
  return {std::begin(kHostFloatLowerings), std::end(kHostFloatLowerings)};
}

const FloatKernels& floatKernels() {
  static const FloatKernels& chosen = *firstWilling(hostFloatLowerings()).kernels;
  return chosen;
}

}  // namespace internal
}  // namespace EigenQ
