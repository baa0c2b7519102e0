// SPDX-License-Identifier: MPL-2.0
// Launches that fail, for Errors.cpp.
#ifndef EIGENQ_TEST_CUDA_ERRORS_H
#define EIGENQ_TEST_CUDA_ERRORS_H

#include <eigen_q/src/gpu/Context.h>

namespace EigenQ {
namespace test {

/** More threads than a block has; as the library launches, and as its benchmarks do. */
void launchTooManyThreads(gpu::Context& context);
void launchTooManyThreadsInBrackets(gpu::Context& context);

/** Queues a kernel that writes to an address that is nobody's. The process has no device from then on. */
void queueFault(gpu::Context& context);

}  // namespace test
}  // namespace EigenQ

#endif  // EIGENQ_TEST_CUDA_ERRORS_H
