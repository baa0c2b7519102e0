// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_FINETUNE_CURVE_H
#define EIGENQ_FINETUNE_CURVE_H

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

namespace finetune {

/** What one phase of training left behind. Losses in nats per byte. */
struct Phase {
  std::string name;                  // a word
  std::string title;                 // for people
  std::vector<double> learningRate;  // of steps 1, 2, …
  std::vector<double> trainLoss;     // of each step's batch, before its update
  std::map<long, double> heldOut;    // by the number of steps before it was measured

  long steps() const { return static_cast<long>(trainLoss.size()); }
};

/** phase,step,learning_rate,train_loss,held_out_loss; empty where there is no such number. Nine digits: the same floats
 * give the same file, and other floats another one. */
inline std::string toCsv(const std::vector<Phase>& phases) {
  const auto number = [](double x) {
    if (!std::isfinite(x)) return std::string();
    char text[32];
    std::snprintf(text, sizeof text, "%.9g", x);
    return std::string(text);
  };
  std::string csv = "phase,step,learning_rate,train_loss,held_out_loss\n";
  for (const Phase& phase : phases)
    for (long step = 0; step <= phase.steps(); ++step) {
      const auto heldOut = phase.heldOut.find(step);
      const auto i = static_cast<std::size_t>(step - 1);
      csv += phase.name + "," + std::to_string(step) + ",";
      csv += step > 0 ? number(phase.learningRate[i]) + "," + number(phase.trainLoss[i]) : ",";
      csv += "," + (heldOut == phase.heldOut.end() ? "" : number(heldOut->second)) + "\n";
    }
  return csv;
}

/** Means over windows of 2·radius + 1 steps around each, smaller towards the ends: no lag, unlike a running mean. What
 * is not finite does not count; NaN where there is nothing else. */
inline std::vector<double> smooth(const std::vector<double>& values, std::size_t radius) {
  std::vector<double> sums(values.size() + 1, 0.0), counts(values.size() + 1, 0.0);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const bool finite = std::isfinite(values[i]);
    sums[i + 1] = sums[i] + (finite ? values[i] : 0);
    counts[i + 1] = counts[i] + (finite ? 1 : 0);
  }
  std::vector<double> means(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::size_t r = std::min({radius, i, values.size() - 1 - i});
    means[i] = (sums[i + r + 1] - sums[i - r]) / (counts[i + r + 1] - counts[i - r]);
  }
  return means;
}

/** Multiples of 1, 2 or 5·10ⁿ from \a low to \a high, about \a wanted of them. Expects low < high. */
inline std::vector<double> roundTicks(double low, double high, int wanted) {
  const double raw = (high - low) / wanted;
  const double power = std::pow(10, std::floor(std::log10(raw)));
  double step = 10 * power;
  for (const double factor : {5.0, 2.0, 1.0})
    if (factor * power >= raw * 0.999) step = factor * power;
  std::vector<double> ticks;
  // + 0.0 turns the -0 that ceil leaves just below zero into 0.
  for (double i = std::ceil(low / step - 1e-9) + 0.0; i * step <= high + 1e-9 * step; ++i) ticks.push_back(i * step);
  return ticks;
}

}  // namespace finetune

#endif  // EIGENQ_FINETUNE_CURVE_H
