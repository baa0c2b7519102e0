// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_PHILOX_H
#define EIGENQ_PHILOX_H

#include <cstddef>
#include <cstdint>

#include "Macros.h"

namespace EigenQ {
namespace internal {

/** What Philox4x32-10 is made of, for its vector forms too.
 * Source: Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011. */
struct Philox {
  static constexpr int kRounds = 10;
  static constexpr std::uint32_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;
  static constexpr std::uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;  // golden ratio, √3 − 1
};

struct PhiloxWords {
  std::uint32_t word[4];

  EIGENQ_HOST_DEVICE std::uint32_t operator[](std::ptrdiff_t i) const { return word[i]; }
};

/** Words 4·block … 4·block + 3 of a stream: a pure function of the 128-bit counter (stream, block) and a 64-bit key. */
EIGENQ_HOST_DEVICE inline PhiloxWords philox(std::uint64_t key, std::uint64_t stream, std::uint64_t block) {
  std::uint32_t key0 = static_cast<std::uint32_t>(key), key1 = static_cast<std::uint32_t>(key >> 32);
  PhiloxWords c = {{static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32),
                    static_cast<std::uint32_t>(stream), static_cast<std::uint32_t>(stream >> 32)}};
  for (int round = 0; round < Philox::kRounds; ++round) {
    const std::uint64_t p0 = std::uint64_t{Philox::kMultiplier0} * c.word[0];
    const std::uint64_t p1 = std::uint64_t{Philox::kMultiplier1} * c.word[2];
    c = {{static_cast<std::uint32_t>(p1 >> 32) ^ c.word[1] ^ key0, static_cast<std::uint32_t>(p1),
          static_cast<std::uint32_t>(p0 >> 32) ^ c.word[3] ^ key1, static_cast<std::uint32_t>(p0)}};
    key0 += Philox::kWeyl0;
    key1 += Philox::kWeyl1;
  }
  return c;
}

}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_PHILOX_H
