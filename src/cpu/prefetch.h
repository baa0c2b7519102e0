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

/** How far ahead of what it multiplies a kernel asks for weights that it reads from one end to the other, in bytes. The
 * hardware follows a stream to the end of its page of 4 KiB, so that requests are worth most pages ahead. One row of X,
 * 4096×4096 NF4 weights, AVX-512, one thread of a Zen 5, GB/s: 25 with none, 21 at 1 KiB, 23 at 2, 27 at 4, 28 at 8, 30
 * from 16 on. */
constexpr Index kStreamAhead = 16384;

/** Functions that do nothing but this must be inlined: g++ 12 takes a call of them for one without effect, and drops
 * it. */
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
