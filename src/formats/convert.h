// SPDX-License-Identifier: MPL-2.0
// Loops of the quantisers over contiguous values, one row of a table per instruction set. All give the codes of the
// scalar definitions, bit for bit.
#ifndef EIGENQ_FORMATS_CONVERT_H
#define EIGENQ_FORMATS_CONVERT_H

#include <cstdint>

#include <eigen_q/src/FourBit.h>
#include <eigen_q/src/Lowering.h>
#include <eigen_q/src/Views.h>

namespace EigenQ {
namespace internal {

struct ConvertKernels {
  /** The largest magnitude: see magnitudeBits. */
  float (*absmax)(const float* values, Index count);
  /** The same over what lies below \a threshold. */
  float (*absmaxBelow)(const float* values, Index count, float threshold);
  bool (*holdsNaN)(const float* values, Index count);
  void (*encodeInt8)(const float* values, Index count, float scale, std::int8_t* codes);
  /** The 4-bit codes of a block, two a byte; \a padding fills the last nibble of an odd count. */
  void (*encodeFourBit)(FourBitType type, const float* values, Index count, float reciprocal, std::uint8_t* packed);
  /** The 8-bit codes of a block; \a thresholds are byteThresholds. */
  void (*encodeBytes)(const float* values, Index count, float reciprocal, const float* thresholds, std::uint8_t* codes);
  void (*toFloat)(ScalarType scalar, const void* values, Index count, float* out);
};

struct ConvertLowering {
  const char* name;
  const char* (*refuse)();  // null: "mine". Otherwise the reason, in words.
  const ConvertKernels* kernels;
};

/** Best first; the last row never refuses. */
LoweringTable<ConvertLowering> hostConverters();

/** The kernels of the first row that does not refuse. */
const ConvertKernels& convertKernels();

extern const ConvertKernels kConvertPortable;
#if defined(EIGENQ_HAVE_X86_KERNELS)
extern const ConvertKernels kConvertAvx2, kConvertAvx512;
#endif

}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_FORMATS_CONVERT_H
