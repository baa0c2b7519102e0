// SPDX-License-Identifier: MPL-2.0
// Tolerances from rounding analysis, not from tuning. Higham, Accuracy and Stability of Numerical Algorithms,
// section 3.1.
#ifndef EIGENQ_TEST_SUPPORT_BOUNDS_H
#define EIGENQ_TEST_SUPPORT_BOUNDS_H

#include <Eigen/Core>

#include <type_traits>

namespace EigenQ {
namespace test {

/** Unit roundoff. */
template <typename Scalar>
constexpr double unitRoundoff() {
  return std::is_same<Scalar, double>::value            ? 0x1p-53
         : std::is_same<Scalar, float>::value           ? 0x1p-24
         : std::is_same<Scalar, Eigen::bfloat16>::value ? 0x1p-8
                                                        : 0x1p-11;
}

/** γ(n) = nu/(1-nu): |fl(Σ) - Σ| ≤ γ(n)·Σ|terms| for n roundings in float, in any order of summation. */
inline double gammaFloat(Eigen::Index n) {
  const double nu = static_cast<double>(n) * unitRoundoff<float>();
  return nu / (1 - nu);
}

/** One rounding to half can miss by half the smallest subnormal whatever the size of the value. */
template <typename Scalar>
constexpr double smallestError() {
  return std::is_same<Scalar, Eigen::half>::value ? 0x1p-25 : 0x1p-133;
}

}  // namespace test
}  // namespace EigenQ

#endif  // EIGENQ_TEST_SUPPORT_BOUNDS_H
