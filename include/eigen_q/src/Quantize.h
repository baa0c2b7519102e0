// SPDX-License-Identifier: MPL-2.0
// Quantising Eigen expressions to codes and statistics, and back. The names are bitsandbytes' in camelCase.
#ifndef EIGENQ_QUANTIZE_H
#define EIGENQ_QUANTIZE_H

#include <string>
#include <utility>
#include <vector>

#include <Eigen/Core>

#include "EigenViews.h"
#include "Lowering.h"
#include "QuantState.h"
#include "Quantizers.h"

namespace EigenQ {

template <typename Scalar>
using RowMajorMatrix = Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Int8Codes = RowMajorMatrix<std::int8_t>;
using IndexVector = Eigen::Matrix<Index, Eigen::Dynamic, 1>;

/** Codes into a table of 256 levels, one absmax for each block of the row-major flattening. */
struct BlockwiseQuantized {
  RowMajorMatrix<std::uint8_t> codes;  // m×k
  Eigen::VectorXf absmax;              // ⌈m·k/blockSize⌉, in the unit of the input
  Eigen::VectorXf codeTable;           // 256 levels in units of absmax
  Index blockSize = 0;
};

/** 4-bit codes, two a byte, the first of a pair in the high nibble; and what decodes them. */
struct FourBitQuantized {
  ByteVector packed;  // ⌈m·k/2⌉ bytes
  QuantState state;
};

/** Row-wise int8 codes. */
struct Int8Quantized {
  Int8Codes codes;             // m×k, in [-127, 127]
  Eigen::VectorXf rowStats;    // m, maxⱼ |x(i,j)| over what is no outlier, in the unit of x
  IndexVector outlierColumns;  // ascending; columns that hold an outlier
};

/** Row-wise and column-wise int8 codes of one matrix. */
struct Int8DoubleQuantized {
  Int8Codes rowCodes;          // m×k, scaled by rowStats
  Int8Codes colCodes;          // m×k, scaled by colStats
  Eigen::VectorXf rowStats;    // m
  Eigen::VectorXf colStats;    // k
  IndexVector outlierColumns;  // ascending
};

/** The 256 levels of bitsandbytes' default 8-bit code, ascending from about -1 (signed) or 0 to 1. */
inline Eigen::Map<const Eigen::VectorXf> dynamicMap(bool isSigned = true) {
  const internal::ByteCodeTable& table = isSigned ? internal::signedDynamicMap() : internal::unsignedDynamicMap();
  return {table.data(), internal::kByteLevels};
}

namespace internal {

inline void requireBlockSize(const char* function, Index blockSize) {
  if (isBlockSize(blockSize)) return;
  throw FormatError(function, "blockSize",
                    "expected a power of two from 32 to 4096, found " + std::to_string(blockSize));
}

inline void requireSize(const char* function, const char* key, Index found, Index expected) {
  if (found == expected) return;
  throw FormatError(function, key, "expected " + std::to_string(expected) + " entries, found " + std::to_string(found));
}

/** 256 finite levels that do not descend: the search for the nearest one relies on it. */
inline void requireCodeTable(const char* function, const Eigen::Ref<const Eigen::VectorXf>& table) {
  requireSize(function, "codeTable", table.size(), kByteLevels);
  for (Index i = 0; i < table.size(); ++i) {
    const bool ascends = i == 0 || table[i - 1] <= table[i];
    if (isFinite(table[i]) && ascends) continue;
    throw FormatError(
        function, "codeTable",
        "expected finite ascending levels, found " + std::to_string(table[i]) + " at entry " + std::to_string(i));
  }
}

inline IndexVector toIndexVector(const std::vector<Index>& v) {
  return Eigen::Map<const IndexVector>(v.data(), static_cast<Index>(v.size()));
}

/** Double-quantises the absmax of blocks: offset = mean, then blockwise 8-bit codes of absmax - offset. */
inline NestedAbsmax nestAbsmax(const Eigen::VectorXf& absmax, Index nestedBlockSize = 256) {
  NestedAbsmax nested;
  nested.blockSize = nestedBlockSize;
  nested.codes.resize(absmax.size());
  nested.absmax.resize(blockCount(absmax.size(), nestedBlockSize));
  nested.codeTable = dynamicMap();
  nested.offset = meanOf(absmax.data(), absmax.size());
  quantizeAbsmax(absmax.data(), absmax.size(), nested.offset, nestedBlockSize, nested.codes.data(),
                 nested.absmax.data());
  return nested;
}

}  // namespace internal

/** Quantises \a x to the nearest of 256 levels, each block by its own absmax.
 * \param x          m×k of any supported scalar. NaN takes the lowest level and leaves absmax alone; an infinity makes
 *                   its block's absmax infinite.
 * \param codeTable  256 ascending levels in [-1, 1]
 * \param blockSize  values per absmax, a power of two from 32 to 4096; blocks run along the row-major flattening
 * Error: half the distance of the neighbouring levels times absmax. A tie takes the even code. A block whose absmax is
 * subnormal counts as zero, and a zero block takes code 0 throughout.
 * Throws FormatError on a wrong block size or table.
 * Source: Dettmers et al., 8-bit Optimizers via Block-wise Quantization, arXiv:2110.02861. Bytes:
 * doc/formats.md#blockwise. */
template <typename Derived>
BlockwiseQuantized quantizeBlockwise(const Eigen::MatrixBase<Derived>& x,
                                     const Eigen::Ref<const Eigen::VectorXf>& codeTable = dynamicMap(),
                                     Index blockSize = 4096) {
  internal::requireBlockSize("quantizeBlockwise", blockSize);
  internal::requireCodeTable("quantizeBlockwise", codeTable);
  internal::DirectOrPlain<Derived> direct(x.derived());
  BlockwiseQuantized q;
  q.codes.resize(x.rows(), x.cols());
  q.absmax.resize(internal::blockCount(x.size(), blockSize));
  q.codeTable = codeTable;
  q.blockSize = blockSize;
  internal::quantizeBlockwise(internal::viewOf(direct), q.codeTable.data(), blockSize, q.codes.data(), q.absmax.data());
  return q;
}

/** r_Scalar(r32(level·absmax)), m×k: exact but for these two roundings. Throws FormatError on sizes that disagree. */
template <typename Scalar = float>
RowMajorMatrix<Scalar> dequantizeBlockwise(const BlockwiseQuantized& q) {
  internal::requireBlockSize("dequantizeBlockwise", q.blockSize);
  internal::requireSize("dequantizeBlockwise", "codeTable", q.codeTable.size(), internal::kByteLevels);
  internal::requireSize("dequantizeBlockwise", "absmax", q.absmax.size(),
                        internal::blockCount(q.codes.size(), q.blockSize));
  RowMajorMatrix<Scalar> x(q.codes.rows(), q.codes.cols());
  internal::AbsmaxView absmax;
  absmax.plain = q.absmax.data();
  internal::dequantizeBlockwise(q.codes.data(), q.codeTable.data(), absmax, q.blockSize, internal::mutableViewOf(x));
  return x;
}

/** Quantises \a x to NF4 or FP4, each block by its own absmax.
 * \param x                   m×k of any supported scalar; NaN and infinities as in quantizeBlockwise
 * \param type                which sixteen levels
 * \param blockSize           values per absmax, a power of two from 32 to 4096
 * \param compressStatistics  nested absmax: 8-bit codes in blocks of 256 around their mean
 * Error: half the distance of the neighbouring levels times absmax; for a nested absmax, its own error besides.
 * A value on a threshold takes the lower level (NF4) or the smaller magnitude (FP4); the odd count's last nibble holds
 * the code of zero; blocks of zeros take code 0 throughout, which NF4 decodes to -0.
 * Throws FormatError on a wrong block size.
 * Source: Dettmers et al., QLoRA, arXiv:2305.14314; codes as bitsandbytes' CUDA kernels. Bytes: doc/formats.md#nf4. */
template <typename Derived>
FourBitQuantized quantize4bit(const Eigen::MatrixBase<Derived>& x, FourBitType type = FourBitType::kNF4,
                              Index blockSize = 64, bool compressStatistics = false) {
  internal::requireBlockSize("quantize4bit", blockSize);
  internal::DirectOrPlain<Derived> direct(x.derived());
  ByteVector packed(internal::packedSize(x.size()));
  Eigen::VectorXf absmax(internal::blockCount(x.size(), blockSize));
  internal::quantizeFourBit(internal::viewOf(direct), type, blockSize, packed.data(), absmax.data());
  const ScalarType dtype = internal::ScalarTypeOf<typename Derived::Scalar>::value;
  std::vector<Index> shape{x.rows(), x.cols()};
  if (!compressStatistics) {
    return {std::move(packed), QuantState(type, blockSize, dtype, std::move(shape), std::move(absmax))};
  }
  return {std::move(packed), QuantState(type, blockSize, dtype, std::move(shape), internal::nestAbsmax(absmax))};
}

/** r_Scalar(r32(level·absmax)), of the state's shape. Throws FormatError where the state is no matrix or \a packed has
 * not ⌈size/2⌉ bytes. */
template <typename Scalar = float>
RowMajorMatrix<Scalar> dequantize4bit(const Eigen::Ref<const ByteVector>& packed, const QuantState& state) {
  internal::requireSize("dequantize4bit", "shape", static_cast<Index>(state.shape().size()), 2);
  internal::requireSize("dequantize4bit", "packed", packed.size(), internal::packedSize(state.size()));
  RowMajorMatrix<Scalar> x(state.shape()[0], state.shape()[1]);
  internal::dequantize(internal::WeightView::fourBit(packed.data(), x.rows(), x.cols(), state.codeTable().data(),
                                                     state.absmaxView(), internal::blockShift(state.blockSize())),
                       false, internal::mutableViewOf(x), internal::Epilogue());
  return x;
}

/** Quantises each row of \a x to int8 by its own absolute maximum (vector-wise quantisation).
 * \param x          m×k of any supported scalar; double is rounded to float first. NaN takes code 0.
 * \param threshold  0 for none, else elements with |x| ≥ threshold are outliers: they do not count in rowStats, and
 *                   their columns hold code 0 and are to be multiplied in full precision. A column of a single row is
 *                   zeroed by element, which is the same.
 * \returns codes in [-127, 127]; rowStats in the unit of x.
 * Error: |x(i,j) - codes(i,j)·rowStats(i)/127| ≤ rowStats(i)/254, half a step, beside float rounding. Ties to even.
 * Source: Dettmers et al., LLM.int8(), arXiv:2208.07339. Bytes: doc/formats.md#int8. */
template <typename Derived>
Int8Quantized int8VectorwiseQuant(const Eigen::MatrixBase<Derived>& x, float threshold = 0) {
  eigen_assert(threshold >= 0 && "int8VectorwiseQuant: the outlier threshold is negative");
  internal::DirectOrPlain<Derived> direct(x.derived());
  Int8Quantized q;
  q.codes.resize(x.rows(), x.cols());
  q.rowStats.resize(x.rows());
  std::vector<Index> outliers;
  internal::quantizeInt8Rows(internal::viewOf(direct), threshold, q.codes.data(), q.rowStats.data(), &outliers);
  q.outlierColumns = internal::toIndexVector(outliers);
  return q;
}

/** Quantises \a x by rows and by columns at once, for products that reduce over either; outliers as in
 * int8VectorwiseQuant, in both sets of codes. The column codes are computed in float: the original rounds 127·x to
 * half, which overflows from |x| = 516 on. */
template <typename Derived>
Int8DoubleQuantized int8DoubleQuant(const Eigen::MatrixBase<Derived>& x, float threshold = 0) {
  eigen_assert(threshold >= 0 && "int8DoubleQuant: the outlier threshold is negative");
  internal::DirectOrPlain<Derived> direct(x.derived());
  const internal::ConstDenseView view = internal::viewOf(direct);
  Int8DoubleQuantized q;
  q.rowCodes.resize(x.rows(), x.cols());
  q.colCodes.resize(x.rows(), x.cols());
  q.rowStats.resize(x.rows());
  q.colStats.resize(x.cols());
  std::vector<Index> outliers;
  internal::quantizeInt8Rows(view, threshold, q.rowCodes.data(), q.rowStats.data(), &outliers);
  internal::quantizeInt8Cols(view, threshold, q.colCodes.data(), q.colStats.data(), nullptr);
  q.outlierColumns = internal::toIndexVector(outliers);
  return q;
}

/** r_Scalar(r32(r32(code·rowStats(i))·RN(1/127))), m×k. Throws FormatError on sizes that disagree. */
template <typename Scalar = float>
RowMajorMatrix<Scalar> int8VectorwiseDequant(const Eigen::Ref<const Int8Codes>& codes,
                                             const Eigen::Ref<const Eigen::VectorXf>& rowStats) {
  internal::requireSize("int8VectorwiseDequant", "rowStats", rowStats.size(), codes.rows());
  RowMajorMatrix<Scalar> x(codes.rows(), codes.cols());
  internal::dequantize(
      internal::WeightView::int8(codes.data(), x.rows(), x.cols(), codes.outerStride(), rowStats.data()), false,
      internal::mutableViewOf(x), internal::Epilogue());
  return x;
}

}  // namespace EigenQ

#endif  // EIGENQ_QUANTIZE_H
