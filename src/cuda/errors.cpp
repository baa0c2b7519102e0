// SPDX-License-Identifier: MPL-2.0
#include <eigen_q/src/gpu/CudaError.h>

#include <string>

#include "architectures.h"
#include "check.h"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

/** "src/cuda/x.cu:12" of a longer path: where the sources lie is nobody's business. */
std::string placeOf(const char* file, int line) {
  std::string path = file;
  const std::size_t ours = path.rfind("src/cuda/");
  if (ours != std::string::npos) path.erase(0, ours);
  return path + ":" + std::to_string(line);
}

bool meansNoDevice(cudaError_t status) {
  switch (status) {
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorInvalidDevice:
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInitializationError:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorDevicesUnavailable:
    case cudaErrorStubLibrary:
      return true;
    default:
      return false;
  }
}

/** Whether a kernel that was queued earlier has failed. CUDA gives this status to every call from then on. */
bool isSticky(cudaError_t status) {
  switch (status) {
    case cudaErrorAssert:
    case cudaErrorECCUncorrectable:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalAddress:
    case cudaErrorIllegalInstruction:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorMisalignedAddress:
      return true;
    default:
      return false;
  }
}

/** What the runtime's own words leave out. */
std::string adviceFor(cudaError_t status) {
  if (isSticky(status))
    return "; a kernel queued before has failed, and CUDA refuses all further work of this process: compute-sanitizer "
           "names the kernel";
  if (status == cudaErrorNoKernelImageForDevice)
    return "; it was built for architectures " + builtArchitectures() +
           ": name the device's in CMAKE_CUDA_ARCHITECTURES";
  return {};
}

}  // namespace

void throwCudaError(cudaError_t status, const char* expression, const char* file, int line) {
  (void)cudaGetLastError();  // so that the next launch does not report this one again
  const std::string what =
      std::string(expression) + ": " + cudaGetErrorName(status) + ": " + cudaGetErrorString(status) + adviceFor(status);
  const std::string place = placeOf(file, line);
  if (status == cudaErrorMemoryAllocation) throw CudaOutOfMemory(what, status, place);
  if (meansNoDevice(status)) throw NoCudaDevice(what, status, place);
  throw CudaError(what, status, place);
}

void throwCublasError(cublasStatus_t status, const char* expression, const char* file, int line) {
  const std::string what =
      std::string(expression) + ": " + cublasLtGetStatusName(status) + ": " + cublasLtGetStatusString(status);
  if (status == CUBLAS_STATUS_ALLOC_FAILED) throw CudaOutOfMemory(what, status, placeOf(file, line));
  throw CudaError(what, status, placeOf(file, line));
}

void requireCode(const DeviceProperties& device, int index, const char* file, int line) {
  const std::string why = whyNoCode(builtArchitectures(), device, index);
  if (!why.empty()) throw NoCudaDevice(why, cudaErrorNoKernelImageForDevice, placeOf(file, line));
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
