// SPDX-License-Identifier: MPL-2.0
// How quantised matrices lie in device memory, and the kernels that make them there. Eigen-free.
#ifndef EIGENQ_GPU_QUANTIZEDMEMORY_H
#define EIGENQ_GPU_QUANTIZEDMEMORY_H

#include "../FourBit.h"
#include "../Views.h"
#include "Context.h"

namespace EigenQ {
namespace gpu {
namespace internal {

using EigenQ::internal::ConstDenseView;

/** How values share an absmax. */
struct FourBitShape {
  Index blockSize = 64;
  bool nested = false;
  Index nestedBlockSize = 256;  // bitsandbytes' own
};

/** Where the parts of a 4-bit matrix lie in one block of device memory, in bytes from its beginning: each at a multiple of
 * 256 bytes, and with room up to the next, so that kernels may read it in whole pieces of 16. */
struct FourBitLayout {
  FourBitLayout() = default;
  FourBitLayout(Index values, const FourBitShape& shape);

  std::size_t codeTable = 0;    // 16 floats
  std::size_t packed = 0;       // two codes a byte
  std::size_t absmax = 0;       // one float a block, or one code a block where nested
  std::size_t absmax2 = 0;      // nested: one float for nestedBlockSize codes
  std::size_t nestedTable = 0;  // nested: 256 floats
  std::size_t offset = 0;       // nested: one float
  std::size_t bytes = 0;
};

/** Codes, statistics and tables of \a x into \a memory, as the host's quantisers find them. */
void quantizeFourBit(const ConstDenseView& x, FourBitType type, const FourBitShape& shape, const FourBitLayout& layout,
                     void* memory, Context& context);

/** Codes (row-major, rows·cols) and absmax of each row, as the host's quantizeInt8Rows with threshold 0 finds them. */
void quantizeInt8(const ConstDenseView& x, std::int8_t* codes, float* rowAbsmax, Context& context);

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_GPU_QUANTIZEDMEMORY_H
