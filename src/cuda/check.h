// SPDX-License-Identifier: MPL-2.0
// Every status of CUDA, cuBLAS and cuBLASLt passes through here, in every build type.
#ifndef EIGENQ_CUDA_CHECK_H
#define EIGENQ_CUDA_CHECK_H

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <eigen_q/src/DeviceSupport.h>

namespace EigenQ {
namespace gpu {
namespace internal {

/** Throws CudaError, or the class of it that fits the status. */
[[noreturn]] void throwCudaError(cudaError_t status, const char* expression, const char* file, int line);
[[noreturn]] void throwCublasError(cublasStatus_t status, const char* expression, const char* file, int line);

/** Throws NoCudaDevice, saying what to do, where this build has no code for a device. \param index  the device's number
 */
void requireCode(const DeviceProperties& device, int index, const char* file, int line);

inline void check(cudaError_t status, const char* expression, const char* file, int line) {
  if (status != cudaSuccess) throwCudaError(status, expression, file, line);
}
inline void check(cublasStatus_t status, const char* expression, const char* file, int line) {
  if (status != CUBLAS_STATUS_SUCCESS) throwCublasError(status, expression, file, line);
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#define EIGENQ_CUDA_CHECK(expression) ::EigenQ::gpu::internal::check((expression), #expression, __FILE__, __LINE__)

/** After a launch: a bad configuration shows here; a fault inside the kernel shows at the next synchronisation. */
#define EIGENQ_CUDA_CHECK_LAUNCH(kernel) \
  ::EigenQ::gpu::internal::check(cudaGetLastError(), "launch of " kernel, __FILE__, __LINE__)

#endif  // EIGENQ_CUDA_CHECK_H
