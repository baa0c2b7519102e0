// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_GPU_DEVICEVIEW_H
#define EIGENQ_GPU_DEVICEVIEW_H

#include <Eigen/Core>

#include "../EigenViews.h"
#include "DeviceMemory.h"

namespace EigenQ {
namespace gpu {

template <typename Scalar>
class DeviceView;
template <typename Scalar, int Options = Eigen::ColMajor>
class DeviceMatrix;

namespace internal {

using EigenQ::internal::ConstDenseView;
using EigenQ::internal::DenseView;
using EigenQ::internal::ScalarTypeOf;

template <typename Dst>
class Destination;

/** The scalar of a device matrix, never const. */
template <typename Derived>
struct DeviceTraits;
template <typename Scalar_>
struct DeviceTraits<DeviceView<Scalar_>> {
  using Scalar = std::remove_const_t<Scalar_>;
};
template <typename Scalar_, int Options>
struct DeviceTraits<DeviceMatrix<Scalar_, Options>> {
  using Scalar = Scalar_;
};

template <typename Derived>
class Broadcast;

}  // namespace internal

/** What device matrices and their windows share: shape, windows, transposes. Windows are writable where the matrix is,
 * share its memory and, like Eigen's, must not outlive it. There is no access to coefficients: they are elsewhere. */
template <typename Derived_>
class DeviceBase {
 public:
  using Derived = Derived_;
  using Scalar = typename internal::DeviceTraits<Derived>::Scalar;

  Derived& derived() { return static_cast<Derived&>(*this); }
  const Derived& derived() const { return static_cast<const Derived&>(*this); }

  Index rows() const { return derived().rows(); }
  Index cols() const { return derived().cols(); }
  Index size() const { return rows() * cols(); }

  auto transpose() { return derived().view().flipped(); }
  auto transpose() const { return derived().view().flipped(); }
  auto block(Index row, Index col, Index rows, Index cols) { return derived().view().window(row, col, rows, cols); }
  auto block(Index row, Index col, Index rows, Index cols) const {
    return derived().view().window(row, col, rows, cols);
  }
  auto middleRows(Index row, Index count) { return block(row, 0, count, cols()); }
  auto middleRows(Index row, Index count) const { return block(row, 0, count, cols()); }
  auto middleCols(Index col, Index count) { return block(0, col, rows(), count); }
  auto middleCols(Index col, Index count) const { return block(0, col, rows(), count); }
  auto topRows(Index count) { return middleRows(0, count); }
  auto topRows(Index count) const { return middleRows(0, count); }
  auto bottomRows(Index count) { return middleRows(rows() - count, count); }
  auto bottomRows(Index count) const { return middleRows(rows() - count, count); }
  auto leftCols(Index count) { return middleCols(0, count); }
  auto leftCols(Index count) const { return middleCols(0, count); }
  auto rightCols(Index count) { return middleCols(cols() - count, count); }
  auto rightCols(Index count) const { return middleCols(cols() - count, count); }
  auto row(Index i) { return middleRows(i, 1); }
  auto row(Index i) const { return middleRows(i, 1); }
  auto col(Index j) { return middleCols(j, 1); }
  auto col(Index j) const { return middleCols(j, 1); }

  /** As in Eigen, for X.rowwise() + b and X.colwise() + b. */
  auto rowwise() const;
  auto colwise() const;
  /** Each entry in another scalar type, rounded once. */
  template <typename NewScalar>
  auto cast() const;
  auto cwiseMax(float c) const;
  auto cwiseMin(float c) const;
};

/** A rows×cols matrix in device memory that somebody else owns, with any strides. Copying a view copies the pointer;
 * assigning to it writes the entries. \tparam Scalar_  float, Eigen::half, Eigen::bfloat16 (ids: int); const where
 * nothing may be written */
template <typename Scalar_>
class DeviceView : public DeviceBase<DeviceView<Scalar_>> {
 public:
  using Scalar = std::remove_const_t<Scalar_>;

