// SPDX-License-Identifier: MPL-2.0
// Eight consecutive values in registers: what a thread of the quantisers loads, looks at and stores at once. 16 bits a
// value make one 16-byte access, floats two.
#ifndef EIGENQ_CUDA_EIGHT_VALUES_CUH
#define EIGENQ_CUDA_EIGHT_VALUES_CUH

#include <cfloat>
#include <cstdint>

#include "alignment.h"
#include "scalar.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {

constexpr int kEight = 8;

template <typename T>
struct EightValues {
  static constexpr int kWords = kEight * static_cast<int>(sizeof(T)) / 4;
  std::uint32_t word[kWords];  // as in memory
};

/** \a from is 16-byte aligned. */
template <typename T>
__device__ __forceinline__ EightValues<T> loadEight(const T* from) {
  EightValues<T> v;
#pragma unroll
  for (int i = 0; i < EightValues<T>::kWords / 4; ++i) {
    const uint4 part = __ldg(reinterpret_cast<const uint4*>(from) + i);
    v.word[4 * i] = part.x;
    v.word[4 * i + 1] = part.y;
    v.word[4 * i + 2] = part.z;
    v.word[4 * i + 3] = part.w;
  }
  return v;
}

template <int Size>
struct RawBits;
template <>
struct RawBits<2> {
  using type = std::uint16_t;
};
template <>
struct RawBits<4> {
  using type = std::uint32_t;
};

/** Those of the eight values at \a from that lie before \a count; zeros stand for the others. */
template <typename T>
__device__ __forceinline__ EightValues<T> loadSome(const T* from, Index count) {
  using Bits = typename RawBits<sizeof(T)>::type;
  constexpr int perWord = 4 / static_cast<int>(sizeof(T));
  EightValues<T> v = {};
#pragma unroll
  for (int k = 0; k < kEight; ++k) {
    if (k >= count) break;
    const std::uint32_t bits = reinterpret_cast<const Bits*>(from)[k];
    v.word[k / perWord] |= bits << (k % perWord * 16);
  }
  return v;
}

/** \param count  values left at \a from, maybe none */
template <typename T>
__device__ __forceinline__ EightValues<T> loadEight(const T* from, Index count, bool aligned) {
  return aligned && count >= kEight ? loadEight(from) : loadSome(from, count);
}

__device__ __forceinline__ float wordToFloat(std::uint32_t word) { return __uint_as_float(word); }

__device__ __forceinline__ void toFloats(const EightValues<float>& v, float (&f)[kEight]) {
#pragma unroll
  for (int k = 0; k < kEight; ++k) f[k] = wordToFloat(v.word[k]);
}
__device__ __forceinline__ void toFloats(const EightValues<__nv_bfloat16>& v, float (&f)[kEight]) {
#pragma unroll
  for (int k = 0; k < kEight / 2; ++k) {
    f[2 * k] = wordToFloat(v.word[k] << 16);
    f[2 * k + 1] = wordToFloat(v.word[k] & 0xffff0000u);
  }
}
__device__ __forceinline__ __half2 asHalves(std::uint32_t word) { return *reinterpret_cast<const __half2*>(&word); }
__device__ __forceinline__ __nv_bfloat162 asBfloats(std::uint32_t word) {
  return *reinterpret_cast<const __nv_bfloat162*>(&word);
}
__device__ __forceinline__ void toFloats(const EightValues<__half>& v, float (&f)[kEight]) {
#pragma unroll
  for (int k = 0; k < kEight / 2; ++k) {
    const float2 pair = __half22float2(asHalves(v.word[k]));
    f[2 * k] = pair.x;
    f[2 * k + 1] = pair.y;
  }
}

__device__ __forceinline__ void fromFloats(const float (&f)[kEight], EightValues<float>& v) {
#pragma unroll
  for (int k = 0; k < kEight; ++k) v.word[k] = __float_as_uint(f[k]);
}
template <typename T>
__device__ __forceinline__ void fromFloats(const float (&f)[kEight], EightValues<T>& v) {
#pragma unroll
  for (int k = 0; k < kEight / 2; ++k) v.word[k] = packPair<T>(f[2 * k], f[2 * k + 1]);
}

/** Values whose bit is set become 0. */
template <typename T>
__device__ __forceinline__ void clearValues(EightValues<T>& v, std::uint32_t which) {
  constexpr int kPerWord = 4 / static_cast<int>(sizeof(T));
#pragma unroll
  for (int k = 0; k < kEight; ++k) {
    const std::uint32_t bits = kPerWord == 1 ? 0xffffffffu : 0xffffu << (k % kPerWord * 16);
    if (which >> k & 1) v.word[k / kPerWord] &= ~bits;
  }
}

