// SPDX-License-Identifier: MPL-2.0
// Pairs of one head turned by the angles of their token's position.
#ifndef EIGENQ_CUDA_OP_ROPE_CUH
#define EIGENQ_CUDA_OP_ROPE_CUH

#include <eigen_q/src/gpu/OpKernels.h>

#include "op_columns.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {

struct RopeTableView {
  const float* cos;
  const float* sin;
  Index half;  // headDim/2
  Index positions;
  bool adjacent;
  float direction;  // -1: back

  explicit RopeTableView(const Rope& op)
      : cos(op.cos),
        sin(op.sin),
        half(op.headDim / 2),
        positions(op.maxPositions),
        adjacent(op.adjacent),
        direction(op.inverse ? -1.0f : 1.0f) {}

  /** Whether packs of a 16-byte vector of \a scalar pairs end where heads do, and their angles are aligned. */
  bool packs(ScalarType scalar) const {
    const Index width = 16 / static_cast<Index>(sizeOf(scalar)), bytes = width * static_cast<Index>(sizeof(float));
    const auto aligned = [bytes](const float* p) { return reinterpret_cast<std::uintptr_t>(p) % bytes == 0; };
    return half % width == 0 && aligned(cos) && aligned(sin);
  }

  /** kWidth pairs of a token from \a pair on, of all its heads' pairs, from x to y, its columns of entries. NaN where
   * the table has no such position. kWidth divides half. */
  template <int kWidth, typename T>
  __device__ __forceinline__ void rotate(const T* x, T* y, Index pair, Index position, bool accumulate) const {
    const Index head = pair / half, i = pair - head * half;
    const Index first = head * 2 * half + (adjacent ? 2 * i : i), second = first + (adjacent ? kWidth : half);
    // Entries before angles: they do not wait for the position.
    float a[kWidth], b[kWidth], oldA[kWidth] = {}, oldB[kWidth] = {};
    load(x + first, a);
    load(x + second, b);
    if (accumulate) {
      load(y + first, oldA);
      load(y + second, oldB);
    }
    float c[kWidth], s[kWidth];
    loadAngles(position, i, c, s);
    adjacent ? turnNeighbours(a, b, c, s) : turn(a, b, c, s);
    if (accumulate) {
#pragma unroll
      for (int k = 0; k < kWidth; ++k) {
        a[k] = oldA[k] + a[k];
        b[k] = oldB[k] + b[k];
      }
    }
    store(y + first, a);
    store(y + second, b);
  }

 private:
  template <int kWidth>
  __device__ __forceinline__ void loadAngles(Index position, Index i, float (&c)[kWidth], float (&s)[kWidth]) const {
    if (position >= 0 && position < positions) {
      load(cos + position * half + i, c);
      load(sin + position * half + i, s);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) s[k] *= direction;
    } else {
#pragma unroll
      for (int k = 0; k < kWidth; ++k) c[k] = s[k] = __int_as_float(0x7fffffff);
    }
  }

  __device__ static __forceinline__ void turn(float& a, float& b, float c, float s) {
    const float turned = a * c - b * s;
    b = b * c + a * s;
    a = turned;
  }
  template <int kWidth>
  __device__ static __forceinline__ void turn(float (&a)[kWidth], float (&b)[kWidth], const float (&c)[kWidth],
                                              const float (&s)[kWidth]) {
#pragma unroll
    for (int k = 0; k < kWidth; ++k) turn(a[k], b[k], c[k], s[k]);
  }
  /** The first half of the pairs is in a, the second in b. */
  template <int kWidth>
  __device__ static __forceinline__ void turnNeighbours(float (&a)[kWidth], float (&b)[kWidth],
                                                        const float (&c)[kWidth], const float (&s)[kWidth]) {
    if constexpr (kWidth == 1) {
      turn(a[0], b[0], c[0], s[0]);
    } else {
#pragma unroll
      for (int k = 0; k < kWidth / 2; ++k) {
        turn(a[2 * k], a[2 * k + 1], c[k], s[k]);
        turn(b[2 * k], b[2 * k + 1], c[kWidth / 2 + k], s[kWidth / 2 + k]);
      }
    }
  }
};

/** dispatchWalk() for what turns heads: packs of pairs, where the table has them too. Of a single token a pair a thread
 * is faster (4096 rows, H200: 1.4 us against 1.7), as nothing else hides a thread's eight pairs. */
template <typename F>
void dispatchTurns(Walk walk, const RopeTableView& table, F&& f) {
  walk.packed = walk.packed && walk.cols > 1 && table.packs(walk.scalar);
  dispatchWalk(walk, std::forward<F>(f));
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_OP_ROPE_CUH