  /** 0×0. */
  DeviceView() = default;
  /** \param data     device memory; strides count elements
   * \param block  what orders its use between streams; null: the caller does */
  DeviceView(Scalar_* data, Index rows, Index cols, Index rowStride, Index colStride,
             internal::MemoryBlock* block = nullptr)
      : m_data(data), m_rows(rows), m_cols(cols), m_rowStride(rowStride), m_colStride(colStride), m_block(block) {
    eigen_assert(rows >= 0 && cols >= 0 && (data || rows * cols == 0));
  }
  /** A contiguous column-major matrix. */
  DeviceView(Scalar_* data, Index rows, Index cols) : DeviceView(data, rows, cols, 1, rows) {}
  DeviceView(const DeviceView&) = default;
  /** Read-only from writable. */
  template <typename Other, std::enable_if_t<std::is_same<const Other, Scalar_>::value, int> = 0>
  DeviceView(const DeviceView<Other>& other)
      : DeviceView(other.data(), other.rows(), other.cols(), other.rowStride(), other.colStride(), other.memory()) {}
  template <typename Other, std::enable_if_t<std::is_same<const typename Other::Scalar, Scalar_>::value, int> = 0>
  DeviceView(const DeviceBase<Other>& other) : DeviceView(other.derived().view()) {}

  Scalar_* data() const { return m_data; }
  Index rows() const { return m_rows; }
  Index cols() const { return m_cols; }
  Index rowStride() const { return m_rowStride; }
  Index colStride() const { return m_colStride; }
  internal::MemoryBlock* memory() const { return m_block; }

  DeviceView view() const { return *this; }
  DeviceView flipped() const { return {m_data, m_cols, m_rows, m_colStride, m_rowStride, m_block}; }
  DeviceView window(Index row, Index col, Index rows, Index cols) const {
    eigen_assert(row >= 0 && col >= 0 && rows >= 0 && cols >= 0 && row + rows <= m_rows && col + cols <= m_cols &&
                 "DeviceView: the window leaves the matrix");
    return {rows * cols == 0 ? m_data : m_data + row * m_rowStride + col * m_colStride,
            rows,
            cols,
            m_rowStride,
            m_colStride,
            m_block};
  }

  /** For kernels. */
  internal::ConstDenseView dense() const {
    return {m_data, internal::ScalarTypeOf<Scalar>::value, m_rows, m_cols, m_rowStride, m_colStride};
  }
  internal::DenseView mutableDense() const {
    static_assert(!std::is_const<Scalar_>::value, "EigenQ::gpu: this view cannot be written to");
    return {m_data, internal::ScalarTypeOf<Scalar>::value, m_rows, m_cols, m_rowStride, m_colStride};
  }

  DeviceView& operator=(const DeviceView& other);
  template <typename Xpr>
  DeviceView& operator=(const Xpr& xpr);
  template <typename Xpr>
  DeviceView& operator+=(const Xpr& xpr);
  template <typename Xpr>
  DeviceView& operator-=(const Xpr& xpr);
  /** y.noalias() = …: the caller promises that no operand overlaps y. y.device(context) = …: on that context. */
  internal::Destination<DeviceView> noalias();
  internal::Destination<DeviceView> device(Context& context);

  /** Zero in every entry, +0. */
  void setZero(Context& context = Context::current());
  /** A copy on the host, when the stream gets there: waits for it. */
  auto toHost(Context& context = Context::current()) const;
  /** Overwrites the entries with those of a host expression of this shape. */
  template <typename Derived>
  void copyFromHost(const Eigen::DenseBase<Derived>& x, Context& context = Context::current()) const;

 private:
  Scalar_* m_data = nullptr;
  Index m_rows = 0;
  Index m_cols = 0;
  Index m_rowStride = 1;
  Index m_colStride = 0;
  internal::MemoryBlock* m_block = nullptr;
};

}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_GPU_DEVICEVIEW_H