/** Stores those of the eight values that lie before \a count. */
template <typename T>
__device__ __forceinline__ void storeEight(const EightValues<T>& v, T* to, Index count, bool aligned) {
  using Bits = typename RawBits<sizeof(T)>::type;
  constexpr int perWord = 4 / static_cast<int>(sizeof(T));
  if (aligned && count >= kEight) {
#pragma unroll
    for (int i = 0; i < EightValues<T>::kWords / 4; ++i)
      reinterpret_cast<uint4*>(to)[i] =
          make_uint4(v.word[4 * i], v.word[4 * i + 1], v.word[4 * i + 2], v.word[4 * i + 3]);
    return;
  }
#pragma unroll
  for (int k = 0; k < kEight; ++k) {
    if (k >= count) break;
    reinterpret_cast<Bits*>(to)[k] = static_cast<Bits>(v.word[k / perWord] >> (k % perWord * 16));
  }
}

/** The largest magnitude that is no NaN; 0 of NaNs alone. Pairs are compared in their own type, two at a time: the
 * conversion to float is exact and keeps the order. */
__device__ __forceinline__ float absmaxOf(const EightValues<float>& v) {
  float largest = 0;
#pragma unroll
  for (int k = 0; k < kEight; ++k) largest = fmaxf(largest, fabsf(wordToFloat(v.word[k])));
  return largest;
}
__device__ __forceinline__ float absmaxOf(const EightValues<__half>& v) {
  __half2 largest = __habs2(asHalves(v.word[0]));
#pragma unroll
  for (int k = 1; k < kEight / 2; ++k) largest = __hmax2(largest, __habs2(asHalves(v.word[k])));
  return fmaxf(0.0f, fmaxf(__low2float(largest), __high2float(largest)));
}
__device__ __forceinline__ float absmaxOf(const EightValues<__nv_bfloat16>& v) {
  __nv_bfloat162 largest = __habs2(asBfloats(v.word[0]));
#pragma unroll
  for (int k = 1; k < kEight / 2; ++k) largest = __hmax2(largest, __habs2(asBfloats(v.word[k])));
  return fmaxf(0.0f, fmaxf(__low2float(largest), __high2float(largest)));
}

/** Whether one of the eight is a NaN. */
__device__ __forceinline__ bool holdsNaN(const EightValues<float>& v) {
  bool found = false;
#pragma unroll
  for (int k = 0; k < kEight; ++k) found = found || wordToFloat(v.word[k]) != wordToFloat(v.word[k]);
  return found;
}
__device__ __forceinline__ bool holdsNaN(const EightValues<__half>& v) {
  unsigned found = 0;
#pragma unroll
  for (int k = 0; k < kEight / 2; ++k) found |= __hneu2_mask(asHalves(v.word[k]), asHalves(v.word[k]));
  return found != 0;
}
__device__ __forceinline__ bool holdsNaN(const EightValues<__nv_bfloat16>& v) {
  unsigned found = 0;
#pragma unroll
  for (int k = 0; k < kEight / 2; ++k) found |= __hneu2_mask(asBfloats(v.word[k]), asBfloats(v.word[k]));
  return found != 0;
}

/** Statistics count magnitudes below FLT_MIN as zero (magnitudeBits of BlockScale.h). */
__device__ __forceinline__ float flushedAbsmax(float largest) { return largest < FLT_MIN ? 0.0f : largest; }

/** Stores the first \a count bytes of \a codes, lowest first. \tparam kBytes  4 or 8; \a to is as aligned where
 * \a aligned says so. */
template <int kBytes>
__device__ __forceinline__ void storeCodes(std::uint8_t* to, std::uint64_t codes, Index count, bool aligned) {
  if (aligned && count >= kBytes) {
    if constexpr (kBytes == 4) {
      *reinterpret_cast<std::uint32_t*>(to) = static_cast<std::uint32_t>(codes);
    } else {
      *reinterpret_cast<std::uint64_t*>(to) = codes;
    }
    return;
  }
#pragma unroll
  for (int k = 0; k < kBytes; ++k) {
    if (k >= count) break;
    to[k] = static_cast<std::uint8_t>(codes >> (8 * k));
  }
}

/** Eight bytes at \a from; zeros from \a count on. */
__device__ __forceinline__ std::uint64_t loadCodes(const std::uint8_t* from, Index count, bool aligned) {
  if (aligned && count >= kEight) return *reinterpret_cast<const std::uint64_t*>(from);
  std::uint64_t codes = 0;
#pragma unroll
  for (int k = 0; k < kEight; ++k) {
    if (k >= count) break;
    codes |= static_cast<std::uint64_t>(from[k]) << (8 * k);
  }
  return codes;
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_EIGHT_VALUES_CUH
