// SPDX-License-Identifier: MPL-2.0
// Threads and scratch memory of the host kernels. Nothing here is a template that a kernel file could instantiate with
// its own instruction set and hand to the linker for everybody.
#ifndef EIGENQ_CPU_PARALLEL_H
#define EIGENQ_CPU_PARALLEL_H

#include <eigen_q/src/Views.h>

namespace EigenQ {
namespace internal {

/** Calls task(context, i) for every i in [0, count), each exactly once, on up to maxThreads() threads; returns when all
 * are done. A call from inside a task, or while another thread's call is running, works through its tasks alone. The
 * first exception is rethrown here. */
void parallelFor(Index count, void (*task)(void* context, Index i), void* context);

/** Scratch memory of the calling thread, 64-byte aligned, at least \a count floats; it is kept for the next call, and
 * two slots never overlap. Throws std::bad_alloc. */
enum class Scratch { kActivations, kPanel, kTile };
float* scratch(Scratch slot, Index count);

}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_PARALLEL_H
