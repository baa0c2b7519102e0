// SPDX-License-Identifier: MPL-2.0
// The scalars of dense operands inside kernels: float, __half, __nv_bfloat16; conversions round once, to nearest even.
#ifndef EIGENQ_CUDA_SCALAR_CUH
#define EIGENQ_CUDA_SCALAR_CUH

#include <eigen_q/src/Views.h>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <stdexcept>

namespace EigenQ {
namespace gpu {
namespace internal {

__device__ __forceinline__ float toFloat(float v) { return v; }
__device__ __forceinline__ float toFloat(__half v) { return __half2float(v); }
__device__ __forceinline__ float toFloat(__nv_bfloat16 v) { return __bfloat162float(v); }

template <typename T>
__device__ __forceinline__ T fromFloat(float v);
template <>
__device__ __forceinline__ float fromFloat<float>(float v) {
  return v;
}
template <>
__device__ __forceinline__ __half fromFloat<__half>(float v) {
  return __float2half_rn(v);
}
template <>
__device__ __forceinline__ __nv_bfloat16 fromFloat<__nv_bfloat16>(float v) {
  return __float2bfloat16_rn(v);
}

/** Two 16-bit values as they lie in memory, the first in the lower half. */
template <typename T>
__device__ __forceinline__ std::uint32_t packPair(float first, float second);
template <>
__device__ __forceinline__ std::uint32_t packPair<__half>(float first, float second) {
  const __half2 pair = __floats2half2_rn(first, second);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}
template <>
__device__ __forceinline__ std::uint32_t packPair<__nv_bfloat16>(float first, float second) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}

template <typename T>
struct TypeTag {
  using type = T;
};

/** Calls \a f with the TypeTag of a ScalarType. Doubles stay on the host. */
template <typename F>
void dispatchDeviceScalar(ScalarType scalar, F&& f) {
  switch (scalar) {
    case ScalarType::kFloat:
      return f(TypeTag<float>());
    case ScalarType::kHalf:
      return f(TypeTag<__half>());
    case ScalarType::kBFloat16:
      return f(TypeTag<__nv_bfloat16>());
    case ScalarType::kDouble:
      break;
  }
  throw std::invalid_argument("EigenQ::gpu: expected float, half or bfloat16 matrices, found double");
}

/** The same where the scalar is known to be half or bfloat16. */
template <typename F>
void dispatchSixteenBits(ScalarType scalar, F&& f) {
  scalar == ScalarType::kHalf ? f(TypeTag<__half>()) : f(TypeTag<__nv_bfloat16>());
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_SCALAR_CUH
