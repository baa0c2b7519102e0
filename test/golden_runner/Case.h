// SPDX-License-Identifier: MPL-2.0
// One recorded case, and what every group needs of it.
#ifndef EIGENQ_TEST_GOLDEN_RUNNER_CASE_H
#define EIGENQ_TEST_GOLDEN_RUNNER_CASE_H

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <eigen_q/Core>
#include <nlohmann/json.hpp>

#include "Backend.h"
#include "Report.h"
#include "support/Safetensors.h"

namespace EigenQ {
namespace golden {

/** Parameters and tensors of one case, and what is to be compared with them. Each tensor and parameter that is missing
 * throws FormatError by name. */
class Case {
 public:
  Case(const test::SafetensorsFile& file, const nlohmann::json& parameters, const Backend& backend)
      : m_file(file), m_parameters(parameters), m_name(parameters.at("name").get<std::string>()), m_backend(backend) {}

  const Backend& backend() const { return m_backend; }

  const std::string& name() const { return m_name; }
  std::string group() const { return parameter<std::string>("group"); }
  const test::Tensor& tensor(const std::string& leaf) const { return m_file.at(m_name + "/" + leaf); }
  bool has(const std::string& leaf) const { return m_file.has(m_name + "/" + leaf); }

  template <typename T>
  T parameter(const char* key) const {
    if (!m_parameters.contains(key)) throw FormatError(m_file.path(), m_name, std::string("parameter missing: ") + key);
    return m_parameters.at(key).get<T>();
  }

  FourBitType fourBitType() const {
    const auto name = parameter<std::string>("quant_type");
    if (name == "nf4") return FourBitType::kNF4;
    if (name == "fp4") return FourBitType::kFP4;
    throw FormatError(m_file.path(), m_name, "unknown quant_type " + name);
  }

 private:
  const test::SafetensorsFile& m_file;
  const nlohmann::json& m_parameters;
  std::string m_name;
  const Backend& m_backend;
};

inline ScalarType scalarOf(const test::Tensor& t) {
  if (t.dtype == "F32") return ScalarType::kFloat;
  if (t.dtype == "F16") return ScalarType::kHalf;
  if (t.dtype == "BF16") return ScalarType::kBFloat16;
  throw FormatError("tensor", t.key, "expected F32, F16 or BF16, found " + t.dtype);
}

/** The tensor as a row-major matrix of its own scalar type; leading extents are flattened. */
inline ConstDenseView viewOf(const test::Tensor& t) {
  return {t.bytes.data(), scalarOf(t), t.rows(), t.cols(), t.cols(), 1};
}

template <typename F>
decltype(auto) withMatrix(const test::Tensor& t, F&& f) {
  return withMatrix(viewOf(t), std::forward<F>(f));
}

/** The tensor widened to float, which is exact. */
inline std::vector<float> widened(const test::Tensor& t) {
  return withMatrix(t, [](const auto& m) {
    std::vector<float> values(static_cast<std::size_t>(m.size()));
    for (Index i = 0; i < m.size(); ++i) values[static_cast<std::size_t>(i)] = static_cast<float>(m.data()[i]);
    return values;
  });
}

inline MatrixXdRow asDouble(const test::Tensor& t) {
  const std::vector<float> values = widened(t);
  return MatrixMap<float>(values.data(), t.rows(), t.cols()).cast<double>();
}

constexpr double kHalfRoundoff = 0x1p-11;

inline double unitRoundoff(const std::string& dtype) {
  return dtype == "BF16" ? 0x1p-8 : dtype == "F16" ? kHalfRoundoff : 0x1p-24;
}

template <typename Derived>
std::vector<typename Derived::Scalar> toVector(const Eigen::PlainObjectBase<Derived>& m) {
  return {m.data(), m.data() + m.size()};
}

inline Eigen::VectorXf toEigen(const std::vector<float>& v) {
  return Eigen::Map<const Eigen::VectorXf>(v.data(), static_cast<Index>(v.size()));
}

inline ByteVector toEigen(const std::vector<std::uint8_t>& v) {
  return Eigen::Map<const ByteVector>(v.data(), static_cast<Index>(v.size()));
}

/** How far the original's quotient may lie from ours. Its reciprocal is within an ulp of the correctly rounded one,
 * which a product turns into two ulps at most; 127/absmax is a reciprocal and a product, so twice that. */
constexpr int kBlockQuotientUlps = 2;
constexpr int kInt8QuotientUlps = 4;

/** The smallest number of ulps by which \a quotient must move for \a encode to give \a code; -1 if not within \a limit.
 */
template <typename Encode, typename Code>
int ulpsToCode(float quotient, Code code, int limit, Encode&& encode) {
  const float infinity = std::numeric_limits<float>::infinity();
  float below = quotient, above = quotient;
  for (int ulps = 0; ulps <= limit; ++ulps) {
    if (encode(below) == code || encode(above) == code) return ulps;
    below = std::nextafter(below, -infinity);
    above = std::nextafter(above, infinity);
  }
  return -1;
}

/** Compares codes. One that differs is allowed, and listed, where moving the quotient by at most \a limit ulps gives
 * it, and one of zero where \a isLost: the original flushes the reciprocal of a block that large.
 * \param quotientAt  the quotient that was encoded for element i   \param encode  quotient to code */
template <typename Code, typename QuotientAt, typename Encode, typename IsLost>
void compareCodes(CaseReport& report, const char* what, const std::vector<Code>& expected,
                  const std::vector<Code>& found, int limit, QuotientAt&& quotientAt, Encode&& encode,
                  IsLost&& isLost) {
  if (!report.sameCount(what, expected.size(), found.size())) return;
  std::size_t wrong = 0, lost = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (expected[i] == found[i]) continue;
    if (isLost(i) && expected[i] == encode(0.0f)) {
      ++lost;
      continue;
    }
    const float quotient = quotientAt(i);
    const int ulps = ulpsToCode(quotient, expected[i], limit, encode);
    char text[160];
    std::snprintf(text, sizeof text, "%s[%zu]: the file holds %d, ours %d; quotient %.9g (%a)", what, i,
                  int(expected[i]), int(found[i]), static_cast<double>(quotient), static_cast<double>(quotient));
    if (ulps >= 0) {
      report.note(std::string(text) + ", " + std::to_string(ulps) + " ulp from the threshold", 1);
    } else if (++wrong <= 3) {
      report.fail(std::string(text) + ", no tie");
    }
  }
  if (wrong > 3) report.fail(std::string(what) + ": and " + std::to_string(wrong - 3) + " more codes");
  if (lost > 0) {
    report.note(std::string(what) + ": " + std::to_string(lost) + " codes in blocks beyond 2^126 are lost in the file",
                0);
  }
}
template <typename Code, typename QuotientAt, typename Encode>
void compareCodes(CaseReport& report, const char* what, const std::vector<Code>& expected,
                  const std::vector<Code>& found, int limit, QuotientAt&& quotientAt, Encode&& encode) {
  compareCodes(report, what, expected, found, limit, quotientAt, encode, [](std::size_t) { return false; });
}

}  // namespace golden
}  // namespace EigenQ

#endif  // EIGENQ_TEST_GOLDEN_RUNNER_CASE_H
