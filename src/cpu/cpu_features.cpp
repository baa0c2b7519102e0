// SPDX-License-Identifier: MPL-2.0
#include "cpu_features.h"

#include <cstdlib>
#include <iterator>
#include <stdexcept>
#include <string>

#if defined(EIGENQ_HAVE_X86_KERNELS)
#include <cpuid.h>
#endif
#if defined(EIGENQ_HAVE_NEON_KERNELS) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace EigenQ {
namespace internal {
namespace {

// In the order of CpuLevel.
#if defined(EIGENQ_HAVE_X86_KERNELS)
constexpr const char* kLevelNames[] = {"portable", "avx2", "avxvnni", "avx512", "avx512vnni", "avx512bf16"};
#elif defined(EIGENQ_HAVE_NEON_KERNELS)
constexpr const char* kLevelNames[] = {"portable", "neon", "neondot"};
#else
constexpr const char* kLevelNames[] = {"portable"};
#endif

int levelLimit() {
  const char* text = std::getenv("EIGENQ_CPU");
  const int count = static_cast<int>(std::size(kLevelNames));
  if (!text || !*text) return count - 1;
  for (int level = 0; level < count; ++level) {
    if (std::string(kLevelNames[level]) == text) return level;
  }
  std::string names;
  for (const char* name : kLevelNames) names += std::string(names.empty() ? "" : ", ") + name;
  throw std::invalid_argument("EIGENQ_CPU: expected one of " + names + "; found " + text);
}

}  // namespace

const char* cpuRulesOut(CpuLevel level) {
  static const int limit = levelLimit();
  return static_cast<int>(level) > limit ? "EIGENQ_CPU rules it out" : nullptr;
}

#if defined(EIGENQ_HAVE_X86_KERNELS)

namespace {

// g++ 12 has no name for this one in __builtin_cpu_supports. CPUID leaf 7, subleaf 1, EAX bit 4.
bool hasAvxVnni() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax >> 4 & 1) != 0;
}

}  // namespace

const char* cpuLacksAvx2() {
  // F16C came a year before AVX2 and has no name in the compilers' lists.
  const bool has = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return has ? cpuRulesOut(CpuLevel::kAvx2) : "this CPU has no AVX2 with FMA";
}

const char* cpuLacksAvxVnni() {
  if (const char* lack = cpuLacksAvx2()) return lack;
  static const bool has = hasAvxVnni();
  return has ? cpuRulesOut(CpuLevel::kAvxVnni) : "this CPU has no AVX-VNNI";
}

const char* cpuLacksAvx512() {
  const bool has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  return has ? cpuRulesOut(CpuLevel::kAvx512) : "this CPU has no AVX-512 F, BW, VL, DQ";
}

const char* cpuLacksAvx512Vnni() {
  if (const char* lack = cpuLacksAvx512()) return lack;
  return __builtin_cpu_supports("avx512vnni") ? cpuRulesOut(CpuLevel::kAvx512Vnni) : "this CPU has no AVX-512 VNNI";
}

const char* cpuLacksAvx512Bf16() {
  if (const char* lack = cpuLacksAvx512()) return lack;
  return __builtin_cpu_supports("avx512bf16") ? cpuRulesOut(CpuLevel::kAvx512Bf16) : "this CPU has no AVX-512 BF16";
}

#endif

#if defined(EIGENQ_HAVE_NEON_KERNELS)

const char* cpuLacksNeon() { return cpuRulesOut(CpuLevel::kNeon); }  // every one has it

const char* cpuLacksNeonDot() {
#if defined(__linux__)
  const bool has = (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#else
  constexpr bool has = true;  // every 64-bit ARM of Apple's and Microsoft's systems that we know
#endif
  return has ? cpuRulesOut(CpuLevel::kNeonDot) : "this CPU has no dot products of bytes";
}

#endif

}  // namespace internal
}  // namespace EigenQ
