// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_TOOLS_STOPWATCH_H
#define EIGENQ_TOOLS_STOPWATCH_H

#include <chrono>

namespace EigenQ {
namespace tools {

/** Seconds since it was made or restarted. */
class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(Clock::now() - m_start).count(); }
  void restart() { m_start = Clock::now(); }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point m_start = Clock::now();
};

}  // namespace tools
}  // namespace EigenQ

#endif  // EIGENQ_TOOLS_STOPWATCH_H
