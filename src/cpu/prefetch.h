// SPDX-License-Identifier: MPL-2.0
// Asking for memory before it is needed. Internal linkage; see simd.h for the reason.
#ifndef EIGENQ_CPU_PREFETCH_H
#define EIGENQ_CPU_PREFETCH_H

#include <eigen_q/src/Macros.h>
#include <eigen_q/src/Views.h>

namespace EigenQ {
namespace internal {
namespace {

constexpr Index kCacheLine = 64;

EIGENQ_STRONG_INLINE void prefetch(const void* at) {
#if defined(__GNUC__)
  __builtin_prefetch(at);
#else
  (void)at;
#endif
}

}  // namespace
}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_PREFETCH_H
