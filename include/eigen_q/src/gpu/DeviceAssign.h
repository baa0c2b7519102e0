// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_GPU_DEVICEASSIGN_H
#define EIGENQ_GPU_DEVICEASSIGN_H

#include <memory>
#include <stdexcept>
#include <type_traits>

#include "DeviceOperators.h"

namespace EigenQ {
namespace gpu {
namespace internal {

/** The terms of \a xpr as a destination of this scalar takes them. */
template <typename Scalar, typename Xpr>
auto termsFor(const Xpr& xpr) {
  if constexpr (IsDeviceQuantized<Xpr>::value) {
    return DeviceSum<Scalar, 1>({dequantizeTerm(xpr.operand())});
  } else {
    static_assert(IsArithmetic<Xpr>::value, "EIGENQ_NO_KERNEL_COVERS_THIS_ON_THE_DEVICE__SPLIT_IT_OR_USE_toHost");
    static_assert(std::is_same<typename Xpr::Scalar, Scalar>::value,
                  "EIGENQ_SOURCE_AND_DESTINATION_ON_THE_DEVICE_HAVE_DIFFERENT_SCALAR_TYPES__USE_cast");
    return std::decay_t<decltype(asSum(xpr))>(asSum(xpr));
  }
}

template <typename Scalar, int kCount>
void assignTerms(const DeviceView<Scalar>& y, const DeviceSum<Scalar, kCount>& sum, Store store, Context& context,
                 bool noalias) {
  eigen_assert(y.rows() == sum.rows() && y.cols() == sum.cols() && "device assignment: shapes differ");
  const Term* const terms = sum.terms().data();
  const bool overlaps = needsTemporary(terms, kCount, y.mutableDense(), store);
  eigen_assert(!(noalias && overlaps) && "noalias(): an operand overlaps the destination");
  if (noalias || !overlaps) return evaluate(terms, kCount, y.mutableDense(), y.memory(), store, context);
  MemoryBlock block(static_cast<std::size_t>(y.size()) * sizeof(Scalar), context);
  const DeviceView<Scalar> value(static_cast<Scalar*>(block.data()), y.rows(), y.cols(), 1, y.rows(), &block);
  evaluate(terms, kCount, value.mutableDense(), &block, Store::kSet, context);
  const Term copy = denseTerm(value);
  evaluate(&copy, 1, y.mutableDense(), y.memory(), store, context);
}

template <typename Scalar, int Options, typename Xpr>
void assign(DeviceMatrix<Scalar, Options>& y, const Xpr& xpr, Store store, Context& context, bool noalias) {
  const auto sum = termsFor<Scalar>(xpr);
  const MemoryBlock* const memory = y.view().memory();
  const bool elsewhere = memory && memory->device() != context.device();
  if (store == Store::kSet && (y.rows() != sum.rows() || y.cols() != sum.cols() || elsewhere)) {
    // Fresh memory: the old one may hold an operand, and stays as it is where memory runs out.
    DeviceMatrix<Scalar, Options> value(sum.rows(), sum.cols(), context);
    assignTerms(value.view(), sum, store, context, /*noalias=*/true);
    return y.swap(value);
  }
  assignTerms(y.view(), sum, store, context, noalias);
}

template <typename Scalar, typename Xpr>
void assign(DeviceView<Scalar>& y, const Xpr& xpr, Store store, Context& context, bool noalias) {
  static_assert(!std::is_const<Scalar>::value, "EIGENQ_THIS_DEVICE_VIEW_CANNOT_BE_WRITTEN_TO");
  assignTerms(y, termsFor<Scalar>(xpr), store, context, noalias);
}

/** The left side of y.noalias() = … and y.device(context) = …. */
template <typename Dst>
class Destination {
 public:
  Destination(const Dst& dst, Context* context, bool noalias)
      : m_dst(const_cast<Dst&>(dst)), m_context(context), m_noalias(noalias) {}
  Destination(const Destination&) = default;

  Destination noalias() const { return {m_dst, m_context, true}; }
  Destination device(Context& context) const { return {m_dst, &context, m_noalias}; }

