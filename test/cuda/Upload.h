// SPDX-License-Identifier: MPL-2.0
// Device arrays for tests that call kernels on plain pointers.
#ifndef EIGENQ_TEST_CUDA_UPLOAD_H
#define EIGENQ_TEST_CUDA_UPLOAD_H

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include <cuda_runtime_api.h>

#include <eigen_q/src/gpu/Context.h>

namespace EigenQ {
namespace test {

inline void requireCuda(cudaError_t status, const char* what) {
  if (status != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
}

/** \a size elements in device memory between two guards. Memory starts as noise, so that what a kernel forgets to write
 * shows; the guards show what it should not have written. */
template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(std::size_t size) : m_size(size) {
    requireCuda(cudaMalloc(reinterpret_cast<void**>(&m_memory), bytes() + 2 * kGuard), "cudaMalloc");
    requireCuda(cudaMemset(m_memory, kNoise, bytes() + 2 * kGuard), "cudaMemset");
    requireCuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");  // contexts' streams do not wait for this one
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) { upload(values); }
  ~DeviceArray() { (void)cudaFree(m_memory); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* data() const { return reinterpret_cast<T*>(m_memory + kGuard); }
  std::size_t size() const { return m_size; }

  /** \a values are as many as the array's. */
  void upload(const std::vector<T>& values) {
    requireCuda(cudaMemcpy(data(), values.data(), bytes(), cudaMemcpyHostToDevice), "upload");
    // From pageable memory the copy may still be under way, and contexts' streams do not wait for it.
    requireCuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  }

  /** After all that \a context holds. Throws where a guard has changed. */
  std::vector<T> toHost(gpu::Context& context) const {
    context.synchronize();
    std::vector<unsigned char> all(bytes() + 2 * kGuard);
    requireCuda(cudaMemcpy(all.data(), m_memory, all.size(), cudaMemcpyDeviceToHost), "download");
    const auto isNoise = [](unsigned char byte) { return byte == kNoise; };
    if (!std::all_of(all.begin(), all.begin() + kGuard, isNoise)) throw std::runtime_error("written before the array");
    if (!std::all_of(all.end() - kGuard, all.end(), isNoise)) throw std::runtime_error("written behind the array");
    std::vector<T> values(m_size);
    if (m_size > 0) std::memcpy(values.data(), all.data() + kGuard, bytes());
    return values;
  }

 private:
  static constexpr std::size_t kGuard = 256;  // keeps the alignment of cudaMalloc
  static constexpr unsigned char kNoise = 0xa5;
  std::size_t bytes() const { return m_size * sizeof(T); }

  std::size_t m_size;
  unsigned char* m_memory = nullptr;
};

}  // namespace test
}  // namespace EigenQ

#endif  // EIGENQ_TEST_CUDA_UPLOAD_H
