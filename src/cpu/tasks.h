// SPDX-License-Identifier: MPL-2.0
// Cutting a kernel's work into tasks. Internal linkage; see simd.h for the reason.
#ifndef EIGENQ_CPU_TASKS_H
#define EIGENQ_CPU_TASKS_H

#include "parallel.h"

namespace EigenQ {
namespace internal {
namespace {

constexpr Index ceilDiv(Index a, Index b) { return (a + b - 1) / b; }
constexpr Index least(Index a, Index b) { return a < b ? a : b; }

/** Below this many multiplications a product is done before a second thread has woken up. */
constexpr Index kWorthThreads = Index(1) << 18;

template <typename Task>
void forEachTask(Index count, Index work, const Task& task) {
  if (work < kWorthThreads) {
    for (Index i = 0; i < count; ++i) task(i);
    return;
  }
  parallelFor(
      count, [](void* context, Index i) { (*static_cast<const Task*>(context))(i); }, const_cast<Task*>(&task));
}

}  // namespace
}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_TASKS_H
