// SPDX-License-Identifier: MPL-2.0
// How the kernels of the ops are launched.
#ifndef EIGENQ_CUDA_OP_LAUNCH_CUH
#define EIGENQ_CUDA_OP_LAUNCH_CUH

#include <cuda_runtime.h>

#include <string>

#include "context_state.h"

namespace EigenQ {
namespace gpu {
namespace internal {

/** The block's dynamic shared memory. */
template <typename T>
__device__ __forceinline__ T* dynamicShared() {
  extern __shared__ __align__(128) unsigned char memory[];
  return reinterpret_cast<T*>(memory);
}

struct LaunchShape {
  dim3 grid;
  unsigned threads;
  std::size_t sharedBytes = 0;  // dynamic
};

/** Queues \a kernel on the context's stream. \param name  of the kernel, for the message of a failed launch */
template <typename... Parameters, typename... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), const LaunchShape& shape, Context& context,
            const Arguments&... arguments) {
  const DeviceGuard guard(context.device());
  const std::string what = std::string("launch of ") + name;
  constexpr std::size_t kWithoutOptIn = 40 * 1024;  // of 48 KiB, which the kernel's static arrays count towards
  if (shape.sharedBytes > kWithoutOptIn)
    check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shape.sharedBytes)),
          what.c_str(), __FILE__, __LINE__);
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.grid;
  config.blockDim = dim3(shape.threads);
  config.dynamicSmemBytes = shape.sharedBytes;
  config.stream = context.stream();
  check(cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...), what.c_str(), __FILE__, __LINE__);
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_OP_LAUNCH_CUH
