// SPDX-License-Identifier: MPL-2.0
// The two 4-bit codecs behind one run-time type.
#ifndef EIGENQ_FOURBITCODEC_H
#define EIGENQ_FOURBITCODEC_H

#include "FP4Codec.h"
#include "NF4Codec.h"

namespace EigenQ {
namespace internal {

inline const float* fourBitTable(FourBitType type) { return type == FourBitType::kNF4 ? kNF4Table : kFP4Table; }

/** Code of \a v = value / absmax. */
EIGENQ_HOST_DEVICE inline std::uint8_t encodeFourBit(FourBitType type, float v) {
  return type == FourBitType::kNF4 ? encodeNF4(v) : encodeFP4(v);
}

}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_FOURBITCODEC_H
