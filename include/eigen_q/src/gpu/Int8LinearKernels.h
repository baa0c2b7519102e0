// SPDX-License-Identifier: MPL-2.0
// What the passes of an int8 linear layer need of a device, in plain numbers: every pointer is a device pointer. Work
// is queued on the context's stream and nothing waits for it. Eigen-free.
#ifndef EIGENQ_GPU_INT8LINEARKERNELS_H
#define EIGENQ_GPU_INT8LINEARKERNELS_H

#include <cstdint>
#include <memory>

#include "../Lowering.h"
#include "Context.h"

namespace EigenQ {
namespace gpu {
namespace internal {

using EigenQ::internal::ConstDenseView;
using EigenQ::internal::DenseView;
using EigenQ::internal::Epilogue;
using EigenQ::internal::QuantizedProduct;
using EigenQ::internal::WeightView;

/** Ascending columns, and how many, which is known to the device only. null: none. */
struct OutlierList {
  const int* columns = nullptr;
  const int* count = nullptr;
};

/** Where outlier columns are kept: room for as many as there are columns. Without memory none are looked for. */
struct OutlierMemory {
  std::uint8_t* mask = nullptr;  // one byte a column
  int* columns = nullptr;
  int* count = nullptr;

  OutlierList list() const { return {columns, count}; }
};

/** Rows quantised to int8 as LLM.int8() multiplies them, in scratch memory of the context: an object of a scope, inside
 * which such objects end in the reverse order of their beginning. */
class QuantizedActivations {
 public:
  /** Quantises the rows of \a x; a row that holds a NaN gets a statistic of NaN. With \a threshold > 0, which takes
   * memory for outliers, columns with a magnitude from there on are listed there and hold code 0. */
  QuantizedActivations(const ConstDenseView& x, float threshold, const OutlierMemory& outliers, Context& context);
  ~QuantizedActivations();
  QuantizedActivations(const QuantizedActivations&) = delete;
  QuantizedActivations& operator=(const QuantizedActivations&) = delete;

  /** Makes \a count columns outliers too. */
  void addOutliers(const int* columns, Index count);
  /** Rows of the list become zero, with statistic zero, so that they drop out of products. */
  void clearRows(const OutlierList& rows);
  /** The same as a weight. Its rows may be longer than x's: zeros add nothing. */
  WeightView asWeight() const;
  /** y = epilogue(X̂·Ŵᵀ + Xₒ·Wₒᵀ). \param outlierWeights  no data: decoded from w */
  void multiply(const WeightView& w, const ConstDenseView& outlierWeights, const DenseView& y,
                const Epilogue& epilogue) const;

 private:
  struct State;
  std::unique_ptr<State> m_state;
};

/** Row-wise codes, without gaps, and statistics of \a w; NaN where the row holds one. */
void quantizeWeight(const ConstDenseView& w, std::int8_t* codes, float* rowStats, Context& context);

/** Row-wise and column-wise codes, row-major without gaps, and statistics, as the host's quantizeInt8Rows and
 * quantizeInt8Cols find them. \param outliers  with memory where threshold > 0 and there are columns */
void quantizeRows(const ConstDenseView& x, float threshold, std::int8_t* codes, float* rowStats,
                  const OutlierMemory& outliers, Context& context);
void quantizeCols(const ConstDenseView& x, float threshold, std::int8_t* codes, float* colStats,
                  const OutlierMemory& outliers, Context& context);

/** Column k of \a dw, n×k, = or += Gᵀ·X(:, k) for each listed column k; summed in double over the tokens, which are
 * rows, from front to back. */
void outlierGradient(const ConstDenseView& g, const ConstDenseView& x, const OutlierList& outliers, const DenseView& dw,
                     bool accumulate, Context& context);

/** Runs the first of the device's kernels that does not refuse. */
void multiply(const QuantizedProduct& product, Context& context);
/** y = A·B, all dense. */
void multiply(const ConstDenseView& a, const ConstDenseView& b, const DenseView& y, Context& context);

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_GPU_INT8LINEARKERNELS_H
