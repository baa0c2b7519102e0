// SPDX-License-Identifier: MPL-2.0
// Operands of the tape's device ops and the comparison of their results with exact values within derived bounds.
#ifndef EIGENQ_TEST_CUDA_OPOPERANDS_H
#define EIGENQ_TEST_CUDA_OPOPERANDS_H

#include <boost/test/unit_test.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <eigen_q/src/ScalarConvert.h>
#include <eigen_q/src/gpu/OpKernels.h>

#include <src/lowering_log.h>

#include "Mirror.h"
#include "Upload.h"
#include "support/Bounds.h"

namespace EigenQ {
namespace test {

using internal::ConstDenseView;
using internal::DenseView;
using internal::nameOf;

constexpr ScalarType kDeviceScalars[] = {ScalarType::kFloat, ScalarType::kHalf, ScalarType::kBFloat16};
constexpr double kUnit = 0x1p-24;          // of float
constexpr double kUnderflow = 0x1p-120;    // more than what is lost where intermediate values underflow
constexpr double kExpError = 4 * kUnit;    // CUDA's expf is within 2 units in the last place
constexpr double kErfcError = 16 * kUnit;  // erfcf within 8, with margin

/** Unit roundoff of what is stored; float results are not rounded again. */
inline double unitOf(ScalarType scalar) {
  return scalar == ScalarType::kFloat  ? 0
         : scalar == ScalarType::kHalf ? unitRoundoff<Eigen::half>()
                                       : unitRoundoff<Eigen::bfloat16>();
}
/** What rounding to the scalar can miss by, whatever the size of the value. */
inline double underflowOf(ScalarType scalar) {
  return scalar == ScalarType::kHalf ? smallestError<Eigen::half>() : kUnderflow;
}

/** kPacked: no gaps, aligned. kGaps: 8 entries between columns, which keep the alignment there is. kOdd: one entry
 * between columns, misaligned by one. kMixed: operands differ. */
enum class Columns { kPacked, kGaps, kOdd, kMixed };
constexpr Columns kColumns[] = {Columns::kPacked, Columns::kGaps, Columns::kOdd, Columns::kMixed};
inline const char* nameOf(Columns columns) {
  constexpr const char* kNames[] = {"packed", "gaps", "odd", "mixed"};
  return kNames[static_cast<int>(columns)];
}

/** A column-major matrix on the host and on the device, Gaussian unless given. Views of an empty one have no data. */
class OpMatrix {
 public:
  OpMatrix(ScalarType scalar, const Eigen::MatrixXd& values, Columns columns = Columns::kPacked)
      : m_scalar(scalar),
        m_rows(values.rows()),
        m_cols(values.cols()),
        m_first(columns == Columns::kOdd ? 1 : 0),
        m_stride(m_rows + (columns == Columns::kPacked ? 0
                           : columns == Columns::kGaps ? 8
                                                       : 1)),
        m_bytes(static_cast<Index>(sizeOf(scalar))),
        m_host(static_cast<std::size_t>((m_first + m_stride * m_cols) * m_bytes), kGap),
        m_device(std::make_unique<DeviceArray<std::uint8_t>>(m_host.size())) {
    for (Index j = 0; j < m_cols; ++j)
      for (Index i = 0; i < m_rows; ++i) internal::writeScalar(m_host.data(), scalar, place(i, j), values(i, j));
    upload();
  }

  ScalarType scalar() const { return m_scalar; }
  Index rows() const { return m_rows; }
  Index cols() const { return m_cols; }
  /** As rounded to the scalar. */
  Eigen::MatrixXd values() const { return valuesOf(m_host); }
  ConstDenseView in() const {
    const DenseView v = out();
    return {v.data, v.scalar, v.rows, v.cols, v.rowStride, v.colStride};
  }
  DenseView out() const {
    void* const first = m_rows * m_cols > 0 ? m_device->data() + m_first * m_bytes : nullptr;
    return {first, m_scalar, m_rows, m_cols, 1, m_stride};
  }

  /** The host's values to the device. */
  void upload() { m_device->upload(m_host); }
  /** NaN in every entry on the device: what is not assigned shows. */
  void uploadNaN() {
    std::vector<std::uint8_t> bytes = m_host;
    for (Index j = 0; j < m_cols; ++j)
      std::memset(bytes.data() + place(0, j) * m_bytes, 0xff, static_cast<std::size_t>(m_rows * m_bytes));
    m_device->upload(bytes);
  }
  std::vector<std::uint8_t> download(gpu::Context& context) const { return m_device->toHost(context); }
  Eigen::MatrixXd valuesOf(const std::vector<std::uint8_t>& bytes) const {
    Eigen::MatrixXd m(m_rows, m_cols);
    for (Index j = 0; j < m_cols; ++j)
      for (Index i = 0; i < m_rows; ++i) m(i, j) = internal::readScalar(bytes.data(), m_scalar, place(i, j));
    return m;
  }
  /** Whether what lies between the columns is as it was. */
  bool keepsGaps(const std::vector<std::uint8_t>& bytes) const {
    std::vector<std::uint8_t> restored = bytes;
    for (Index j = 0; j < m_cols; ++j) {
      const auto from = static_cast<std::size_t>(place(0, j) * m_bytes);
      std::copy_n(m_host.begin() + static_cast<std::ptrdiff_t>(from), m_rows * m_bytes,
                  restored.begin() + static_cast<std::ptrdiff_t>(from));
    }
    return restored == m_host;
  }

