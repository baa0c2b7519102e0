// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_VECTORWISETYPE_H
#define EIGENQ_VECTORWISETYPE_H

#include <cstdint>
#include <string>

#include "Macros.h"
#include "Views.h"

namespace EigenQ {

/** What a statistic s belongs to, and what a code c stands for. */
enum class VectorwiseType : std::uint8_t {
  kVector,           // s = max|x| of a vector:           c·s/127
  kRow,              // the same
  kLinear,           // s = max|x| of the whole matrix:   c·s/127
  kTruncatedVector,  // s = 0.7·max|x| of a vector, beyond which values are clipped: c·s/127
  kZeropoint,        // s = 255/(max - min) of the whole matrix:  (c + zero point)/s
  kVectorZeropoint,  // s = 255/(max - min) of a vector:          (c + zero point)/s
  kRowZeropoint,     // the same
};

EIGENQ_HOST_DEVICE constexpr bool isZeropoint(VectorwiseType type) { return type >= VectorwiseType::kZeropoint; }
/** Whether one statistic serves the whole matrix. */
EIGENQ_HOST_DEVICE constexpr bool isWholeMatrix(VectorwiseType type) {
  return type == VectorwiseType::kLinear || type == VectorwiseType::kZeropoint;
}

/** "vector", "row", "linear", "truncated-vector", "zeropoint", "vector-zeropoint", "row-zeropoint": the original's
 * quant_type. Throws std::invalid_argument for any other text. */
VectorwiseType vectorwiseType(const std::string& name);

namespace internal {

/** int8 codes in somebody else's memory; strides count codes. */
struct CodesView {
  const std::int8_t* data = nullptr;
  Index rows = 0;
  Index cols = 0;
  Index rowStride = 0;  // from (i, j) to (i + 1, j)
  Index colStride = 1;  // from (i, j) to (i, j + 1)

  EIGENQ_HOST_DEVICE CodesView transpose() const { return {data, cols, rows, colStride, rowStride}; }
  EIGENQ_HOST_DEVICE CodesView middleRows(Index first, Index count) const {
    return {data + first * rowStride, count, cols, rowStride, colStride};
  }
  EIGENQ_HOST_DEVICE CodesView middleCols(Index first, Index count) const {
    return {data + first * colStride, rows, count, rowStride, colStride};
  }
};

/** A matrix that was quantised by rows or as a whole, or a window of one. */
struct VectorwiseRows {
  VectorwiseType type = VectorwiseType::kVector;
  CodesView codes;
  const float* stats = nullptr;        // one a row, or one
  const double* zeroPoints = nullptr;  // as many, for the zero-point types

  /** The statistic of row \a i. */
  EIGENQ_HOST_DEVICE Index vectorOf(Index i) const { return isWholeMatrix(type) ? 0 : i; }

  VectorwiseRows middleRows(Index first, Index count) const {
    const Index v = vectorOf(first);
    return {type, codes.middleRows(first, count), stats + v, zeroPoints ? zeroPoints + v : nullptr};
  }
  VectorwiseRows middleCols(Index first, Index count) const {
    return {type, codes.middleCols(first, count), stats, zeroPoints};
  }
};

/** Quantises each row of \a a, or the whole of it, as \a type says.
 * \param codes       rows×cols, row-major
 * \param stats, zeroPoints  one a row, or one; zeroPoints are written by the zero-point types only */
void quantizeVectorwise(const ConstDenseView& a, VectorwiseType type, std::int8_t* codes, float* stats,
                        double* zeroPoints);

}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_VECTORWISETYPE_H