  template <typename Xpr>
  void operator=(const Xpr& xpr) {
    store(xpr, Store::kSet);
  }
  template <typename Xpr>
  void operator+=(const Xpr& xpr) {
    store(xpr, Store::kAdd);
  }
  template <typename Xpr>
  void operator-=(const Xpr& xpr) {
    store(xpr, Store::kSubtract);
  }

 private:
  template <typename Xpr>
  void store(const Xpr& xpr, Store how) {
    assign(m_dst, xpr, how, m_context ? *m_context : Context::current(), m_noalias);
  }

  Dst& m_dst;
  Context* m_context;
  bool m_noalias;
};

}  // namespace internal

template <typename Scalar>
DeviceView<Scalar>& DeviceView<Scalar>::operator=(const DeviceView& other) {
  internal::assign(*this, other, internal::Store::kSet, Context::current(), /*noalias=*/false);
  return *this;
}
template <typename Scalar>
template <typename Xpr>
DeviceView<Scalar>& DeviceView<Scalar>::operator=(const Xpr& xpr) {
  internal::assign(*this, xpr, internal::Store::kSet, Context::current(), /*noalias=*/false);
  return *this;
}
template <typename Scalar>
template <typename Xpr>
DeviceView<Scalar>& DeviceView<Scalar>::operator+=(const Xpr& xpr) {
  internal::assign(*this, xpr, internal::Store::kAdd, Context::current(), /*noalias=*/false);
  return *this;
}
template <typename Scalar>
template <typename Xpr>
DeviceView<Scalar>& DeviceView<Scalar>::operator-=(const Xpr& xpr) {
  internal::assign(*this, xpr, internal::Store::kSubtract, Context::current(), /*noalias=*/false);
  return *this;
}
template <typename Scalar>
internal::Destination<DeviceView<Scalar>> DeviceView<Scalar>::noalias() {
  return {*this, nullptr, true};
}
template <typename Scalar>
internal::Destination<DeviceView<Scalar>> DeviceView<Scalar>::device(Context& context) {
  return {*this, &context, false};
}

template <typename Scalar>
void DeviceView<Scalar>::setZero(Context& context) {
  static_assert(!std::is_const<Scalar>::value, "EIGENQ_THIS_DEVICE_VIEW_CANNOT_BE_WRITTEN_TO");
  if (m_rows == 0 || m_cols == 0) return;
  if (m_block) m_block->beginWrite(context);
  internal::setZero(mutableDense(), context);
}

namespace internal {
/** Uploads \a x in a storage order; copies on the host only where it does not lie that way. */
template <int kOrder, typename Derived, typename Scalar>
void uploadAs(const Eigen::DenseBase<Derived>& x, Scalar* device, Context& context) {
  using Plain = Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, kOrder>;
  const Eigen::Ref<const Plain, 0, Eigen::OuterStride<>> host(x.derived().matrix());
  const std::size_t bytes = static_cast<std::size_t>(host.size()) * sizeof(Scalar);
  if (host.outerStride() == host.innerSize()) return upload(device, host.data(), bytes, context);
  const Plain compact = host;
  upload(device, compact.data(), bytes, context);
}
}  // namespace internal

template <typename Scalar>
template <typename Derived>
void DeviceView<Scalar>::copyFromHost(const Eigen::DenseBase<Derived>& x, Context& context) const {
  static_assert(!std::is_const<Scalar>::value, "EIGENQ_THIS_DEVICE_VIEW_CANNOT_BE_WRITTEN_TO");
  eigen_assert(x.rows() == m_rows && x.cols() == m_cols && "copyFromHost: shapes differ");
  if (m_rows == 0 || m_cols == 0) return;
  if (m_rowStride == 1 && m_colStride == m_rows) {
    if (m_block) m_block->beginWrite(context);
    internal::uploadAs<Eigen::ColMajor>(x, m_data, context);
  } else if (m_colStride == 1 && m_rowStride == m_cols) {
    if (m_block) m_block->beginWrite(context);
    internal::uploadAs<Eigen::RowMajor>(x, m_data, context);
  } else if constexpr (!std::is_integral<Scalar>::value) {
    DeviceView y = *this;
    y.device(context) = DeviceMatrix<Scalar>::fromHost(x, context);
  } else {
    throw std::invalid_argument("copyFromHost: expected a contiguous view, for there are no kernels for integers");
  }
}

}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_GPU_DEVICEASSIGN_H
