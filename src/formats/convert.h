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
  bool (*holdsNonFinite)(const float* values, Index count);
  bool (*holdsNaN)(const float* values, Index count);
  void (*encodeInt8)(const float* values, Index count, float scale, std::int8_t* codes);
  /** Consecutive blocks, the last maybe partial: 4-bit codes, two a byte, and an absmax a block. */
  void (*quantizeFourBit)(FourBitType type, const float* values, Index count, Index blockSize, std::uint8_t* packed,
                          float* absmax);
  /** The same with 8-bit codes; \a thresholds are byteThresholds. */
  void (*quantizeBytes)(const float* values, Index count, Index blockSize, const float* thresholds, std::uint8_t* codes,
                        float* absmax);
  /** r32(table·scale) of an even number of 4-bit codes. */
  void (*decodeFourBit)(const std::uint8_t* packed, Index count, const float* table16, float scale, float* out);
  /** r32(table·scale). */
  void (*decodeBytes)(const std::uint8_t* codes, Index count, const float* table256, float scale, float* out);
  /** decodeInt8. */
  void (*decodeInt8)(const std::int8_t* codes, Index count, float absmax, float* out);
  void (*toFloat)(ScalarType scalar, const void* values, Index count, float* out);
  /** Rounded once. */
  void (*fromFloat)(const float* values, Index count, ScalarType scalar, void* out);
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
