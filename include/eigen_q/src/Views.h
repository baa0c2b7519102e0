// SPDX-License-Identifier: MPL-2.0
// What a kernel sees: plain pointers, sizes and strides. No Eigen type crosses into src/, so one compiled library
// serves programs built with any Eigen version, alignment or vectorisation flags, and nvcc never parses Eigen.
#ifndef EIGENQ_VIEWS_H
#define EIGENQ_VIEWS_H

#include <cstddef>
#include <cstdint>

#include "Int8Codec.h"
#include "Macros.h"
#include "RoundedProduct.h"

namespace EigenQ {

/** Sizes and positions; the type of Eigen::Index as Eigen ships it. */
using Index = std::ptrdiff_t;

/** The arithmetic types of dense operands. kDouble reaches only the reference kernel, for gradient checks. */
enum class ScalarType : std::uint8_t { kFloat, kHalf, kBFloat16, kDouble };

namespace internal {

/** A dense rows×cols matrix in somebody else's memory; strides count elements and may be negative. */
template <typename Void>
struct BasicDenseView {
  Void* data = nullptr;
  ScalarType scalar = ScalarType::kFloat;
  Index rows = 0;
  Index cols = 0;
  Index rowStride = 0;  // from (i, j) to (i + 1, j)
  Index colStride = 0;  // from (i, j) to (i, j + 1)

  EIGENQ_STRONG_INLINE BasicDenseView transpose() const { return {data, scalar, cols, rows, colStride, rowStride}; }
};
using DenseView = BasicDenseView<void>;
using ConstDenseView = BasicDenseView<const void>;

/** absmax of a block, plain or nested (an absmax that is itself quantised blockwise to 8 bits; QLoRA's double
 * quantisation). */
struct AbsmaxView {
  const float* plain = nullptr;  // one value a block; null when nested

  const std::uint8_t* codes = nullptr;  // one code a block
  const float* codeTable = nullptr;     // 256 entries
  const float* absmax2 = nullptr;       // one value for 2^nestedBlockShift codes
  int nestedBlockShift = 0;
  float offset = 0;
  const float* offsetAt = nullptr;  // where a device computed it; null: offset itself

  /** Two roundings, as bitsandbytes decodes it outside its kernels: r32(r32(table·absmax2) + offset). */
  EIGENQ_HOST_DEVICE EIGENQ_STRONG_INLINE float operator()(Index block) const {
    if (plain) return plain[block];
    return roundedProduct(codeTable[codes[block]], absmax2[block >> nestedBlockShift]) + (offsetAt ? *offsetAt : offset);
  }
};

enum class WeightFormat : std::uint8_t { kInt8, kFourBit };

/** A rows×cols window of a quantised matrix. Codes lie row-major: element (i, j) of the window is the
 * (offset + i·stride + j)-th code of the whole matrix. */
struct WeightView {
  WeightFormat format = WeightFormat::kInt8;
  const void* codes = nullptr;  // kInt8: one signed byte each. kFourBit: two a byte, the first in the high nibble.
  Index rows = 0;
  Index cols = 0;
  Index stride = 0;
  Index offset = 0;

  const float* rowAbsmax = nullptr;  // kInt8: absmax of each row of the window (SCB)
  /** kInt8: X·Wᵀ quantises each row of X to int8 too, but for the columns where a magnitude reaches the threshold > 0
   * (LLM.int8()). Other products are those with the dequantised values.
   * kFourBit: X·Wᵀ may round X to int8 in groups (FourBitWithInt8Activations). */
  bool int8Activations = false;
  float outlierThreshold = 0;

  const float* codeTable = nullptr;  // kFourBit: 16 values
  AbsmaxView absmax;                 // kFourBit: of flat blocks of the whole matrix
  int blockShift = 0;                // kFourBit: 2^blockShift values share an absmax

  /** int8 codes, \a stride of them from row to row, and the absmax of each row. */
  static WeightView int8(const std::int8_t* codes, Index rows, Index cols, Index stride, const float* rowAbsmax) {
    WeightView w;
    w.codes = codes;
    w.rows = rows;
    w.cols = cols;
    w.stride = stride;
    w.rowAbsmax = rowAbsmax;
    return w;
  }
  /** 4-bit codes, packed row after row without a gap. */
  static WeightView fourBit(const std::uint8_t* packed, Index rows, Index cols, const float* codeTable,
                            const AbsmaxView& absmax, int blockShift) {
    WeightView w;
    w.format = WeightFormat::kFourBit;
    w.codes = packed;
    w.rows = rows;
    w.cols = w.stride = cols;
    w.codeTable = codeTable;
    w.absmax = absmax;
    w.blockShift = blockShift;
    return w;
  }

  /** The value that element (i, j) stands for. int8: decodeInt8; 4-bit: r32(table·absmax). */
  EIGENQ_HOST_DEVICE EIGENQ_STRONG_INLINE float coeff(Index i, Index j) const {
    const Index flat = offset + i * stride + j;
    if (format == WeightFormat::kInt8) {
      return decodeInt8(static_cast<const std::int8_t*>(codes)[flat], rowAbsmax[i]);
    }
    const std::uint8_t pair = static_cast<const std::uint8_t*>(codes)[flat >> 1];
    return codeTable[flat & 1 ? pair & 15 : pair >> 4] * absmax(flat >> blockShift);
  }

  EIGENQ_STRONG_INLINE WeightView window(Index row, Index col, Index windowRows, Index windowCols) const {
    WeightView w = *this;
    w.rows = windowRows;
    w.cols = windowCols;
    w.offset += row * stride + col;
    if (rowAbsmax) w.rowAbsmax += row;
    return w;
  }
};

}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_VIEWS_H
