// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_GPU_DEVICEQUANTIZEDBASE_H
#define EIGENQ_GPU_DEVICEQUANTIZEDBASE_H

#include "DeviceExpression.h"

namespace EigenQ {
namespace gpu {

class DeviceQuantizedView;

/** What quantised device matrices offer: windows, transposes, scales, all read-only. Assigned to a dense device matrix
 * they are dequantised by one kernel. */
template <typename Derived_>
class DeviceQuantizedBase {
 public:
  using Derived = Derived_;
  const Derived& derived() const { return static_cast<const Derived&>(*this); }

  Index rows() const { return derived().operand().rows(); }
  Index cols() const { return derived().operand().cols(); }

  inline DeviceQuantizedView transpose() const;
  inline DeviceQuantizedView block(Index row, Index col, Index rows, Index cols) const;
  inline DeviceQuantizedView middleRows(Index row, Index count) const;
  inline DeviceQuantizedView middleCols(Index col, Index count) const;
  inline DeviceQuantizedView topRows(Index count) const;
  inline DeviceQuantizedView bottomRows(Index count) const;
  inline DeviceQuantizedView leftCols(Index count) const;
  inline DeviceQuantizedView rightCols(Index count) const;
  inline DeviceQuantizedView operator-() const;

  /** The dequantised values, rounded once, as a dense expression: D = W.cast<float>() + R. */
  template <typename Scalar>
  auto cast() const;
};

/** factor·op(window) of a quantised device matrix. Refers to it. */
class DeviceQuantizedView : public DeviceQuantizedBase<DeviceQuantizedView> {
 public:
  explicit DeviceQuantizedView(const internal::WeightOperand& operand) : m_operand(operand) {}
  const internal::WeightOperand& operand() const { return m_operand; }

 private:
  internal::WeightOperand m_operand;
};

template <typename Derived>
DeviceQuantizedView DeviceQuantizedBase<Derived>::transpose() const {
  internal::WeightOperand w = derived().operand();
  w.view = w.view.transpose();
  return DeviceQuantizedView(w);
}
template <typename Derived>
DeviceQuantizedView DeviceQuantizedBase<Derived>::block(Index row, Index col, Index rows, Index cols) const {
  internal::WeightOperand w = derived().operand();
  eigen_assert(row >= 0 && col >= 0 && rows >= 0 && cols >= 0 && row + rows <= w.rows() && col + cols <= w.cols());
  w.view = w.view.block(row, col, rows, cols);
  return DeviceQuantizedView(w);
}
template <typename Derived>
DeviceQuantizedView DeviceQuantizedBase<Derived>::middleRows(Index row, Index count) const {
  return block(row, 0, count, cols());
}
template <typename Derived>
DeviceQuantizedView DeviceQuantizedBase<Derived>::middleCols(Index col, Index count) const {
  return block(0, col, rows(), count);
}
template <typename Derived>
DeviceQuantizedView DeviceQuantizedBase<Derived>::topRows(Index count) const {
  return middleRows(0, count);
}
template <typename Derived>
DeviceQuantizedView DeviceQuantizedBase<Derived>::bottomRows(Index count) const {
  return middleRows(rows() - count, count);
}
template <typename Derived>
DeviceQuantizedView DeviceQuantizedBase<Derived>::leftCols(Index count) const {
  return middleCols(0, count);
}
template <typename Derived>
DeviceQuantizedView DeviceQuantizedBase<Derived>::rightCols(Index count) const {
  return middleCols(cols() - count, count);
}
template <typename Derived>
DeviceQuantizedView operator*(float factor, const DeviceQuantizedBase<Derived>& w) {
  internal::WeightOperand scaled = w.derived().operand();
  scaled.view = scaled.view.scaled(factor);
  return DeviceQuantizedView(scaled);
}
template <typename Derived>
DeviceQuantizedView operator*(const DeviceQuantizedBase<Derived>& w, float factor) {
  return factor * w;
}
template <typename Derived>
DeviceQuantizedView operator/(const DeviceQuantizedBase<Derived>& w, float divisor) {
  return (1.0f / divisor) * w;
}
template <typename Derived>
DeviceQuantizedView DeviceQuantizedBase<Derived>::operator-() const {
  return -1.0f * *this;
}

namespace internal {
template <typename T>
std::true_type isDeviceQuantizedBase(const DeviceQuantizedBase<T>*);
std::false_type isDeviceQuantizedBase(const void*);
template <typename Xpr>
struct IsDeviceQuantized : decltype(isDeviceQuantizedBase(static_cast<Xpr*>(nullptr))) {};
}  // namespace internal

}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_GPU_DEVICEQUANTIZEDBASE_H
