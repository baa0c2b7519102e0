// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_IO_DTYPE_H
#define EIGENQ_IO_DTYPE_H

#include <complex>
#include <cstdint>
#include <optional>
#include <string_view>
#include <type_traits>

#include <Eigen/Core>

namespace EigenQ {
namespace io {

/** Element types of safetensors files, in the order of rising alignment in which a writer sorts them (the last first).
 * Source: huggingface/safetensors, Dtype. */
enum class DType : std::uint8_t {
  kBool,
  kF4,
  kF6E2M3,
  kF6E3M2,
  kU8,
  kI8,
  kF8E5M2,
  kF8E4M3,
  kF8E8M0,
  kF8E4M3Fnuz,
  kF8E5M2Fnuz,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kC64,
  kF64,
  kI64,
  kU64,
};

/** Bits of one element; 4 and 6 for the types that share bytes. */
int bitsOf(DType dtype);

/** The name in a header, for example "BF16" or "F8_E4M3". */
const char* nameOf(DType dtype);

/** The type of that name; nothing where there is none. */
std::optional<DType> dtypeNamed(std::string_view name);

namespace internal {
template <typename T>
constexpr DType dtypeOf() {
  if constexpr (std::is_same<T, float>::value) return DType::kF32;
  if constexpr (std::is_same<T, double>::value) return DType::kF64;
  if constexpr (std::is_same<T, Eigen::half>::value) return DType::kF16;
  if constexpr (std::is_same<T, Eigen::bfloat16>::value) return DType::kBF16;
  if constexpr (std::is_same<T, std::complex<float>>::value) return DType::kC64;
  if constexpr (std::is_same<T, bool>::value) return DType::kBool;
  if constexpr (std::is_integral<T>::value && !std::is_same<T, bool>::value) {
    constexpr bool isSigned = std::is_signed<T>::value;
    if constexpr (sizeof(T) == 1) return isSigned ? DType::kI8 : DType::kU8;
    if constexpr (sizeof(T) == 2) return isSigned ? DType::kI16 : DType::kU16;
    if constexpr (sizeof(T) == 4) return isSigned ? DType::kI32 : DType::kU32;
    if constexpr (sizeof(T) == 8) return isSigned ? DType::kI64 : DType::kU64;
  }
}
}  // namespace internal

/** The DType that stores a C++ type: float, double, Eigen::half, Eigen::bfloat16, std::complex<float>, bool and the
 * integers of 8 to 64 bits. */
template <typename T>
inline constexpr DType kDTypeOf = internal::dtypeOf<T>();

}  // namespace io
}  // namespace EigenQ

#endif  // EIGENQ_IO_DTYPE_H
