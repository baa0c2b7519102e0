// SPDX-License-Identifier: MPL-2.0
// Products of float matrices on their way to the library's kernels, which choose their instruction set when the program
// runs. Eigen's own take that of the compiler's flags, on most systems SSE2.
#ifndef EIGENQ_AD_HOST_PRODUCT_H
#define EIGENQ_AD_HOST_PRODUCT_H

#include <type_traits>

#include <Eigen/Core>

#include <eigen_q/src/EigenViews.h>
#include <eigen_q/src/FloatKernels.h>

namespace EigenQ {
namespace ad {
namespace internal {

template <typename Xpr>
constexpr bool kIsFloatInMemory =
    std::is_same_v<typename Xpr::Scalar, float>&& EigenQ::internal::hasDirectAccess<Xpr>();

/** Whether an expression is A·B or s·(A·B) of float matrices in memory; and its parts. */
template <typename Xpr>
struct FloatProductOf {
  static constexpr bool value = false;
};
template <typename Lhs, typename Rhs>
struct FloatProductOf<Eigen::Product<Lhs, Rhs, Eigen::DefaultProduct>> {
  static constexpr bool value = kIsFloatInMemory<Lhs> && kIsFloatInMemory<Rhs>;
  using Xpr = Eigen::Product<Lhs, Rhs, Eigen::DefaultProduct>;
  static const Xpr& product(const Xpr& xpr) { return xpr; }
  static float factor(const Xpr&) { return 1; }
};
template <typename Constant, typename Plain, typename Lhs, typename Rhs>
struct FloatProductOf<
    Eigen::CwiseBinaryOp<Eigen::internal::scalar_product_op<float, float>, const Eigen::CwiseNullaryOp<Constant, Plain>,
                         const Eigen::Product<Lhs, Rhs, Eigen::DefaultProduct>>> {
  using Product = Eigen::Product<Lhs, Rhs, Eigen::DefaultProduct>;
  using Factor = Eigen::CwiseNullaryOp<Constant, Plain>;
  using Xpr = Eigen::CwiseBinaryOp<Eigen::internal::scalar_product_op<float, float>, const Factor, const Product>;
  static constexpr bool value =
      FloatProductOf<Product>::value && std::is_same_v<Constant, Eigen::internal::scalar_constant_op<float>>;
  static const Product& product(const Xpr& xpr) { return xpr.rhs(); }
  static float factor(const Xpr& xpr) { return xpr.lhs().functor().m_other; }
};

/** y = or += factor·a·b, a in float, half or bfloat16, b in float; none of y is a's or b's. */
inline void multiplyFloats(Eigen::Map<Eigen::MatrixXf> y, const EigenQ::internal::ConstDenseView& a,
                           const EigenQ::internal::ConstDenseView& b, float factor, bool accumulate) {
  // Of the transposed: rows of y are contiguous there.
  EigenQ::internal::floatKernels().multiply(
      {b.transpose(), a.transpose(), EigenQ::internal::mutableViewOf(y).transpose(), factor, accumulate});
}

}  // namespace internal
}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_AD_HOST_PRODUCT_H
