// SPDX-License-Identifier: MPL-2.0
// What the vector-wise functions need of a device, in plain numbers: every pointer is a device pointer. Work is queued
// on the context's stream and nothing waits for it. Eigen-free.
#ifndef EIGENQ_GPU_VECTORWISEKERNELS_H
#define EIGENQ_GPU_VECTORWISEKERNELS_H

#include "../VectorwiseType.h"
#include "Context.h"

namespace EigenQ {
namespace gpu {
namespace internal {

using EigenQ::internal::CodesView;
using EigenQ::internal::ConstDenseView;
using EigenQ::internal::DenseView;
using EigenQ::internal::VectorwiseRows;

/** Where quantising by rows, or as a whole, puts what it finds. */
struct VectorwiseResult {
  VectorwiseType type = VectorwiseType::kVector;
  std::int8_t* codes = nullptr;  // element (i, j) at i·rowStride + j·colStride
  Index rowStride = 0;
  Index colStride = 1;
  float* stats = nullptr;        // one a row, or one
  double* zeroPoints = nullptr;  // as many, for the zero-point types
};

/** The codes and statistics of the host's quantizeVectorwise, bit for bit. */
void quantizeVectorwise(const ConstDenseView& a, const VectorwiseResult& to, Context& context);

/** y = the decoded values, each rounded once from double. */
void dequantizeVectorwise(const VectorwiseRows& q, const DenseView& y, Context& context);

/** c = A·Bᵀ in int32, m×n and row-major without gaps; exact for k up to 2¹⁷, which the caller sees to. */
void igemm(const CodesView& a, const CodesView& b, std::int32_t* c, Context& context);

/** y = the values behind \a sums = A·Bᵀ of codes (row-major without gaps), in double, rounded once. */
void dequantizeSums(const std::int32_t* sums, const VectorwiseRows& a, const VectorwiseRows& b, const DenseView& y,
                    Context& context);

/** Both at once: y = A·Bᵀ of the decoded rows. */
void multiplyVectorwise(const VectorwiseRows& a, const VectorwiseRows& b, const DenseView& y, Context& context);

/** y = A·B of any scalar types, summed in double, rounded once. */
void multiplyExactly(const ConstDenseView& a, const ConstDenseView& b, const DenseView& y, Context& context);

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_GPU_VECTORWISEKERNELS_H
