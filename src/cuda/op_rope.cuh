// SPDX-License-Identifier: MPL-2.0
// One pair of one head turned by the angle of its token's position.
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

  /** Pair \a pair of a token, of all its heads' pairs, from x to y, its columns of entries. NaN where the table has no
   * such position. */
  template <typename T>
  __device__ __forceinline__ void rotate(const T* x, T* y, Index pair, Index position, bool accumulate) const {
    const Index head = pair / half, i = pair - head * half;
    const Index first = head * 2 * half + (adjacent ? 2 * i : i), second = first + (adjacent ? 1 : half);
    const bool known = position >= 0 && position < positions;
    const float c = known ? cos[position * half + i] : __int_as_float(0x7fffffff);
    const float s = known ? direction * sin[position * half + i] : c;
    const float a = toFloat(x[first]), b = toFloat(x[second]);
    const float outA[1] = {a * c - b * s}, outB[1] = {b * c + a * s};
    store(y + first, outA, accumulate);
    store(y + second, outB, accumulate);
  }
};

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_OP_ROPE_CUH
