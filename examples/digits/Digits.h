// SPDX-License-Identifier: MPL-2.0
// scikit-learn's digits: 1797 handwritten digits of 8×8 pixels, a test set of UCI's Optical Recognition of Handwritten
// Digits (Alpaydin and Kaynak, 1998).
#ifndef EIGENQ_DIGITS_DIGITS_H
#define EIGENQ_DIGITS_DIGITS_H

#include <charconv>
#include <cmath>
#include <istream>
#include <stdexcept>
#include <string>
#include <vector>

#include <Eigen/Core>

namespace digits {

using Eigen::Index;

constexpr Index kPixels = 64;
constexpr Index kClasses = 10;

/** One digit = one column. */
struct Digits {
  Eigen::MatrixXf pixels;  // 64×n
  Eigen::VectorXi labels;  // n

  Index size() const { return labels.size(); }
  Digits operator()(const std::vector<Index>& which) const {
    Digits some{Eigen::MatrixXf(pixels.rows(), which.size()), Eigen::VectorXi(which.size())};
    for (Index j = 0; j < some.size(); ++j) {
      some.pixels.col(j) = pixels.col(which[static_cast<std::size_t>(j)]);
      some.labels(j) = labels(which[static_cast<std::size_t>(j)]);
    }
    return some;
  }
};

/** The integers of one line, comma-separated. Throws std::runtime_error, naming \a where, unless there are 64 pixels in
 * [0, 16] and a label in [0, 9]. */
inline std::vector<int> parseLine(const std::string& line, const std::string& where) {
  std::vector<int> values;
  const char* const end = line.data() + line.size();
  for (const char* p = line.data(); p != end;) {
    int value = -1;
    const auto [next, error] = std::from_chars(p, end, value);
    const int most = values.size() < kPixels ? 16 : 9;
    if (error != std::errc() || value < 0 || value > most || (next != end && *next != ','))
      throw std::runtime_error(where + "value " + std::to_string(values.size() + 1) +
                               ": expected an integer from 0 to " + std::to_string(most));
    values.push_back(value);
    p = next == end ? end : next + 1;
  }
  if (values.size() != kPixels + 1)
    throw std::runtime_error(where + "expected 64 pixels and a label, found " + std::to_string(values.size()) +
                             " values");
  return values;
}

/** Reads digits.csv, a digit a line; \a name is for errors. Throws std::runtime_error. */
inline Digits readDigits(std::istream& in, const std::string& name) {
  std::vector<std::vector<int>> lines;
  for (std::string line; std::getline(in, line);) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    lines.push_back(parseLine(line, name + ": line " + std::to_string(lines.size() + 1) + ": "));
  }
  if (lines.size() < 100)
    throw std::runtime_error(name + ": expected at least 100 digits, found " + std::to_string(lines.size()));
  Digits digits{Eigen::MatrixXf(kPixels, lines.size()), Eigen::VectorXi(lines.size())};
  for (Index j = 0; j < digits.size(); ++j) {
    const auto& line = lines[static_cast<std::size_t>(j)];
    digits.pixels.col(j) = Eigen::Map<const Eigen::VectorXi>(line.data(), kPixels).cast<float>();
    digits.labels(j) = line.back();
  }
  return digits;
}

/** Brings each pixel of the training set to mean 0 and variance 1, and the test set by the same map. Pixels at the rim
 * are mostly blank: where they hold ink, they are the outliers of LLM.int8(). */
inline void standardize(Digits& train, Digits& test) {
  const Eigen::VectorXf mean = train.pixels.rowwise().mean();
  const Eigen::VectorXf deviation = (train.pixels.colwise() - mean).rowwise().norm() / std::sqrt(float(train.size()));
  const Eigen::ArrayXf scale = (deviation.array() > 0).select(deviation.array().inverse(), 1.0f);
  for (Digits* d : {&train, &test})
    d->pixels = ((d->pixels.colwise() - mean).array().colwise() * scale).matrix().eval();
}

}  // namespace digits

#endif  // EIGENQ_DIGITS_DIGITS_H
