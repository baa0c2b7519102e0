// SPDX-License-Identifier: MPL-2.0
#include "Errors.h"

#include <src/cuda/op_launch.cuh>

namespace EigenQ {
namespace test {
namespace {

constexpr unsigned kTooMany = 4096;  // a block has 1024

__global__ void store(float* to) { to[threadIdx.x] = 1; }

}  // namespace

void launchTooManyThreads(gpu::Context& context) {
  gpu::internal::launch("store", store, {1, kTooMany}, context, static_cast<float*>(nullptr));
}

void launchTooManyThreadsInBrackets(gpu::Context& context) {
  const gpu::internal::DeviceGuard guard(context.device());
  store<<<1, kTooMany, 0, context.stream()>>>(nullptr);
  EIGENQ_CUDA_CHECK_LAUNCH("store");
}

void queueFault(gpu::Context& context) {
  gpu::internal::launch("store", store, {1, 1}, context, reinterpret_cast<float*>(0x10));
}

}  // namespace test
}  // namespace EigenQ
