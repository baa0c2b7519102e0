// SPDX-License-Identifier: MPL-2.0
// What the processor lacks for a kernel, in words; null for nothing. For the tables of kernels, which are compiled for
// the baseline instruction set.
#ifndef EIGENQ_CPU_FEATURES_H
#define EIGENQ_CPU_FEATURES_H

namespace EigenQ {
namespace internal {

#if defined(EIGENQ_HAVE_X86_KERNELS)
inline const char* cpuLacksAvx2() {
  const bool has = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return has ? nullptr : "this CPU has no AVX2 with FMA";
}
inline const char* cpuLacksAvx512() {
  const bool has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  return has ? nullptr : "this CPU has no AVX-512 F, BW, VL, DQ";
}
#endif
inline const char* cpuLacksNothing() { return nullptr; }

}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_FEATURES_H
