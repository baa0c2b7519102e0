// SPDX-License-Identifier: MPL-2.0
// The packed dictionary of a 4-bit checkpoint, without its tensors. Bytes: doc/formats.md#quantstate.
#ifndef EIGENQ_PACKEDSTATE_H
#define EIGENQ_PACKEDSTATE_H

#include <optional>
#include <string>
#include <vector>

#include "FourBit.h"
#include "Views.h"

namespace EigenQ {
namespace internal {

struct PackedNested {
  Index blockSize = 0;
  float offset = 0;
};

struct PackedState {
  FourBitType type = FourBitType::kNF4;
  Index blockSize = 0;
  ScalarType dtype = ScalarType::kFloat;
  std::vector<Index> shape;
  std::optional<PackedNested> nested;
};

/** "nf4" or "fp4". */
const char* fourBitName(FourBitType type);

/** "float32", "float16", "bfloat16" or "float64". */
const char* scalarName(ScalarType scalar);

/** Python's json.dumps with its default separators, keys in bitsandbytes' order. */
std::string writePackedState(const PackedState& state);

/** Throws FormatError on anything but a dictionary of the known keys with sensible values. */
PackedState parsePackedState(const std::string& json, const std::string& where);

/** The product of \a shape; throws FormatError where an extent is negative or the product overflows Index. */
Index checkedSize(const std::vector<Index>& shape, const std::string& where);

}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_PACKEDSTATE_H
