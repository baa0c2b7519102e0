// SPDX-License-Identifier: MPL-2.0
// The ways to compute LLM.int8()'s product that int8_product.cpp lists, and the kernels they are made of.
#ifndef EIGENQ_CUDA_INT8_KERNELS_H
#define EIGENQ_CUDA_INT8_KERNELS_H

#include "dense_view.h"
#include "int8_product.h"

namespace EigenQ {
namespace gpu {
namespace internal {

/** The codes of row 0. */
EIGENQ_HOST_DEVICE inline const std::int8_t* codesOf(const WeightView& w) {
  return static_cast<const std::int8_t*>(w.codes) + w.offset;
}

/** Whether every row of codes starts at a 16-byte boundary and ends at one. */
inline bool hasAlignedRows(const WeightView& w) {
  return isAligned(codesOf(w), kCodeAlignment) && w.stride % kCodeAlignment == 0 && w.cols % kCodeAlignment == 0;
}

const char* refuseDecomposedStream(const DeviceDecomposedProduct& p, const Context& context);
void runDecomposedStream(const DeviceDecomposedProduct& p, Context& context);
/** Behind quantizeInt8Tokens(), with what it marked; null: nothing. */
void runDecomposedStream(const DeviceDecomposedProduct& p, const std::uint32_t* outlierMarks, Context& context);
const char* refuseDecomposedDecode(const DeviceDecomposedProduct& p, const Context& context);
void runDecomposedDecode(const DeviceDecomposedProduct& p, Context& context);
const char* refuseDecomposedWgmma(const DeviceDecomposedProduct& p, const Context& context);
void runDecomposedWgmma(const DeviceDecomposedProduct& p, Context& context);
/** Behind quantizeInt8Tokens(), as above. Marks only where takesPackedOutliers(). */
void runDecomposedWgmma(const DeviceDecomposedProduct& p, const OutlierMarks& marks, Context& context);
/** Claims that int8.wgmma needs at most for a result of that size: one for each 128 rows of a side, and what is over.
 */
constexpr Index mostClaims(Index rows, Index cols) { return rows / 128 + cols / 128 + 4; }
/** Whether the product's outliers may be multiplied by tensor cores of its scalar type. */
bool takesPackedOutliers(const DeviceDecomposedProduct& p);
const char* refuseDecomposedCublasLt(const DeviceDecomposedProduct& p, const Context& context);
void runDecomposedCublasLt(const DeviceDecomposedProduct& p, Context& context);
const char* refuseDecomposedReference(const DeviceDecomposedProduct& p, const Context& context);
void runDecomposedReference(const DeviceDecomposedProduct& p, Context& context);

/** So many outlier columns are gathered; those beyond are read where they lie, which is slow and right. */
constexpr Index kGatheredOutliers = 64;

/** Dense copies of the first outlier columns of X and W, column after column. */
struct GatheredOutliers {
  const float* x = nullptr;  // x[o·xStride + i] = X(i, outliers[o])
  Index xStride = 0;         // a multiple of 8
  const float* w = nullptr;  // w[o·wStride + j] = W(j, outliers[o])
  Index wStride = 0;         // a multiple of 8
};

/** Nothing where the product has no outliers. */
GatheredOutliers gatherOutliers(const DeviceDecomposedProduct& p, Scratch& scratch, Context& context);

/** A window of Y's integer sums. */
struct SumWindow {
  const std::int32_t* sums = nullptr;  // contiguous along Y's columns, or along its rows where colMajor
  Index stride = 0;                    // a multiple of 8, and so is the room of the last line
  bool colMajor = false;
  Index row = 0;
  Index col = 0;
  Index rows = 0;
  Index cols = 0;
};

/** Y's window = epilogue(scaled sums + outliers). */
void scaleSums(const DeviceDecomposedProduct& p, const SumWindow& window, const GatheredOutliers& outliers,
               Context& context);

/** c(i, j) = sums[i·stride + j]. */
void copySums(const std::int32_t* sums, Index stride, const Int8Product& p, Context& context);

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_INT8_KERNELS_H
