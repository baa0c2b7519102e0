// SPDX-License-Identifier: MPL-2.0
// Matrices of the ops inside kernels, read and written in packs of neighbouring entries of a column.
#ifndef EIGENQ_CUDA_OP_COLUMNS_CUH
#define EIGENQ_CUDA_OP_COLUMNS_CUH

#include <algorithm>
#include <cassert>
#include <cstdint>
#include <initializer_list>

#include "dense_view.h"
#include "epilogue.cuh"
#include "op_launch.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {

/** The columns of a matrix of const or mutable T; null where there is none. */
template <typename T>
struct Columns {
  T* data;
  Index stride;

  template <typename Void>
  explicit Columns(const EigenQ::internal::BasicDenseView<Void>& m)
      : data(static_cast<T*>(m.data)), stride(m.colStride) {}
  __device__ __forceinline__ T* operator()(Index column) const { return data + column * stride; }
  __device__ __forceinline__ explicit operator bool() const { return data != nullptr; }
};

template <typename T, int kWidth>
struct alignas(sizeof(T) * kWidth) Pack {
  T values[kWidth];
};

template <typename T>
constexpr int kPackWidth = 16 / static_cast<int>(sizeof(T));  // 16 bytes, the widest load

template <int kWidth, typename T>
__device__ __forceinline__ void load(const T* from, float (&v)[kWidth]) {
  const Pack<T, kWidth> pack = *reinterpret_cast<const Pack<T, kWidth>*>(from);
#pragma unroll
  for (int i = 0; i < kWidth; ++i) v[i] = toFloat(pack.values[i]);
}

template <int kWidth, typename T>
__device__ __forceinline__ void store(T* to, const float (&v)[kWidth]) {
  Pack<T, kWidth> pack;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) pack.values[i] = fromFloat<T>(v[i]);
  *reinterpret_cast<Pack<T, kWidth>*>(to) = pack;
}

/** to (+)= v; the sum is rounded once. */
template <int kWidth, typename T>
__device__ __forceinline__ void store(T* to, const float (&v)[kWidth], bool accumulate) {
  float sum[kWidth];
  if (accumulate) load(to, sum);
#pragma unroll
  for (int i = 0; i < kWidth; ++i) sum[i] = accumulate ? sum[i] + v[i] : v[i];
  store(to, sum);
}

/** Where the scalar type is a parameter of the kernel, not of its code. */
__device__ __forceinline__ float loadAs(ScalarType scalar, const void* data, Index offset) {
  switch (scalar) {
    case ScalarType::kHalf:
      return toFloat(static_cast<const __half*>(data)[offset]);
    case ScalarType::kBFloat16:
      return toFloat(static_cast<const __nv_bfloat16*>(data)[offset]);
    default:
      return static_cast<const float*>(data)[offset];
  }
}

__device__ __forceinline__ void storeAs(ScalarType scalar, void* data, Index offset, float v) {
  switch (scalar) {
    case ScalarType::kHalf:
      static_cast<__half*>(data)[offset] = fromFloat<__half>(v);
      break;
    case ScalarType::kBFloat16:
      static_cast<__nv_bfloat16*>(data)[offset] = fromFloat<__nv_bfloat16>(v);
      break;
    default:
      static_cast<float*>(data)[offset] = v;
  }
}

/** A device scalar. */
__device__ __forceinline__ float loadScalar(const ConstDenseView& scalar) {
  return loadAs(scalar.scalar, scalar.data, 0);
}
__device__ __forceinline__ void storeScalar(const DenseView& scalar, double value) {
  storeAs(scalar.scalar, scalar.data, 0, static_cast<float>(value));
}

/** How matrices of one shape and scalar type are walked. Views without data have no say. */
struct Walk {
  ScalarType scalar = ScalarType::kFloat;
  Index rows = 0;
  Index cols = 0;
  bool packed = true;   // 16-byte packs are aligned and fill every column
  bool gapless = true;  // the columns form one long column

  Walk(std::initializer_list<ConstDenseView> views) {
    bool first = true;
    for (const ConstDenseView& m : views) {
      if (first) scalar = m.scalar;  // of an empty matrix, too
      if (!m.data) continue;
      assert((m.rowStride == 1 || m.rows <= 1) && "ops: expected column-major matrices");
      assert((first || (m.scalar == scalar && m.rows == rows && m.cols == cols)) &&
             "ops: matrices differ in shape or scalar type");
      scalar = m.scalar;
      rows = m.rows;
      cols = m.cols;
      first = false;
      const auto size = static_cast<Index>(sizeOf(scalar));
      const bool aligned = reinterpret_cast<std::uintptr_t>(m.data) % 16 == 0;
      packed = packed && aligned && (m.cols <= 1 || m.colStride * size % 16 == 0) && m.rows * size % 16 == 0;
      gapless = gapless && (m.cols <= 1 || m.colStride == m.rows);
    }
  }
  bool empty() const { return rows <= 0 || cols <= 0; }
};

/** Calls \a f(TypeTag<T>, width) with the widest packs that \a walk allows, the width as a constant. */
template <typename F>
void dispatchWalk(const Walk& walk, F&& f) {
  dispatchDeviceScalar(walk.scalar, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (walk.packed) {
      f(tag, std::integral_constant<int, kPackWidth<T>>());
    } else {
      f(tag, std::integral_constant<int, 1>());
    }
  });
}

/** Threads of a block that walks a column of \a packs packs. */
inline unsigned threadsForColumn(Index packs) {
  constexpr Index kMost = 512;
  return static_cast<unsigned>(std::min(kMost, std::max<Index>(32, (packs + 31) / 32 * 32)));
}

/** Blocks for \a items that a grid-stride loop walks. */
inline unsigned gridFor(Index items) { return static_cast<unsigned>(std::min<Index>(items, Index{1} << 20)); }

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_OP_COLUMNS_CUH
