// SPDX-License-Identifier: MPL-2.0
// The quantisers of Quantizers.h on the device: the same codes and statistics, bit for bit. Every pointer is a device
// pointer, and so is the data of a view; views hold float, half or bfloat16. Work is queued on the context's stream and
// nothing waits for it.
//
// A view whose rows lie one after another, 16-byte aligned, is read where it is. Any other is first laid out in rows by
// a tiled copy, panel by panel, in scratch memory (row_panels.h).
#ifndef EIGENQ_CUDA_QUANTIZERS_H
#define EIGENQ_CUDA_QUANTIZERS_H

#include <eigen_q/src/FourBit.h>
#include <eigen_q/src/Views.h>
#include <eigen_q/src/gpu/Context.h>

#include <cstdint>

namespace EigenQ {
namespace gpu {
namespace internal {

using EigenQ::internal::AbsmaxView;
using EigenQ::internal::ConstDenseView;
using EigenQ::internal::DenseView;

/** \param packed  packedSize(rows·cols) bytes   \param absmax  blockCount(rows·cols, blockSize) values */
void quantizeFourBit(const ConstDenseView& a, FourBitType type, Index blockSize, std::uint8_t* packed, float* absmax,
                     Context& context);

/** One code a byte. \param codeTable  256 ascending levels */
void quantizeBlockwise(const ConstDenseView& a, const float* codeTable, Index blockSize, std::uint8_t* codes,
                       float* absmax, Context& context);

/** out = r(r32(codeTable[code]·absmax)). \param codeTable  256 levels */
void dequantizeBlockwise(const std::uint8_t* codes, const float* codeTable, const AbsmaxView& absmax, Index blockSize,
                         const DenseView& out, Context& context);

/** *mean = the mean of \a values, summed in double by a tree that depends on \a count alone, rounded once; 0 of
 * nothing. Within one ulp of the host's, which sums from front to back: they differ only where the two double sums lie
 * on different sides of a rounding boundary of float. */
void meanOf(const float* values, Index count, float* mean, Context& context);

/** Nested statistics: 8-bit codes by the signed dynamic map of absmax - *offset. */
void quantizeAbsmax(const float* absmax, Index blocks, const float* offset, Index nestedBlockSize, std::uint8_t* codes,
                    float* absmax2, Context& context);

/** Mean and codes in one go: *offset = meanOf(absmax), then quantizeAbsmax with it. */
void quantizeNested(const float* absmax, Index blocks, Index nestedBlockSize, std::uint8_t* codes, float* absmax2,
                    float* offset, Context& context);

/** Outlier columns, found and kept on the device. \a mask is the set; \a columns and \a count list it. */
struct DeviceOutliers {
  std::uint8_t* mask = nullptr;  // one byte a column: 1 for an outlier, else 0
  int* columns = nullptr;        // room for every column; the first *count are valid, ascending
  int* count = nullptr;
};

/** Where int8 codes go: row-major, \a stride bytes from row to row. Columns from the view's last up to the stride get
 * code 0, so that a padded inner dimension multiplies as the unpadded one. */
struct Int8Codes {
  std::int8_t* data = nullptr;
  Index stride = 0;
};

/** Row-wise int8. With threshold > 0, elements with |a| ≥ threshold do not count in rowAbsmax, \a outliers receives
 * their columns, and those hold code 0.
 * \param outliers  all three pointers where threshold > 0; not touched otherwise
 * \param markNaN   rowAbsmax is NaN where the row holds one (markRowsWithNaN); its codes stay */
void quantizeInt8Rows(const ConstDenseView& a, float threshold, bool markNaN, const Int8Codes& codes, float* rowAbsmax,
                      const DeviceOutliers& outliers, Context& context);

/** Marks of outlier columns: a bit a column, 32 a word, the lowest first, once for each chunk of rows. A column is an
 * outlier where any chunk has its bit. */
constexpr Index kMostMarkChunks = 16;

/** Of so many rows in all. */
EIGENQ_HOST_DEVICE constexpr Index markChunkRows(Index rows) {
  return rows <= 64 ? 64 : (rows + 32 * kMostMarkChunks - 1) / (32 * kMostMarkChunks) * 32;
}
EIGENQ_HOST_DEVICE constexpr Index markChunks(Index rows) {
  return (rows + markChunkRows(rows) - 1) / markChunkRows(rows);
}
/** Zeros stand behind the last column. */
EIGENQ_HOST_DEVICE constexpr Index markWords(Index cols) { return (cols + 255) / 256 * 8; }

struct OutlierMarks {
  std::uint32_t* words = nullptr;  // markChunks(rows) times markWords(cols)
  unsigned* claims = nullptr;      // of the product behind the quantiser, which clears them
  Index claimCount = 0;
  bool clearsOutliers = false;  // they hold code 0; otherwise whatever code is in their columns stays
};

/** quantizeInt8Rows in one launch, for a product that follows at once and may read all but its results before it joins
 * the stream: NaN are marked, outlier columns are marked but not listed, and the other values there keep their codes.
 * Rows are contiguous. \param marks  not touched where threshold = 0 */
void quantizeInt8Tokens(const ConstDenseView& a, float threshold, const Int8Codes& codes, float* rowAbsmax,
                        const OutlierMarks& marks, Context& context);

/** Column-wise int8; as quantizeInt8Rows with one absmax a column. Codes are row-major here too. */
void quantizeInt8Cols(const ConstDenseView& a, float threshold, const Int8Codes& codes, float* colAbsmax,
                      const DeviceOutliers& outliers, Context& context);

/** Adds the \a addedCount columns at \a added, in any order, to \a outliers and clears their codes. */
void addOutliers(const int* added, Index addedCount, Index rows, Index cols, const Int8Codes& codes,
                 const DeviceOutliers& outliers, Context& context);

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_QUANTIZERS_H
