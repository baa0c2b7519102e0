// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_GPU_CUDAERROR_H
#define EIGENQ_GPU_CUDAERROR_H

#include <stdexcept>
#include <string>

namespace EigenQ {

/** A call into CUDA, cuBLAS or cuBLASLt that failed. Every status is checked in every build type. Objects that were
 * handed to the call stay valid. After a fault inside a kernel CUDA refuses all further work of the process. */
class CudaError : public std::runtime_error {
 public:
  /** \param what   the call as written, and what the runtime says of its status
   *  \param code   cudaError_t or cublasStatus_t as a number
   *  \param place  file:line */
  CudaError(const std::string& what, int code, const std::string& place)
      : std::runtime_error(what + " (" + place + ")"), m_code(code) {}

  int code() const { return m_code; }

 private:
  int m_code;
};

/** Device memory ran out; nothing was changed. */
class CudaOutOfMemory : public CudaError {
 public:
  using CudaError::CudaError;
};

/** No usable device: none, no driver, a driver too old, or one whose architecture this build has no code for. */
class NoCudaDevice : public CudaError {
 public:
  using CudaError::CudaError;
};

}  // namespace EigenQ

#endif  // EIGENQ_GPU_CUDAERROR_H
