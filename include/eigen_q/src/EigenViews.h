// SPDX-License-Identifier: MPL-2.0
// From an Eigen expression to the Eigen-free view that kernels and quantisers take.
#ifndef EIGENQ_EIGENVIEWS_H
#define EIGENQ_EIGENVIEWS_H

#include <type_traits>

#include <Eigen/Core>

#include "Threads.h"
#include "Views.h"

namespace EigenQ {
namespace internal {

template <typename Scalar>
struct ScalarTypeOf {
  // sizeof makes the condition depend on Scalar, so that it fires only when this template is chosen.
  static_assert(sizeof(Scalar) == 0, "EigenQ: the scalar must be float, double, Eigen::half or Eigen::bfloat16");
};
template <>
struct ScalarTypeOf<float> : std::integral_constant<ScalarType, ScalarType::kFloat> {};
template <>
struct ScalarTypeOf<double> : std::integral_constant<ScalarType, ScalarType::kDouble> {};
template <>
struct ScalarTypeOf<Eigen::half> : std::integral_constant<ScalarType, ScalarType::kHalf> {};
template <>
struct ScalarTypeOf<Eigen::bfloat16> : std::integral_constant<ScalarType, ScalarType::kBFloat16> {};

static_assert(sizeof(Eigen::half) == 2 && sizeof(Eigen::bfloat16) == 2, "views hold 16-bit scalars as their bits");
static_assert(std::is_same<Index, Eigen::Index>::value, "Views.h spells Eigen's index type without Eigen");

template <typename Xpr>
constexpr bool hasDirectAccess() {
  return (int(Eigen::internal::traits<Xpr>::Flags) & int(Eigen::DirectAccessBit)) != 0;
}

/** The expression itself where its coefficients lie in memory, else a plain matrix to evaluate it into. */
template <typename Derived>
using DirectOrPlain =
    std::conditional_t<hasDirectAccess<Derived>(), const Derived&, const typename Derived::PlainObject>;

template <typename Void, typename Derived>
BasicDenseView<Void> makeView(const Derived& m, Void* data) {
  static_assert(hasDirectAccess<Derived>(), "EigenQ: a view needs coefficients in memory; evaluate the expression");
  const Index inner = m.innerStride(), outer = m.outerStride();
  return {data,     ScalarTypeOf<typename Derived::Scalar>::value, m.rows(),
          m.cols(), Derived::IsRowMajor ? outer : inner,           Derived::IsRowMajor ? inner : outer};
}

/** A view of \a m, which must have direct access (matrix, Map, Ref, Block, Transpose of these) and outlive it. */
template <typename Derived>
ConstDenseView viewOf(const Eigen::DenseBase<Derived>& m) {
  return makeView<const void>(m.derived(), m.derived().data());
}

/** Before a kernel runs: where Eigen has threads, it may use as many. */
inline void followEigensThreads() {
#if defined(EIGEN_HAS_OPENMP) || defined(EIGEN_GEMM_THREADPOOL)
  followThreads(Eigen::nbThreads());
#endif
}

/** As viewOf, for writing. Takes const, as Eigen's own writers do, so that temporary blocks bind. */
template <typename Derived>
DenseView mutableViewOf(const Eigen::DenseBase<Derived>& m) {
  static_assert((int(Eigen::internal::traits<Derived>::Flags) & int(Eigen::LvalueBit)) != 0,
                "EigenQ: this expression cannot be written to");
  followEigensThreads();  // what is written to is the one view that every kernel has
  Derived& writable = m.const_cast_derived();
  return makeView<void>(writable, writable.data());
}

}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_EIGENVIEWS_H
