// SPDX-License-Identifier: MPL-2.0
// What the processor lacks for a kernel, in words; null for nothing. For the tables of kernels, which are compiled for
// the baseline instruction set.
//
// EIGENQ_CPU=portable|avx2|avxvnni|avx512|avx512vnni|avx512bf16, on 64-bit ARM portable|neon|neondot, rules out what
// comes after the name, so that one machine can test and time the kernels of another.
#ifndef EIGENQ_CPU_FEATURES_H
#define EIGENQ_CPU_FEATURES_H

namespace EigenQ {
namespace internal {

/** In the order in which EIGENQ_CPU rules them out. */
#if defined(EIGENQ_HAVE_NEON_KERNELS)
enum class CpuLevel { kPortable, kNeon, kNeonDot };
#else
enum class CpuLevel { kPortable, kAvx2, kAvxVnni, kAvx512, kAvx512Vnni, kAvx512Bf16 };
#endif

/** Why EIGENQ_CPU keeps kernels of \a level out; null where it does not. Throws std::invalid_argument where it holds no
 * name of a level. */
const char* cpuRulesOut(CpuLevel level);

inline const char* cpuLacksNothing() { return nullptr; }

#if defined(EIGENQ_HAVE_X86_KERNELS)
const char* cpuLacksAvx2();        // and FMA, F16C
const char* cpuLacksAvxVnni();     // and AVX2
const char* cpuLacksAvx512();      // F, BW, VL, DQ
const char* cpuLacksAvx512Vnni();  // beside those
const char* cpuLacksAvx512Bf16();  // beside those
#endif

#if defined(EIGENQ_HAVE_NEON_KERNELS)
const char* cpuLacksNeon();
const char* cpuLacksNeonDot();  // of bytes
#endif

}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_FEATURES_H
