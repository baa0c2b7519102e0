// SPDX-License-Identifier: MPL-2.0
// From operands to terms, and the operators that combine them.
#ifndef EIGENQ_GPU_DEVICEOPERATORS_H
#define EIGENQ_GPU_DEVICEOPERATORS_H

#include "DeviceExpression.h"
#include "DeviceQuantizedBase.h"

namespace EigenQ {

template <typename Derived>
class QuantizedBase;  // on the host: not to be mixed with what is here

namespace gpu {
namespace internal {

template <typename Derived>
Term denseTerm(const DeviceBase<Derived>& x) {
  const auto view = x.derived().view();
  Term t;
  t.a = {view.dense(), view.memory()};
  t.rows = view.rows();
  t.cols = view.cols();
  return t;
}

/** X·W, or W·X where \a weightOnLeft. */
template <typename Derived>
Term productTerm(const DeviceBase<Derived>& x, const WeightOperand& w, bool weightOnLeft) {
  Term t = denseTerm(x);
  t.core = Term::Core::kQuantizedProduct;
  t.w = w;
  t.weightOnLeft = weightOnLeft;
  eigen_assert((weightOnLeft ? w.cols() == x.rows() : x.cols() == w.rows()) &&
               "device product: inner dimensions differ");
  if (weightOnLeft) {
    t.rows = w.rows();
  } else {
    t.cols = w.cols();
  }
  return t;
}

template <typename Lhs, typename Rhs>
Term productTerm(const DeviceBase<Lhs>& a, const DeviceBase<Rhs>& b) {
  eigen_assert(a.cols() == b.rows() && "device product: inner dimensions differ");
  Term t = denseTerm(a);
  t.core = Term::Core::kDenseProduct;
  const auto view = b.derived().view();
  t.b = {view.dense(), view.memory()};
  t.cols = view.cols();
  return t;
}

inline Term dequantizeTerm(const WeightOperand& w) {
  Term t;
  t.core = Term::Core::kDequantized;
  t.w = w;
  t.rows = w.rows();
  t.cols = w.cols();
  return t;
}

template <typename Scalar>
using Simple = DeviceExpression<Scalar, DeviceStage::kProduct>;

// What may be assigned or added.
template <typename Derived>
DeviceSum<typename Derived::Scalar, 1> asSum(const DeviceBase<Derived>& x) {
  return DeviceSum<typename Derived::Scalar, 1>({denseTerm(x)});
}
template <typename Scalar, DeviceStage kStage>
DeviceSum<Scalar, 1> asSum(const DeviceExpression<Scalar, kStage>& x) {
  return DeviceSum<Scalar, 1>({x.term()});
}
template <typename Scalar, int kCount>
const DeviceSum<Scalar, kCount>& asSum(const DeviceSum<Scalar, kCount>& x) {
  return x;
}

template <typename T>
std::true_type isDeviceBase(const DeviceBase<T>*);
std::false_type isDeviceBase(const void*);

template <typename Xpr>
struct IsDense : decltype(isDeviceBase(static_cast<Xpr*>(nullptr))) {};
template <typename Xpr>
struct IsLazy : std::false_type {};
template <typename Scalar, DeviceStage kStage>
struct IsLazy<DeviceExpression<Scalar, kStage>> : std::true_type {};
template <typename Scalar, int kCount>
struct IsLazy<DeviceSum<Scalar, kCount>> : std::true_type {};
/** Dense device matrices and expressions of them. */
template <typename Xpr>
struct IsArithmetic : std::bool_constant<IsDense<Xpr>::value || IsLazy<Xpr>::value> {};
template <typename Xpr>
struct IsDeviceXpr : std::bool_constant<IsArithmetic<Xpr>::value || IsDeviceQuantized<Xpr>::value> {};

template <typename Scalar, int kLhs, int kRhs>
DeviceSum<Scalar, kLhs + kRhs> concatenate(const DeviceSum<Scalar, kLhs>& a, const DeviceSum<Scalar, kRhs>& b,
                                           float sign) {
  eigen_assert(a.rows() == b.rows() && a.cols() == b.cols() && "device sum: shapes differ");
  std::array<Term, kLhs + kRhs> terms;
  for (int i = 0; i < kLhs; ++i) terms[std::size_t(i)] = a.terms()[std::size_t(i)];
  for (int i = 0; i < kRhs; ++i) {
    terms[std::size_t(kLhs + i)] = b.terms()[std::size_t(i)];
    terms[std::size_t(kLhs + i)].epilogue.sign *= sign;
  }
  return DeviceSum<Scalar, kLhs + kRhs>(terms);
}

template <typename Lhs, typename Rhs>
auto combine(const Lhs& a, const Rhs& b, float sign) {
  static_assert(std::is_same<typename Lhs::Scalar, typename Rhs::Scalar>::value,
                "EIGENQ_THE_TERMS_OF_A_DEVICE_SUM_HAVE_DIFFERENT_SCALAR_TYPES__USE_cast");
  return concatenate(asSum(a), asSum(b), sign);
}

template <typename A, typename B>
using EnableSum = std::enable_if_t<IsArithmetic<A>::value && IsArithmetic<B>::value, int>;

}  // namespace internal

// ---- products

/** X·W and W·X for a device matrix X; see the host's operator for their value. Inner products of expressions need the
 * expression stored first. */
template <typename X, typename W>
internal::Simple<typename X::Scalar> operator*(const DeviceBase<X>& x, const DeviceQuantizedBase<W>& w) {
  return internal::Simple<typename X::Scalar>(internal::productTerm(x, w.derived().operand(), false));
}
template <typename W, typename X>
internal::Simple<typename X::Scalar> operator*(const DeviceQuantizedBase<W>& w, const DeviceBase<X>& x) {
  return internal::Simple<typename X::Scalar>(internal::productTerm(x, w.derived().operand(), true));
}
/** A·B, summed in float (cuBLASLt). */
template <typename Lhs, typename Rhs>
internal::Simple<typename Lhs::Scalar> operator*(const DeviceBase<Lhs>& a, const DeviceBase<Rhs>& b) {
  static_assert(std::is_same<typename Lhs::Scalar, typename Rhs::Scalar>::value,
                "EIGENQ_THE_FACTORS_OF_A_DEVICE_PRODUCT_HAVE_DIFFERENT_SCALAR_TYPES__USE_cast");
  return internal::Simple<typename Lhs::Scalar>(internal::productTerm(a, b));
}

template <typename X>
internal::Simple<typename X::Scalar> operator*(float factor, const DeviceBase<X>& x) {
  return factor * internal::Simple<typename X::Scalar>(internal::denseTerm(x));
}
template <typename X>
internal::Simple<typename X::Scalar> operator*(const DeviceBase<X>& x, float factor) {
  return factor * x;
}
template <typename X>
internal::Simple<typename X::Scalar> operator/(const DeviceBase<X>& x, float divisor) {
  return (1.0f / divisor) * x;
}
template <typename X>
internal::Simple<typename X::Scalar> operator-(const DeviceBase<X>& x) {
  return -1.0f * x;
}

// ---- sums and activations

template <typename A, typename B, internal::EnableSum<A, B> = 0>
auto operator+(const A& a, const B& b) {
  return internal::combine(a, b, 1.0f);
}
template <typename A, typename B, internal::EnableSum<A, B> = 0>
auto operator-(const A& a, const B& b) {
  return internal::combine(a, b, -1.0f);
}

#define EIGENQ_DEVICE_ACTIVATION(name, kActivation)                                  \
  template <typename Scalar, internal::DeviceStage kStage>                           \
  auto name(const DeviceExpression<Scalar, kStage>& x) {                             \
    return x.activated(kActivation);                                                 \
  }                                                                                  \
  template <typename Derived>                                                        \
  auto name(const DeviceBase<Derived>& x) {                                          \
    return name(internal::Simple<typename Derived::Scalar>(internal::denseTerm(x))); \
  }
/** As the host's functions of these names. */
EIGENQ_DEVICE_ACTIVATION(relu, Activation::kRelu)
EIGENQ_DEVICE_ACTIVATION(gelu, Activation::kGelu)
EIGENQ_DEVICE_ACTIVATION(silu, Activation::kSilu)
EIGENQ_DEVICE_ACTIVATION(tanh, Activation::kTanh)
#undef EIGENQ_DEVICE_ACTIVATION

template <typename Derived>
auto DeviceBase<Derived>::rowwise() const {
  return internal::Simple<Scalar>(internal::denseTerm(*this)).rowwise();
}
template <typename Derived>
auto DeviceBase<Derived>::colwise() const {
  return internal::Simple<Scalar>(internal::denseTerm(*this)).colwise();
}
template <typename Derived>
template <typename NewScalar>
auto DeviceBase<Derived>::cast() const {
  return internal::Simple<NewScalar>(internal::denseTerm(*this));
}
template <typename Derived>
auto DeviceBase<Derived>::cwiseMax(float c) const {
  return internal::Simple<Scalar>(internal::denseTerm(*this)).cwiseMax(c);
}
template <typename Derived>
auto DeviceBase<Derived>::cwiseMin(float c) const {
  return internal::Simple<Scalar>(internal::denseTerm(*this)).cwiseMin(c);
}
template <typename Derived>
template <typename Scalar>
auto DeviceQuantizedBase<Derived>::cast() const {
  return internal::Simple<Scalar>(internal::dequantizeTerm(derived().operand()));
}

// ---- what must not mix

// The return type is deduced, so that the assertion is the first and only error.
#define EIGENQ_REFUSE_MIXED(op, Lhs, Rhs, message) \
  template <typename A, typename B>                \
  auto operator op(const Lhs& a, const Rhs& b) {   \
    static_assert(sizeof(A) == 0, message);        \
    (void)b;                                       \
    return a.derived();                            \
  }
EIGENQ_REFUSE_MIXED(*, Eigen::MatrixBase<A>, DeviceQuantizedBase<B>,
                    "YOU_MIXED_A_HOST_MATRIX_WITH_DEVICE_WEIGHTS__UPLOAD_IT_WITH_DeviceMatrix_fromHost")
EIGENQ_REFUSE_MIXED(*, DeviceQuantizedBase<A>, Eigen::MatrixBase<B>,
                    "YOU_MIXED_A_HOST_MATRIX_WITH_DEVICE_WEIGHTS__UPLOAD_IT_WITH_DeviceMatrix_fromHost")
EIGENQ_REFUSE_MIXED(*, DeviceBase<A>, QuantizedBase<B>,
                    "YOU_MIXED_A_DEVICE_MATRIX_WITH_HOST_WEIGHTS__UPLOAD_THEM_ONCE_WITH_fromHost")
EIGENQ_REFUSE_MIXED(*, QuantizedBase<A>, DeviceBase<B>,
                    "YOU_MIXED_A_DEVICE_MATRIX_WITH_HOST_WEIGHTS__UPLOAD_THEM_ONCE_WITH_fromHost")
EIGENQ_REFUSE_MIXED(*, Eigen::MatrixBase<A>, DeviceBase<B>,
                    "YOU_MIXED_A_HOST_AND_A_DEVICE_MATRIX__UPLOAD_IT_WITH_DeviceMatrix_fromHost")
EIGENQ_REFUSE_MIXED(*, DeviceBase<A>, Eigen::MatrixBase<B>,
                    "YOU_MIXED_A_HOST_AND_A_DEVICE_MATRIX__UPLOAD_IT_WITH_DeviceMatrix_fromHost")
EIGENQ_REFUSE_MIXED(+, Eigen::MatrixBase<A>, DeviceBase<B>,
                    "YOU_MIXED_A_HOST_AND_A_DEVICE_MATRIX__UPLOAD_IT_WITH_DeviceMatrix_fromHost")
EIGENQ_REFUSE_MIXED(+, DeviceBase<A>, Eigen::MatrixBase<B>,
                    "YOU_MIXED_A_HOST_AND_A_DEVICE_MATRIX__UPLOAD_IT_WITH_DeviceMatrix_fromHost")
#undef EIGENQ_REFUSE_MIXED

}  // namespace gpu

// So that EigenQ::relu(…) takes host and device expressions alike.
using gpu::gelu;
using gpu::relu;
using gpu::silu;
using gpu::tanh;

}  // namespace EigenQ

#endif  // EIGENQ_GPU_DEVICEOPERATORS_H
