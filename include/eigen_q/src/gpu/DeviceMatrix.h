// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_GPU_DEVICEMATRIX_H
#define EIGENQ_GPU_DEVICEMATRIX_H

#include <utility>

#include "DeviceAssign.h"
#include "DeviceOperators.h"

namespace EigenQ {
namespace gpu {

template <typename Scalar, int Options>
class HostTransfer;

/** A rows×cols matrix in device memory. Moved cheaply; y = x and clone() copy, nothing else does.
 *
 * Assignments of products, sums and activations run kernels on the stream of a context, Context::current() or that of
 * y.device(context) = …, and return before they have run. Matrices may be used from several contexts: each waits for
 * the work of others that it depends on. There are no coefficients to read; toHost() copies and waits.
 * \tparam Scalar_  float, Eigen::half or Eigen::bfloat16; others without arithmetic, such as ids and codes
 * \tparam Options  Eigen::ColMajor or Eigen::RowMajor */
template <typename Scalar_, int Options>
class DeviceMatrix : public DeviceBase<DeviceMatrix<Scalar_, Options>> {
 public:
  using Scalar = Scalar_;
  using PlainMatrix = Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, Options>;

  /** 0×0. */
  DeviceMatrix() = default;
  /** Uninitialised. Throws CudaOutOfMemory. */
  DeviceMatrix(Index rows, Index cols, Context& context = Context::current()) { resize(rows, cols, context); }
  /** Evaluates a device expression. */
  template <typename Xpr, std::enable_if_t<internal::IsDeviceXpr<Xpr>::value, int> = 0>
  DeviceMatrix(const Xpr& xpr) {
    *this = xpr;
  }
  DeviceMatrix(const DeviceMatrix&) = delete;  // passing by value would copy unseen
  DeviceMatrix& operator=(const DeviceMatrix& other) {
    internal::assign(*this, other, internal::Store::kSet, Context::current(), /*noalias=*/false);
    return *this;
  }
  DeviceMatrix(DeviceMatrix&& other) noexcept { swap(other); }
  DeviceMatrix& operator=(DeviceMatrix&& other) noexcept {
    swap(other);
    return *this;
  }

  /** A copy of any host expression, by way of pinned staging memory. The host memory is free when this returns. */
  template <typename Derived>
  static DeviceMatrix fromHost(const Eigen::DenseBase<Derived>& x, Context& context = Context::current()) {
    static_assert(std::is_same<typename Derived::Scalar, Scalar>::value,
                  "EIGENQ_fromHost_COPIES_ONE_SCALAR_TYPE__CAST_ON_THE_HOST_OR_WITH_cast_ON_THE_DEVICE");
    DeviceMatrix d(x.rows(), x.cols(), context);
    if (d.size() > 0) internal::uploadAs<Options>(x, d.data(), context);
    return d;
  }
  /** Queues a copy from \a host, contiguous in this storage order, which stays alive and unchanged until the stream has
   * passed it; asynchronous where the memory is pinned. May be captured in a graph. */
  static DeviceMatrix fromHostAsync(const Scalar* host, Index rows, Index cols, Context& context = Context::current()) {
    DeviceMatrix d(rows, cols, context);
    internal::copyAsync(d.data(), host, d.bytes(), context);
    return d;
  }
  /** A copy on the host. Waits for the stream. */
  PlainMatrix toHost(Context& context = Context::current()) const {
    PlainMatrix host(rows(), cols());
    beginRead(context);
    internal::download(host.data(), data(), bytes(), context);
    return host;
  }
  /** Starts a copy to pinned memory; get() waits for it. Throws std::logic_error inside a graph capture, whose replays
   * would write to memory that is gone by then. */
  HostTransfer<Scalar, Options> toHostAsync(Context& context = Context::current()) const;
  /** A copy in the memory of the context's device, be it this matrix's own or another. */
  DeviceMatrix clone(Context& context = Context::current()) const {
    DeviceMatrix d(rows(), cols(), context);
    if (m_block) m_block->copyTo(d.data(), bytes(), context);
    return d;
  }

  Index rows() const { return m_rows; }
  Index cols() const { return m_cols; }
  Scalar* data() { return m_block ? static_cast<Scalar*>(m_block->data()) : nullptr; }
  const Scalar* data() const { return m_block ? static_cast<const Scalar*>(m_block->data()) : nullptr; }

  /** Entries become undefined. Keeps the memory where it suffices. Throws CudaOutOfMemory and leaves all as it was. */
  void resize(Index rows, Index cols, Context& context = Context::current()) {
    eigen_assert(rows >= 0 && cols >= 0);
    const std::size_t needed = bytesOf(rows, cols);
    if (needed > 0 && (!m_block || m_block->bytes() < needed || m_block->device() != context.device()))
      m_block = std::make_unique<internal::MemoryBlock>(needed, context);
    m_rows = rows;
    m_cols = cols;
  }

