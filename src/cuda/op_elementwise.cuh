// SPDX-License-Identifier: MPL-2.0
// y(i, j) = f(a(i, j), b(i, j), …) for matrices of one shape, any strides between columns.
//
//   column j │ pack 0 │ pack 1 │ …    a thread takes a pack of 16 bytes from each operand; without gaps between the
//                                     columns the matrix is one long column, and no index is divided
//
// Traffic  every operand once. Work: a few FLOP per entry, so memory is the limit.
#ifndef EIGENQ_CUDA_OP_ELEMENTWISE_CUH
#define EIGENQ_CUDA_OP_ELEMENTWISE_CUH

#include "op_columns.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {

constexpr unsigned kElementwiseThreads = 256;

/** \tparam Op  op(i, j) computes kWidth entries of column j from row i on */
template <typename Op>
__global__ void __launch_bounds__(kElementwiseThreads)
    elementwiseKernel(const Op op, Index packsPerColumn, Index packs) {
  joinStream();
  const Index step = Index{gridDim.x} * blockDim.x;
  for (Index p = Index{blockIdx.x} * blockDim.x + threadIdx.x; p < packs; p += step) {
    const Index j = packs == packsPerColumn ? 0 : p / packsPerColumn;
    op((p - j * packsPerColumn) * Op::kWidth, j);
  }
}

template <typename Op>
void launchElementwise(const char* name, const Op& op, const Walk& walk, Context& context) {
  const Index rows = walk.gapless ? walk.rows * walk.cols : walk.rows;
  const Index packsPerColumn = rows / Op::kWidth, packs = walk.gapless ? packsPerColumn : packsPerColumn * walk.cols;
  const Index blocks = (packs + kElementwiseThreads - 1) / kElementwiseThreads;
  launchEarly(name, elementwiseKernel<Op>, {dim3(gridFor(blocks)), kElementwiseThreads}, context, op, packsPerColumn,
              packs);
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_OP_ELEMENTWISE_CUH
