// SPDX-License-Identifier: MPL-2.0
// The compiled quantisers behind Quantize.h. Input is any dense view; double is rounded to float first. Blocks run
// along the row-major flattening of the view, whatever its strides. Preconditions assert; nothing throws but bad_alloc.
#ifndef EIGENQ_QUANTIZERS_H
#define EIGENQ_QUANTIZERS_H

#include <cstdint>
#include <vector>

#include "FourBit.h"
#include "Views.h"

namespace EigenQ {
namespace internal {

/** \param packed  packedSize(rows·cols) bytes   \param absmax  blockCount(rows·cols, blockSize) values
 * absmax is the largest magnitude that is no NaN; magnitudes below FLT_MIN count as zero. Codes are those of
 * r32(value·r32(1/absmax)); in a zero block or an infinite value that product is a NaN, and the code 0. */
void quantizeFourBit(const ConstDenseView& a, FourBitType type, Index blockSize, std::uint8_t* packed, float* absmax);

/** As quantizeFourBit, one code a byte. \param codeTable  256 ascending levels */
void quantizeBlockwise(const ConstDenseView& a, const float* codeTable, Index blockSize, std::uint8_t* codes,
                       float* absmax);

/** out = r(r32(codeTable[code]·absmax)). \param codeTable  256 levels */
void dequantizeBlockwise(const std::uint8_t* codes, const float* codeTable, const AbsmaxView& absmax, Index blockSize,
                         const DenseView& out);

/** The mean, summed in double and rounded once; 0 of nothing. */
float meanOf(const float* values, Index count);

/** Nested statistics: 8-bit codes by the signed dynamic map of absmax - offset. */
void quantizeAbsmax(const float* absmax, Index blocks, float offset, Index nestedBlockSize, std::uint8_t* codes,
                    float* absmax2);

/** Row-wise int8. Outliers are elements with |a| ≥ threshold > 0: they do not count in rowAbsmax, and their columns
 * hold code 0.
 * \param codes           rows×cols, row-major
 * \param rowAbsmax       rows values
 * \param outlierColumns  receives the ascending columns that hold an outlier; may be null */
void quantizeInt8Rows(const ConstDenseView& a, float threshold, std::int8_t* codes, float* rowAbsmax,
                      std::vector<Index>* outlierColumns);

/** Column-wise int8; as quantizeInt8Rows with one absmax a column. Codes are row-major here too. */
void quantizeInt8Cols(const ConstDenseView& a, float threshold, std::int8_t* codes, float* colAbsmax,
                      std::vector<Index>* outlierColumns);

}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_QUANTIZERS_H
