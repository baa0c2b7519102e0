// SPDX-License-Identifier: MPL-2.0
// The int8 quantisation types of bitsandbytes 0.43 and their products on the device: the functions of Vectorwise.h,
// Igemm.h and MatMul8bit.h for device matrices, with the codes and statistics of the host, bit for bit. They run on
// Context::current() and wait for nothing; results and intermediate codes take memory of the stream-ordered pool.
#ifndef EIGENQ_GPU_DEVICEVECTORWISE_H
#define EIGENQ_GPU_DEVICEVECTORWISE_H

#include "../MatMul8bit.h"
#include "DeviceCodes.h"
#include "VectorwiseKernels.h"

namespace EigenQ {
namespace gpu {

/** An EigenQ::VectorwiseQuantized in device memory. Moved, not copied. */
struct VectorwiseQuantized {
  VectorwiseType type = VectorwiseType::kVector;
  VectorAxis axis = VectorAxis::kRows;
  DeviceCodes codes;                // m×k
  DeviceMatrix<float> stats;        // one a row or a column, or a single one, in a column
  DeviceMatrix<double> zeroPoints;  // as many for the zero-point types, else 0×1

  /** Waits for the stream. */
  EigenQ::VectorwiseQuantized toHost(Context& context = Context::current()) const {
    return {type, axis, codes.toHost(context), stats.toHost(context), zeroPoints.toHost(context)};
  }
};

namespace internal {

template <typename Derived>
CodesView codesToRead(const DeviceBase<Derived>& x, Context& context) {
  static_assert(std::is_same<typename Derived::Scalar, std::int8_t>::value, "igemm multiplies int8 codes");
  const auto view = toRead(x, context);
  return {view.data(), view.rows(), view.cols(), view.rowStride(), view.colStride()};
}

/** What the products of MatMul8bit.h are made of where matrices lie on a device. */
struct DeviceVectorwise {
  Context& context = Context::current();

  template <typename Scalar>
  using Matrix = DeviceMatrix<Scalar, Eigen::RowMajor>;

  /** By the rows of \a x, or those of its transpose where \a axis says so. */
  template <typename Derived>
  VectorwiseQuantized quantize(const DeviceBase<Derived>& x, VectorwiseType type, VectorAxis axis) const {
    const bool byRows = axis == VectorAxis::kRows;
    const ConstDenseView view = toRead(x, context).dense(), rows = byRows ? view : view.transpose();
    VectorwiseQuantized q;
    q.type = type;
    q.axis = axis;
    q.codes.resize(view.rows, view.cols, context);
    q.stats.resize(isWholeMatrix(type) ? 1 : rows.rows, 1, context);
    q.zeroPoints.resize(isZeropoint(type) ? q.stats.size() : 0, 1, context);
    const Index stride = view.cols;
    quantizeVectorwise(rows,
                       {type, toWrite(q.codes, context).data(), byRows ? stride : 1, byRows ? 1 : stride,
                        toWrite(q.stats, context).data(), toWrite(q.zeroPoints, context).data()},
                       context);
    return q;
  }