  DeviceView<Scalar> view() { return makeView(data()); }
  DeviceView<const Scalar> view() const { return makeView(data()); }

  template <typename Xpr, std::enable_if_t<internal::IsDeviceXpr<Xpr>::value, int> = 0>
  DeviceMatrix& operator=(const Xpr& xpr) {
    internal::assign(*this, xpr, internal::Store::kSet, Context::current(), /*noalias=*/false);
    return *this;
  }
  template <typename Xpr>
  DeviceMatrix& operator+=(const Xpr& xpr) {
    internal::assign(*this, xpr, internal::Store::kAdd, Context::current(), /*noalias=*/false);
    return *this;
  }
  template <typename Xpr>
  DeviceMatrix& operator-=(const Xpr& xpr) {
    internal::assign(*this, xpr, internal::Store::kSubtract, Context::current(), /*noalias=*/false);
    return *this;
  }
  internal::Destination<DeviceMatrix> noalias() { return {*this, nullptr, true}; }
  internal::Destination<DeviceMatrix> device(Context& context) { return {*this, &context, false}; }
  void setZero(Context& context = Context::current()) { view().setZero(context); }

  void swap(DeviceMatrix& other) noexcept {
    std::swap(m_block, other.m_block);
    std::swap(m_rows, other.m_rows);
    std::swap(m_cols, other.m_cols);
  }

 private:
  static std::size_t bytesOf(Index rows, Index cols) {
    return static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols) * sizeof(Scalar);
  }
  std::size_t bytes() const { return bytesOf(m_rows, m_cols); }
  void beginRead(Context& context) const {
    if (m_block) m_block->beginRead(context);
  }
  template <typename T>
  DeviceView<T> makeView(T* data) const {
    constexpr bool kRowMajor = (Options & Eigen::RowMajor) != 0;
    return {data, m_rows, m_cols, kRowMajor ? m_cols : 1, kRowMajor ? 1 : m_rows, m_block.get()};
  }

  std::unique_ptr<internal::MemoryBlock> m_block;
  Index m_rows = 0;
  Index m_cols = 0;
};

/** A copy from the device on its way to pinned host memory. */
template <typename Scalar, int Options>
class HostTransfer {
 public:
  using Map = Eigen::Map<const Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, Options>>;

  HostTransfer(const Scalar* device, Index rows, Index cols, Context& context)
      : m_memory(static_cast<std::size_t>(rows * cols) * sizeof(Scalar)),
        m_mark(copy(m_memory, device, rows * cols, context)),
        m_rows(rows),
        m_cols(cols) {}
  HostTransfer(HostTransfer&&) noexcept = default;
  ~HostTransfer() {
    if (m_memory.data()) m_mark.waitQuietly();  // the device still writes to this memory
  }

  bool ready() const { return m_mark.reached(); }
  /** Waits for the copy. The map refers to this object. */
  Map get() const {
    m_mark.wait();
    return Map(static_cast<const Scalar*>(m_memory.data()), m_rows, m_cols);
  }

 private:
  static internal::StreamMark copy(const internal::PinnedMemory& to, const Scalar* from, Index count,
                                   Context& context) {
    internal::copyAsync(to.data(), from, static_cast<std::size_t>(count) * sizeof(Scalar), context);
    return internal::StreamMark(context);
  }

  internal::PinnedMemory m_memory;
  internal::StreamMark m_mark;
  Index m_rows;
  Index m_cols;
};

template <typename Scalar, int Options>
HostTransfer<Scalar, Options> DeviceMatrix<Scalar, Options>::toHostAsync(Context& context) const {
  internal::refuseCapture(context, "EigenQ::gpu: toHostAsync");
  beginRead(context);
  return {data(), m_rows, m_cols, context};
}

// ---- members of views and expressions that make matrices

template <typename Scalar>
auto DeviceView<Scalar>::toHost(Context& context) const {
  DeviceMatrix<std::remove_const_t<Scalar>> contiguous;
  contiguous.device(context) = *this;
  return contiguous.toHost(context);
}

template <typename Scalar, internal::DeviceStage kStage>
auto DeviceExpression<Scalar, kStage>::toHost(Context& context) const {
  DeviceMatrix<Scalar> value;
  value.device(context) = *this;
  return value.toHost(context);
}
template <typename Scalar, int kCount>
auto DeviceSum<Scalar, kCount>::toHost(Context& context) const {
  DeviceMatrix<Scalar> value;
  value.device(context) = *this;
  return value.toHost(context);
}

}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_GPU_DEVICEMATRIX_H
