// SPDX-License-Identifier: MPL-2.0
// What NF4 and FP4 share: two codes a byte, an absmax for each block of the row-major flattening.
#ifndef EIGENQ_FOURBIT_H
#define EIGENQ_FOURBIT_H

#include <cstdint>

#include "Macros.h"
#include "Views.h"

namespace EigenQ {

enum class FourBitType : std::uint8_t { kNF4, kFP4 };

namespace internal {

constexpr int kFourBitLevels = 16;

/** Block sizes are powers of two, so that a block never splits a byte and its index is a shift. */
constexpr Index kMinBlockSize = 32;
constexpr Index kMaxBlockSize = 4096;
constexpr bool isBlockSize(Index n) { return n >= kMinBlockSize && n <= kMaxBlockSize && (n & (n - 1)) == 0; }

/** log₂ of a block size: the block of a value is its flat index shifted by this. */
constexpr int blockShift(Index blockSize) {
  int shift = 0;
  while (Index{1} << shift < blockSize) ++shift;
  return shift;
}

/** Blocks that \a count values fill; the last may be partial. */
constexpr Index blockCount(Index count, Index blockSize) { return (count + blockSize - 1) / blockSize; }

/** Bytes of \a count packed codes; the low nibble of an odd count's last byte is padding. */
constexpr Index packedSize(Index count) { return (count + 1) / 2; }

EIGENQ_HOST_DEVICE constexpr std::uint8_t packPair(std::uint8_t first, std::uint8_t second) {
  return static_cast<std::uint8_t>(first << 4 | second);
}

EIGENQ_HOST_DEVICE constexpr std::uint8_t codeAt(const std::uint8_t* packed, Index i) {
  return static_cast<std::uint8_t>(i % 2 == 0 ? packed[i / 2] >> 4 : packed[i / 2] & 0xf);
}

static_assert(packPair(0x1, 0x2) == 0x12, "doc/formats.md: the first code of a pair is the high nibble");

}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_FOURBIT_H