  template <typename X>
  VectorwiseQuantized quantizeRows(const X& x, VectorwiseType type) const {
    return quantize(x, type, VectorAxis::kRows);
  }
  /** Its rows; for a matrix quantised by columns, its columns. */
  VectorwiseRows rows(const VectorwiseQuantized& q) const {
    const CodesView codes = codesToRead(q.codes, context);
    return {q.type, q.axis == VectorAxis::kRows ? codes : codes.transpose(), toRead(q.stats, context).data(),
            toRead(q.zeroPoints, context).data()};
  }
  template <typename Y>
  void multiply(const VectorwiseRows& a, const VectorwiseRows& b, Y y) const {
    multiplyVectorwise(a, b, toWrite(y, context).mutableDense(), context);
  }
  template <typename A, typename B, typename Y>
  void multiplyExactly(const A& a, const B& b, Y y) const {
    internal::multiplyExactly(toRead(a, context).dense(), toRead(b, context).dense(),
                              toWrite(y, context).mutableDense(), context);
  }
  template <typename A, typename B, typename C>
  void igemm(const DeviceBase<A>& a, const DeviceBase<B>& b, C c) const {
    eigen_assert(a.cols() == b.rows() && "igemm: inner dimensions differ");
    EigenQ::internal::requireInt8Depth(a.cols());
    internal::igemm(codesToRead(a, context), codesToRead(b, context).transpose(), toWrite(c, context).data(), context);
  }
};

}  // namespace internal

/** As EigenQ::vectorwiseQuant. \param x  m×k of float, half or bfloat16 */
template <typename Derived>
VectorwiseQuantized vectorwiseQuant(const DeviceBase<Derived>& x, VectorwiseType type,
                                    VectorAxis axis = VectorAxis::kRows) {
  return internal::DeviceVectorwise().quantize(x, type, axis);
}

/** The decoded matrix, each value rounded once from double. */
template <typename Scalar = float>
DeviceMatrix<Scalar, Eigen::RowMajor> vectorwiseDequant(const VectorwiseQuantized& q) {
  const internal::DeviceVectorwise ops;
  DeviceMatrix<Scalar, Eigen::RowMajor> x(q.codes.rows(), q.codes.cols(), ops.context);
  const internal::DenseView view = internal::toWrite(x, ops.context).mutableDense();
  internal::dequantizeVectorwise(ops.rows(q), q.axis == VectorAxis::kRows ? view : view.transpose(), ops.context);
  return x;
}

/** C = A·B in int32, for codes A m×k and B k×n with any strides; exact as EigenQ::igemm. Fastest where A is row-major
 * and B column-major, in rows of a multiple of 16: any other is copied once. Throws std::invalid_argument for k > 2¹⁷.
 */
template <typename A, typename B>
DeviceSums igemm(const DeviceBase<A>& a, const DeviceBase<B>& b) {
  const internal::DeviceVectorwise ops;
  DeviceSums c(a.rows(), b.cols(), ops.context);
  ops.igemm(a, b, c.view());
  return c;
}

/** \a batch products of matrices stacked in rows: A (batch·m)×k, B (batch·k)×n, C (batch·m)×n.
 * Throws FormatError where \a batch does not divide the rows. */
template <typename A, typename B>
DeviceSums batchedIgemm(const DeviceBase<A>& a, const DeviceBase<B>& b, Index batch) {
  EigenQ::internal::requireBatch("batchedIgemm", batch, a.rows(), b.rows());
  const internal::DeviceVectorwise ops;
  const Index m = a.rows() / batch, k = b.rows() / batch;
  DeviceSums c(a.rows(), b.cols(), ops.context);
  for (Index i = 0; i < batch; ++i) ops.igemm(a.middleRows(i * m, m), b.middleRows(i * k, k), c.middleRows(i * m, m));
  return c;
}

/** As EigenQ::vectorwiseMmDequant: the values behind \a sums = igemm(a.codes, b.codes). */
template <typename Scalar = float>
DeviceMatrix<Scalar, Eigen::RowMajor> vectorwiseMmDequant(const DeviceSums& sums, const VectorwiseQuantized& a,
                                                          const VectorwiseQuantized& b) {
  EigenQ::internal::requireFactors(sums.rows(), sums.cols(), a, b);
  const internal::DeviceVectorwise ops;
  DeviceMatrix<Scalar, Eigen::RowMajor> y(sums.rows(), sums.cols(), ops.context);
  internal::dequantizeSums(internal::toRead(sums, ops.context).data(), ops.rows(a), ops.rows(b),
                           internal::toWrite(y, ops.context).mutableDense(), ops.context);
  return y;
}

/** Gradients of L, given Ḡ = ∂L/∂(A·B). */
template <typename Scalar>
struct MatMul8bitGradients {
  DeviceMatrix<Scalar, Eigen::RowMajor> a;  // of A's shape
  DeviceMatrix<Scalar, Eigen::RowMajor> b;  // of B's shape
};

/** As EigenQ::matMul8bit: A·B with both factors quantised to int8, A by rows and B by columns. \param a  (batch·m)×k
 * \param b  (batch·k)×n   \returns (batch·m)×n in A's scalar. Precisions other than 8 multiply in double, by a plain
 * kernel. Throws FormatError where the batch does not divide the rows, std::invalid_argument for k > 2¹⁷. */
template <typename A, typename B>
DeviceMatrix<typename A::Scalar, Eigen::RowMajor> matMul8bit(const DeviceBase<A>& a, const DeviceBase<B>& b,
                                                             const MatMul8bitOptions& options = {}) {
  return EigenQ::internal::matMul8bit(internal::DeviceVectorwise(), a.derived(), b.derived(), options);
}

/** As EigenQ::matMul8bitBackward. \param g  ∂L/∂(A·B), (batch·m)×n */
template <typename A, typename B, typename G>
MatMul8bitGradients<typename G::Scalar> matMul8bitBackward(const DeviceBase<A>& a, const DeviceBase<B>& b,
                                                           const DeviceBase<G>& g,
                                                           const MatMul8bitOptions& options = {}) {
  return EigenQ::internal::matMul8bitBackward<MatMul8bitGradients<typename G::Scalar>>(
      internal::DeviceVectorwise(), a.derived(), b.derived(), g.derived(), options);
}

}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_GPU_DEVICEVECTORWISE_H
