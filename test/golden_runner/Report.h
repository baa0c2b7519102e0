// SPDX-License-Identifier: MPL-2.0
// What the golden runner finds: comparisons of one case, summed up by group.
#ifndef EIGENQ_TEST_GOLDEN_RUNNER_REPORT_H
#define EIGENQ_TEST_GOLDEN_RUNNER_REPORT_H

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include <eigen_q/src/ScalarConvert.h>
#include <eigen_q/src/Views.h>

namespace EigenQ {
namespace golden {

/** One case against ours. Failures are deviations that nothing documents; notes are those that doc/formats.md allows:
 * code flips by the original's approximate reciprocal, and a nested offset one ulp away. */
struct CaseReport {
  std::vector<std::string> failures;
  std::vector<std::string> notes;
  double worst = 0;  // in codes or ulps, whichever deviates more

  void fail(const std::string& message) { failures.push_back(message); }
  void note(const std::string& message, double deviation) {
    notes.push_back(message);
    worst = std::max(worst, deviation);
  }

  /** False, and a failure, where the counts differ. */
  bool sameCount(const char* what, std::size_t expected, std::size_t found) {
    if (expected == found) return true;
    fail(std::string(what) + ": the file holds " + std::to_string(expected) + " values, ours " + std::to_string(found));
    return false;
  }

  /** Bit for bit; reports how many values differ, the first of them and the largest difference in ulps. */
  void compareFloats(const char* what, const std::vector<float>& expected, const std::vector<float>& found);

  /** Integers, exactly. */
  template <typename T>
  void compareIntegers(const char* what, const std::vector<T>& expected, const std::vector<T>& found) {
    if (!sameCount(what, expected.size(), found.size())) return;
    std::size_t count = 0, first = 0;
    for (std::size_t i = expected.size(); i-- > 0;) {
      if (expected[i] == found[i]) continue;
      ++count;
      first = i;
      worst = std::max(worst, std::fabs(static_cast<double>(expected[i]) - static_cast<double>(found[i])));
    }
    if (count == 0) return;
    fail(std::string(what) + ": " + std::to_string(count) + " of " + std::to_string(expected.size()) +
         " differ, the first at " + std::to_string(first) + ": the file holds " + std::to_string(expected[first]) +
         ", ours " + std::to_string(found[first]));
  }
};

/** Floats of one sign order like their bits; this extends the order over zero, -0 just below +0. */
inline std::int64_t orderedBits(float v) {
  const std::int64_t magnitude = internal::bitsOf(v) & ~internal::kFloatSign;
  return std::signbit(v) ? -magnitude - 1 : magnitude;
}

inline double ulpsApart(float a, float b) { return std::fabs(static_cast<double>(orderedBits(a) - orderedBits(b))); }

inline void CaseReport::compareFloats(const char* what, const std::vector<float>& expected,
                                      const std::vector<float>& found) {
  if (!sameCount(what, expected.size(), found.size())) return;
  std::size_t count = 0, first = 0;
  double largest = 0;
  for (std::size_t i = expected.size(); i-- > 0;) {
    if (internal::bitsOf(expected[i]) == internal::bitsOf(found[i])) continue;
    ++count;
    first = i;
    largest = std::max(largest, ulpsApart(expected[i], found[i]));
  }
  if (count == 0) return;
  worst = std::max(worst, largest);
  fail(std::string(what) + ": " + std::to_string(count) + " of " + std::to_string(expected.size()) +
       " differ by up to " + std::to_string(largest) + " ulp, the first at " + std::to_string(first) +
       ": the file holds " + std::to_string(expected[first]) + ", ours " + std::to_string(found[first]));
}

struct GroupReport {
  int cases = 0;
  int exact = 0;
  int failed = 0;
  int skipped = 0;        // of the tables, which are the host's, where a device computes
  std::size_t flips = 0;  // deviations that are allowed: codes and offsets
  double worst = 0;
  std::vector<std::string> lines;  // "case: message", failures first marked as such

  void add(const std::string& name, const CaseReport& report) {
    ++cases;
    exact += report.failures.empty() && report.notes.empty();
    failed += !report.failures.empty();
    flips += report.notes.size();
    worst = std::max(worst, report.worst);
    for (const std::string& message : report.failures) lines.push_back("FAILED " + name + ": " + message);
    for (const std::string& message : report.notes) lines.push_back("allowed " + name + ": " + message);
  }
};

using Reports = std::map<std::string, GroupReport>;

}  // namespace golden
}  // namespace EigenQ

#endif  // EIGENQ_TEST_GOLDEN_RUNNER_REPORT_H
