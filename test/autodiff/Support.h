// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_TEST_AUTODIFF_SUPPORT_H
#define EIGENQ_TEST_AUTODIFF_SUPPORT_H

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <utility>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <unsupported/eigen_q/Autodiff>

namespace EigenQ {
namespace test {

using Vars = std::vector<ad::Var<double>>;

/** Entries in [-1, 1), a function of the seed alone. */
template <typename Scalar = double>
Eigen::MatrixX<Scalar> randomMatrix(Eigen::Index rows, Eigen::Index cols, std::uint64_t seed) {
  const ad::RandomStream random{seed, 0};
  Eigen::MatrixX<Scalar> m(rows, cols);
  for (Eigen::Index i = 0; i < m.size(); ++i)
    m.data()[i] = static_cast<Scalar>(random(static_cast<std::uint64_t>(i))[0]) / Scalar(2147483648.0) - Scalar(1);
  return m;
}

inline Eigen::VectorXi integers(std::initializer_list<int> values) {
  Eigen::VectorXi v(static_cast<Eigen::Index>(values.size()));
  std::copy(values.begin(), values.end(), v.data());
  return v;
}

/** One random input per shape; the analytic gradient of fn agrees with central differences in every entry. Type-erased,
 * so that a file with thirty ops compiles gradCheck once. */
inline void expectGradient(const std::function<ad::Var<double>(ad::Tape<double>&, const Vars&)>& fn,
                           std::initializer_list<std::pair<Eigen::Index, Eigen::Index>> shapes) {
  std::vector<Eigen::MatrixXd> inputs;
  bool empty = true;
  for (const auto& shape : shapes) {
    inputs.push_back(randomMatrix(shape.first, shape.second, inputs.size() + 1));
    empty = empty && inputs.back().size() == 0;
  }
  const ad::GradCheckResult result = ad::gradCheck(fn, inputs);
  BOOST_TEST(static_cast<bool>(result), result);
  BOOST_TEST((result.error >= 0) != empty, "gradCheck compared nothing");
}

/** Entry by entry: |found - expected| ≤ tolerance·max(1, |expected|). */
template <typename A, typename B>
void expectClose(const Eigen::MatrixBase<A>& found, const Eigen::MatrixBase<B>& expected, double tolerance) {
  BOOST_TEST_REQUIRE(found.rows() == expected.rows());
  BOOST_TEST_REQUIRE(found.cols() == expected.cols());
  for (Eigen::Index j = 0; j < found.cols(); ++j)
    for (Eigen::Index i = 0; i < found.rows(); ++i) {
      const double a = static_cast<double>(found(i, j)), b = static_cast<double>(expected(i, j));
      if (!(std::abs(a - b) <= tolerance * std::max(1.0, std::abs(b))))
        BOOST_ERROR("entry (" << i << ", " << j << "): found " << a << ", expected " << b);
    }
}

/** Equal to the bit, also where NaN. */
template <typename Scalar>
bool sameBits(const Eigen::MatrixX<Scalar>& a, const Eigen::MatrixX<Scalar>& b) {
  return a.rows() == b.rows() && a.cols() == b.cols() &&
         std::equal(reinterpret_cast<const unsigned char*>(a.data()),
                    reinterpret_cast<const unsigned char*>(a.data() + a.size()),
                    reinterpret_cast<const unsigned char*>(b.data()));
}

}  // namespace test
}  // namespace EigenQ

#endif  // EIGENQ_TEST_AUTODIFF_SUPPORT_H
