// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_OPTIM_SCHEDULE_H
#define EIGENQ_OPTIM_SCHEDULE_H

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace EigenQ {
namespace ad {

/** The learning rate as a function of the step, 0 for the first:
 * `optimizer.setLearningRate(schedule(step))` before each step().
 *
 * Warm-up: peak·(step + 1)/warmup for step < warmup, so that the first step already learns and the last reaches the
 * peak. Then constant, or a linear or half-cosine descent that reaches \c floor at step = total and stays there. */
class Schedule {
 public:
  static Schedule constant(double peak, std::int64_t warmup = 0) { return {Decay::None, peak, warmup, warmup, peak}; }
  static Schedule linear(double peak, std::int64_t total, std::int64_t warmup = 0, double floor = 0) {
    return {Decay::Linear, peak, total, warmup, floor};
  }
  static Schedule cosine(double peak, std::int64_t total, std::int64_t warmup = 0, double floor = 0) {
    return {Decay::Cosine, peak, total, warmup, floor};
  }

  double operator()(std::int64_t step) const {
    if (step < m_warmup) return m_peak * static_cast<double>(step + 1) / static_cast<double>(m_warmup);
    if (m_decay == Decay::None) return m_peak;
    if (step >= m_total) return m_floor;
    const double done = static_cast<double>(step - m_warmup) / static_cast<double>(m_total - m_warmup);
    const double left = m_decay == Decay::Linear ? 1 - done : 0.5 * (1 + std::cos(kPi * done));
    return m_floor + (m_peak - m_floor) * left;
  }

 private:
  enum class Decay : std::uint8_t { None, Linear, Cosine };
  static constexpr double kPi = 3.14159265358979323846;

  Schedule(Decay decay, double peak, std::int64_t total, std::int64_t warmup, double floor)
      : m_decay(decay), m_peak(peak), m_floor(floor), m_total(total), m_warmup(warmup) {
    if (warmup < 0 || total < warmup)
      throw std::invalid_argument("Schedule: expected 0 <= warmup <= total, found warmup " + std::to_string(warmup) +
                                  ", total " + std::to_string(total));
  }

  Decay m_decay;
  double m_peak;
  double m_floor;
  std::int64_t m_total;
  std::int64_t m_warmup;
};

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPTIM_SCHEDULE_H
