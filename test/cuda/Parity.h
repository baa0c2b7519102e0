// SPDX-License-Identifier: MPL-2.0
// A function of the host and its twin on the device: operands for both, and comparisons that say what differs.
#ifndef EIGENQ_TEST_CUDA_PARITY_H
#define EIGENQ_TEST_CUDA_PARITY_H

#include <cmath>
#include <limits>
#include <string>

#include <eigen_q/Cuda>

#include "Device.h"
#include "support/Bounds.h"

namespace EigenQ {
namespace test {

template <typename Scalar>
using ColMatrix = Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic>;

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();

template <typename Scalar>
const char* nameOf() {
  return std::is_same<Scalar, float>::value ? "float" : std::is_same<Scalar, Eigen::half>::value ? "half" : "bfloat16";
}

inline std::string shapeOf(Index rows, Index cols) { return std::to_string(rows) + "x" + std::to_string(cols); }

/** A matrix on the host, and in device memory in one of three layouts: column-major, row-major, a window of more. */
template <typename Scalar>
class Mirrored {
 public:
  static constexpr int kLayouts = 3;

  Mirrored(const ColMatrix<Scalar>& x, int layout) : m_host(x), m_layout(layout % kLayouts) {
    if (m_layout == 1) {
      m_rowMajor = gpu::DeviceMatrix<Scalar, Eigen::RowMajor>::fromHost(RowMajorMatrix<Scalar>(x));
      return;
    }
    const Index gap = m_layout == 2 ? 3 : 0;
    ColMatrix<Scalar> frame = ColMatrix<Scalar>::Constant(x.rows() + gap, x.cols() + gap, Scalar(1e4f));
    frame.block(gap, gap, x.rows(), x.cols()) = x;
    m_colMajor = gpu::DeviceMatrix<Scalar>::fromHost(frame);
  }
  const ColMatrix<Scalar>& host() const { return m_host; }
  gpu::DeviceView<const Scalar> device() const {
    const gpu::DeviceMatrix<Scalar, Eigen::RowMajor>& rowMajor = m_rowMajor;
    const gpu::DeviceMatrix<Scalar>& colMajor = m_colMajor;
    if (m_layout == 1) return rowMajor.view();
    return colMajor.view().window(colMajor.rows() - m_host.rows(), colMajor.cols() - m_host.cols(), m_host.rows(),
                                  m_host.cols());
  }
  std::string layout() const { return m_layout == 0 ? "column-major" : m_layout == 1 ? "row-major" : "a window"; }

 private:
  ColMatrix<Scalar> m_host;
  int m_layout;
  gpu::DeviceMatrix<Scalar> m_colMajor;
  gpu::DeviceMatrix<Scalar, Eigen::RowMajor> m_rowMajor;
};

/** The first entry that \a wrong finds fault with, and how many there are; empty where there is none. */
template <typename A, typename B, typename Wrong>
std::string firstDifference(const A& found, const B& expected, const Wrong& wrong) {
  if (found.rows() != expected.rows() || found.cols() != expected.cols())
    return "found " + shapeOf(found.rows(), found.cols()) + ", expected " + shapeOf(expected.rows(), expected.cols());
  Index count = 0;
  std::string first;
  for (Index i = 0; i < found.rows(); ++i) {
    for (Index j = 0; j < found.cols(); ++j) {
      const double f = static_cast<double>(found(i, j)), e = static_cast<double>(expected(i, j));
      if (!wrong(f, e, i, j) || count++ > 0) continue;
      char values[80];
      std::snprintf(values, sizeof values, ": found %.17g, expected %.17g", f, e);
      first = "(" + std::to_string(i) + ", " + std::to_string(j) + ")" + values;
    }
  }
  return count == 0 ? "" : std::to_string(count) + " entries differ, the first at " + first;
}

/** To the last bit, but for what kind of NaN. */
template <typename A, typename B>
void expectSame(const std::string& what, const A& found, const B& expected) {
  const std::string difference = firstDifference(found, expected, [](double f, double e, Index, Index) {
    return !(f == e && std::signbit(f) == std::signbit(e)) && !(std::isnan(f) && std::isnan(e));
  });
  BOOST_TEST(difference.empty(), what << ": " << difference);
}

/** |found - expected| ≤ bound(i, j); what is not finite is the same. */
template <typename A, typename B>
void expectWithin(const std::string& what, const A& found, const B& expected, const Eigen::ArrayXXd& bound) {
  const std::string difference = firstDifference(found, expected, [&](double f, double e, Index i, Index j) {
    if (!std::isfinite(e)) return !(f == e) && !(std::isnan(f) && std::isnan(e));
    return !(std::abs(f - e) <= bound(i, j));
  });
  BOOST_TEST(difference.empty(), what << ": " << difference);
}

/** Two roundings of one value to Scalar, one on either side, and \a slack before them. */
template <typename Scalar, typename B>
Eigen::ArrayXXd twoRoundings(const B& expected, const Eigen::ArrayXXd& slack) {
  const Eigen::ArrayXXd size = expected.template cast<double>().array().abs();
  return 2 * unitRoundoff<Scalar>() * (size + slack) + slack + 2 * smallestError<Scalar>();
}

}  // namespace test
}  // namespace EigenQ

#endif  // EIGENQ_TEST_CUDA_PARITY_H
