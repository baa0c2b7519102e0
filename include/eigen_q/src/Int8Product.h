// SPDX-License-Identifier: MPL-2.0
// Integer products of int8 codes, and LLM.int8()'s product on top of them, as kernels see them: no Eigen here.
#ifndef EIGENQ_INT8PRODUCT_H
#define EIGENQ_INT8PRODUCT_H

#include <cstdint>
#include <vector>

#include "Lowering.h"
#include "Views.h"

namespace EigenQ {
namespace internal {

/** Largest inner dimension whose int32 sums of codes in [-127, 127] cannot wrap: 2¹⁷·127² < 2³¹. */
constexpr Index kInt8MaxDepth = Index{1} << 17;

/** C (m×n) = A·Bᵀ in int32, exact. Rows of A (m×k) and of B (n×k) are contiguous; k ≤ kInt8MaxDepth. */
struct Int8Product {
  const std::int8_t* a = nullptr;
  Index aStride = 0;  // from row to row
  const std::int8_t* b = nullptr;
  Index bStride = 0;
  std::int32_t* c = nullptr;
  Index cRowStride = 0;
  Index cColStride = 0;
  Index m = 0;
  Index n = 0;
  Index k = 0;
};

/** Finished sums of a product: rows×cols at (row, col), \a ld from row to row. */
struct Int8Tile {
  Index row, col, rows, cols;
  const std::int32_t* sums;
  Index ld;
  float* values;  // room for as many floats, laid out alike
};

/** Takes each tile of a product once, on any thread. */
struct Int8Sink {
  void (*take)(void* context, const Int8Tile& tile);
  void* context;
};

/** One way to compute an integer product. */
struct Int8Lowering {
  const char* name;
  const char* (*refuse)(const Int8Product&);  // null: "mine". Otherwise the reason, in words.
  /** Hands the sums to the sink; writes nothing to c. */
  void (*run)(const Int8Product&, const Int8Sink&);
  /** tile.values(i, j) = r32(sums(i, j)·rowScale(i)·colAbsmax(j) + outliers(i, j)), in double; \a outliers lie like the
   * sums, null for none. */
  void (*scale)(const Int8Tile& tile, const double* rowScale, const float* colAbsmax, const float* outliers);
};

/** Integer kernels for operands in host memory, best first; the last row never refuses. */
LoweringTable<Int8Lowering> hostInt8Lowerings();

/** The first row that does not refuse. */
const Int8Lowering& chooseInt8Lowering(const Int8Product& product);

/** Computes C by \a row. */
void run(const Int8Lowering& row, const Int8Product& product);

/** Runs the first row of hostInt8Lowerings() that does not refuse. */
void lower(const Int8Product& product);

/** Activations as LLM.int8() multiplies them. */
struct Int8Activations {
  std::vector<std::int8_t> codes;  // rows×cols, row-major; 0 throughout the outlier columns
  std::vector<float> rowStats;     // one a row; NaN where the row holds a NaN, so that every product of it shows one
  std::vector<Index> outliers;     // ascending columns that are multiplied in full precision
};

/** stats[i] = NaN where row i of \a x holds a NaN. */
void markRowsWithNaN(const ConstDenseView& x, float* stats);

/** Quantises each row of \a x; outliers as in quantizeInt8Rows. */
Int8Activations quantizeActivations(const ConstDenseView& x, float threshold);

/** Makes \a columns (ascending) outliers too: their codes are cleared. */
void addOutliers(const std::vector<Index>& columns, Index cols, Int8Activations& activations);

/** Y = epilogue(X̂·Ŵᵀ + Xₒ·Wₒᵀ): X̂ from codes, Xₒ the outlier columns of X as they are. The int8 part is an exact
 * integer sum scaled in double; the outlier part is summed in float. */
struct DecomposedProduct {
  const Int8Activations* activations = nullptr;
  ConstDenseView x;               // m×k; read in the outlier columns only
  WeightView w;                   // int8, n×k
  ConstDenseView outlierWeights;  // n×k, read in the outlier columns only; no data: decoded from w
  DenseView y;                    // m×n
  Epilogue epilogue;
};

void multiplyDecomposed(const DecomposedProduct& p);

}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_INT8PRODUCT_H
