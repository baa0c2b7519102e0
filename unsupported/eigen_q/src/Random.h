// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_RANDOM_H
#define EIGENQ_RANDOM_H

#include <array>
#include <cstdint>

namespace EigenQ {
namespace ad {

/** Philox4x32-10: four random words as a pure function of a 128-bit counter and a 64-bit key.
 * Source: Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011. */
inline std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) {
  constexpr std::uint64_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;
  constexpr std::uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;  // golden ratio, √3 − 1
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = kMultiplier0 * counter[0];
    const std::uint64_t p1 = kMultiplier1 * counter[2];
    counter = {static_cast<std::uint32_t>(p1 >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(p1),
               static_cast<std::uint32_t>(p0 >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(p0)};
    key[0] += kWeyl0;
    key[1] += kWeyl1;
  }
  return counter;
}

/** Random numbers addressed by position: the same on every machine, in every order, and again in the backward pass,
 * which is why a dropout mask is recomputed and never stored. */
struct RandomStream {
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;  // one for each random op
  /** In a graph capture on a device: added to stream by each replay. Null otherwise. */
  const std::uint64_t* base = nullptr;

  /** Words 4·block … 4·block + 3 of the stream. */
  std::array<std::uint32_t, 4> operator()(std::uint64_t block) const {
    return philox4x32({low(block), high(block), low(stream), high(stream)}, {low(seed), high(seed)});
  }

 private:
  static std::uint32_t low(std::uint64_t x) { return static_cast<std::uint32_t>(x); }
  static std::uint32_t high(std::uint64_t x) { return static_cast<std::uint32_t>(x >> 32); }
};

namespace internal {
/** Gives other random streams to each replay of a graph. There are no graphs on the host. */
template <typename Place>
class RandomReplay {
 public:
  template <typename Memory>
  void follow(RandomStream&, const Memory&) {}
  void count(const RandomStream&) {}
  template <typename Memory>
  void prepare(RandomStream&, const Memory&) {}
};
}  // namespace internal

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_RANDOM_H
