// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_RANDOM_H
#define EIGENQ_RANDOM_H

#include <eigen_q/src/Philox.h>

#include <cstdint>

namespace EigenQ {
namespace ad {

/** Random numbers addressed by position: the same on every machine, in every order, and again in the backward pass,
 * which is why a dropout mask is recomputed and never stored. */
struct RandomStream {
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;  // one for each random op
  /** In a graph capture on a device: added to stream by each replay. Null otherwise. */
  const std::uint64_t* base = nullptr;

  /** Words 4·block … 4·block + 3 of the stream. */
  EigenQ::internal::PhiloxWords operator()(std::uint64_t block) const {
    return EigenQ::internal::philox(seed, stream, block);
  }
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
