// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_VECTORWISETYPE_H
#define EIGENQ_VECTORWISETYPE_H

#include <cstdint>
#include <string>

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

constexpr bool isZeropoint(VectorwiseType type) { return type >= VectorwiseType::kZeropoint; }
/** Whether one statistic serves the whole matrix. */
constexpr bool isWholeMatrix(VectorwiseType type) {
  return type == VectorwiseType::kLinear || type == VectorwiseType::kZeropoint;
}

/** "vector", "row", "linear", "truncated-vector", "zeropoint", "vector-zeropoint", "row-zeropoint": the original's
 * quant_type. Throws std::invalid_argument for any other text. */
VectorwiseType vectorwiseType(const std::string& name);

namespace internal {

/** Quantises each row of \a a, or the whole of it, as \a type says.
 * \param codes       rows×cols, row-major
 * \param stats, zeroPoints  one a row, or one; zeroPoints are written by the zero-point types only */
void quantizeVectorwise(const ConstDenseView& a, VectorwiseType type, std::int8_t* codes, float* stats,
                        double* zeroPoints);

}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_VECTORWISETYPE_H
