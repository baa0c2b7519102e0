// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_AD_DEVICE_RANDOM_REPLAY_H
#define EIGENQ_AD_DEVICE_RANDOM_REPLAY_H

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "../Random.h"
#include "DevicePlace.h"

namespace EigenQ {
namespace ad {
namespace internal {

/** Random ops that are captured take streams counted from a number in device memory, which is sent before each replay.
 */
template <>
class RandomReplay<Device> {
 public:
  /** Lets \a next count from that number inside of a capture, and as if there had been none after it. */
  void follow(RandomStream& next, const Device::Memory& memory) {
    const std::uint64_t capture = memory.context().captureId();
    if (capture != 0 && capture != m_capture) {  // and not a checkpoint's stream of before the capture
      if (!next.base) m_uncaptured = next.stream;
      next.stream = 0;
      next.base = base(memory);
      m_capture = capture;
      m_count = 0;
    } else if (capture == 0 && next.base) {
      next.stream = m_uncaptured;
      next.base = nullptr;
    }
    if (capture == 0) (void)base(memory);  // a capture cannot ask for memory
  }

  /** \param next  behind the stream that an op has taken */
  void count(const RandomStream& next) {
    if (next.base) m_count = std::max(m_count, next.stream);
  }

  void prepare(RandomStream& next, const Device::Memory& memory) {
    follow(next, memory);
    Eigen::Vector2i words;
    std::memcpy(words.data(), &next.stream, sizeof next.stream);
    const gpu::ContextGuard guard(memory.context());
    m_base.view().copyFromHost(words);
    next.stream += m_count;
  }

 private:
  const std::uint64_t* base(const Device::Memory& memory) {
    if (m_base.size() == 0) m_base.resize(2, 1, memory.context());
    return reinterpret_cast<const std::uint64_t*>(m_base.data());
  }

  gpu::DeviceMatrix<int> m_base;   // the two halves of a number
  std::uint64_t m_capture = 0;     // the last one's number
  std::uint64_t m_count = 0;       // streams that it took
  std::uint64_t m_uncaptured = 0;  // the next one outside of it
};

}  // namespace internal
}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_AD_DEVICE_RANDOM_REPLAY_H
