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

/** The first statement of a kernel that launchEarly() queues: its blocks are placed while the last kernel of the stream
 * still runs, and wait here until what that one wrote is visible. In the small kernels of a step of generation this
 * hides half of what a launch costs. */
__device__ __forceinline__ void joinStream() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/** joinStream() for a kernel whose successor reads memory before it joins: that one is placed only when all that came
 * before this kernel is visible, so that what it reads early may be of any kernel but this one. */
__device__ __forceinline__ void joinStreamThenAllow() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

struct LaunchShape {
  dim3 grid;
  unsigned threads;
  std::size_t sharedBytes = 0;  // dynamic
  unsigned cluster = 1;         // blocks side by side in x that share one another's memory
  bool together = false;        // all blocks find room at once, so that they may wait for one another
};

/** Whether kernels were compiled for this very device, so that joinStream() is what it says: the code of an older
 * architecture would not wait. */
inline bool joinsStreams(const Context& context) {
#ifdef EIGENQ_HAVE_SM90A
  return context.properties().major == 9 && context.properties().minor == 0;
#else
  (void)context;
  return false;
#endif
}

namespace detail {
inline void checkLaunch(cudaError_t status, const char* name) {
  if (status != cudaSuccess) throwCudaError(status, (std::string("launch of ") + name).c_str(), __FILE__, __LINE__);
}

template <typename... Parameters, typename... Arguments>
void launch(bool early, const char* name, void (*kernel)(Parameters...), const LaunchShape& shape, Context& context,
            const Arguments&... arguments) {
  const DeviceGuard guard(context.device());
  constexpr std::size_t kWithoutOptIn = 40 * 1024;  // of 48 KiB, which the kernel's static arrays count towards
  if (shape.sharedBytes > kWithoutOptIn)
    checkLaunch(allowSharedMemory(reinterpret_cast<const void*>(kernel), context.device(), shape.sharedBytes), name);
  cudaLaunchAttribute attributes[3] = {};
  unsigned count = 0;
  if (early) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (shape.cluster > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count++].val.clusterDim = {shape.cluster, 1, 1};
  }
  if (shape.together) {
    attributes[count].id = cudaLaunchAttributeCooperative;
    attributes[count++].val.cooperative = 1;
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.grid;
  config.blockDim = dim3(shape.threads);
  config.dynamicSmemBytes = shape.sharedBytes;
  config.stream = context.stream();
  config.attrs = attributes;
  config.numAttrs = count;
  checkLaunch(cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...), name);
}
}  // namespace detail

/** Queues \a kernel on the context's stream. \param name  of the kernel, for the message of a failed launch */
template <typename... Parameters, typename... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), const LaunchShape& shape, Context& context,
            const Arguments&... arguments) {
  detail::launch(false, name, kernel, shape, context, arguments...);
}

/** The same for a kernel that begins with joinStream(). */
template <typename... Parameters, typename... Arguments>
void launchEarly(const char* name, void (*kernel)(Parameters...), const LaunchShape& shape, Context& context,
                 const Arguments&... arguments) {
  detail::launch(joinsStreams(context), name, kernel, shape, context, arguments...);
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_OP_LAUNCH_CUH