 private:
  static constexpr std::uint8_t kGap = 0xff;  // NaN in all three scalars
  Index place(Index i, Index j) const { return m_first + i + j * m_stride; }

  ScalarType m_scalar;
  Index m_rows, m_cols, m_first, m_stride, m_bytes;
  std::vector<std::uint8_t> m_host;
  std::unique_ptr<DeviceArray<std::uint8_t>> m_device;
};

inline Eigen::MatrixXd gaussian(Index rows, Index cols, unsigned seed, double scale = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal(0, scale);
  return Eigen::MatrixXd::NullaryExpr(rows, cols, [&](Index, Index) { return normal(random); });
}

/** One way to lay out the operands of an op. */
struct Setting {
  ScalarType scalar;
  Columns columns;
  Index rows, cols;

  std::string name() const {
    return std::to_string(rows) + "x" + std::to_string(cols) + " " + nameOf(scalar) + ", " + nameOf(columns);
  }
  OpMatrix matrix(const Eigen::MatrixXd& values, unsigned number) const {
    return {scalar, values, columns == Columns::kMixed ? kColumns[number % 3] : columns};
  }
  OpMatrix random(unsigned number, double scale = 1) const {
    return matrix(gaussian(rows, cols, number, scale), number);
  }
};

template <typename F>
void forEachSetting(std::initializer_list<std::pair<Index, Index>> shapes, F f) {
  for (const auto& shape : shapes)
    for (const ScalarType scalar : kDeviceScalars)
      for (const Columns columns : kColumns) f(Setting{scalar, columns, shape.first, shape.second});
}

/** A result, what it should be, and how far float arithmetic may be from that before the result is stored. */
struct Outcome {
  const char* name;
  OpMatrix* result;
  Eigen::MatrixXd exact;
  Eigen::MatrixXd error;
};

inline void checkValues(const Eigen::MatrixXd& found, const Eigen::MatrixXd& exact, const Eigen::MatrixXd& error,
                        ScalarType scalar, const std::string& where) {
  BOOST_REQUIRE(exact.rows() == found.rows() && exact.cols() == found.cols());
  BOOST_REQUIRE(error.rows() == found.rows() && error.cols() == found.cols());
  Index wrong = 0;
  std::ostringstream first;
  for (Index j = 0; j < found.cols(); ++j)
    for (Index i = 0; i < found.rows(); ++i) {
      const double e = exact(i, j), f = found(i, j);
      const double bound = error(i, j) + unitOf(scalar) * (std::abs(e) + error(i, j)) + underflowOf(scalar);
      if (std::isnan(e) ? std::isnan(f) : std::abs(f - e) <= bound) continue;
      if (wrong++ == 0)
        first << "(" << i << ", " << j << ") is " << f << " for " << e << " ± " << bound << " (off by " << f - e << ")";
    }
  BOOST_TEST(wrong == 0, where << ": " << wrong << " of " << found.size() << " wrong; the first, " << first.str());
}

/** Runs an op twice from the same state, compares the bits of both runs, and then the results with what they should be.
 * \param run  run(accumulate) \param accumulates  whether to check both ways; a result assigned starts as NaN */
template <typename Run>
void checkOp(const std::string& name, const std::vector<Outcome>& outcomes, bool accumulates, gpu::Context& context,
             Run run) {
  for (int mode = 0; mode < (accumulates ? 2 : 1); ++mode) {
    const bool accumulate = mode == 1;
    std::vector<std::vector<std::uint8_t>> bytes[2];
    for (auto& ofRun : bytes) {
      for (const Outcome& o : outcomes) accumulate ? o.result->upload() : o.result->uploadNaN();
      run(accumulate);
      for (const Outcome& o : outcomes) ofRun.push_back(o.result->download(context));
    }
    for (std::size_t n = 0; n < outcomes.size(); ++n) {
      const Outcome& o = outcomes[n];
      const std::string where = name + ", " + o.name + (accumulate ? " added" : "");
      BOOST_TEST((bytes[0][n] == bytes[1][n]), where << ": two runs differ");
      BOOST_TEST(o.result->keepsGaps(bytes[0][n]), where << ": written between the columns");
      const Eigen::MatrixXd found = o.result->valuesOf(bytes[0][n]);
      if (!accumulate) {
        checkValues(found, o.exact, o.error, o.result->scalar(), where);
        continue;
      }
      const Eigen::MatrixXd sum = o.result->values() + o.exact;  // one rounding more
      checkValues(found, sum, o.error + kUnit * (sum.cwiseAbs() + o.error), o.result->scalar(), where);
    }
  }
}

}  // namespace test
}  // namespace EigenQ

#endif  // EIGENQ_TEST_CUDA_OPOPERANDS_H
