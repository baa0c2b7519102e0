// SPDX-License-Identifier: MPL-2.0
// bitsandbytes' MatMul4Bit and Embedding*bit as plain functions on device matrices, on Context::current(). The products
// are those of the expressions A * W.transpose() and G * W.
#ifndef EIGENQ_GPU_DEVICEMATMUL4BIT_H
#define EIGENQ_GPU_DEVICEMATMUL4BIT_H

#include <stdexcept>

#include "../Embedding.h"
#include "DeviceBias.h"
#include "DeviceFourBitMatrix.h"
#include "Int8LinearKernels.h"

namespace EigenQ {
namespace gpu {
namespace internal {

/** A weight as it is stored, for a kernel on \a context to read. */
inline WeightView weightToRead(const WeightOperand& w, const char* function, Context& context) {
  if (w.view.transposed || w.view.factor != 1)
    throw std::invalid_argument(std::string(function) +
                                ": expected a quantised matrix as it is stored, found its transpose or multiple");
  if (w.block) w.block->beginRead(context);
  return w.view.weights;
}

}  // namespace internal

/** Y = A·Wᵀ + bias.
 * \param a     m×k of float, half or bfloat16   \param w  n×k, an NF4Matrix, an FP4Matrix or a window of one
 * \param bias  n values of any of these scalars, or empty
 * \returns m×n in A's scalar, by the kernel that doc/cuda.md lists for the shape. Any block size and any k.
 * Throws std::invalid_argument for a transposed or scaled w. */
template <typename A, typename W, typename Bias = internal::NoBias>
DeviceMatrix<typename A::Scalar, Eigen::RowMajor> matMul4bit(const DeviceBase<A>& a, const DeviceQuantizedBase<W>& w,
                                                             const DeviceBase<Bias>& bias = internal::NoBias()) {
  Context& context = Context::current();
  const internal::WeightView weight = internal::weightToRead(w.derived().operand(), "matMul4bit", context);
  eigen_assert(a.cols() == weight.cols && "matMul4bit: A*W': inner dimensions differ");
  const internal::ConstDenseView x = internal::toRead(a, context).dense();
  return internal::withBias<typename A::Scalar>(a.rows(), weight.rows, bias,
                                                [&](const internal::DenseView& y, const internal::Epilogue& epilogue) {
                                                  internal::multiply({x, weight, true, y, epilogue}, context);
                                                });
}

/** ∂L/∂A = G·W for G = ∂L/∂Y, m×n: m×k in G's scalar. */
template <typename G, typename W>
DeviceMatrix<typename G::Scalar, Eigen::RowMajor> matMul4bitGradA(const DeviceBase<G>& g,
                                                                  const DeviceQuantizedBase<W>& w) {
  Context& context = Context::current();
  const internal::WeightView weight = internal::weightToRead(w.derived().operand(), "matMul4bitGradA", context);
  eigen_assert(g.cols() == weight.rows && "matMul4bitGradA: the gradient has not one column per output");
  DeviceMatrix<typename G::Scalar, Eigen::RowMajor> dx(g.rows(), weight.cols, context);
  internal::multiply({internal::toRead(g, context).dense(), weight, false,
                      internal::toWrite(dx, context).mutableDense(), internal::Epilogue()},
                     context);
  return dx;
}

/** There is none: codes cannot take a gradient step. Train an adapter beside the weight (loraLinear). */
template <typename G, typename A, typename W>
void matMul4bitGradB(const DeviceBase<G>&, const DeviceBase<A>&, const DeviceQuantizedBase<W>&) {
  static_assert(sizeof(G) == 0, "A_4_BIT_WEIGHT_TAKES_NO_GRADIENT__TRAIN_AN_ADAPTER_BESIDE_IT");
}

/** bitsandbytes' matmul_4bit: matMul4bit by the name of the dispatcher. */
template <typename A, typename... Arguments>
DeviceMatrix<typename A::Scalar, Eigen::RowMajor> matmul4bit(const DeviceBase<A>& a, const Arguments&... arguments) {
  return matMul4bit(a, arguments...);
}

/** Row t of the result is row ids(t) of the table, as EigenQ::embedding, with the host's values bit for bit. Only these
 * rows are decoded.
 * \param table  vocabulary×dim: a quantised device matrix or a window of one
 * \param ids    on the device, where nobody checks them: the row of an id that the table does not have is NaN. Throws
 * std::invalid_argument for a transposed or scaled table. */
template <typename Scalar = float, typename Table>
DeviceMatrix<Scalar, Eigen::RowMajor> embedding(const DeviceQuantizedBase<Table>& table,
                                                const DeviceView<const int>& ids) {
  Context& context = Context::current();
  const internal::WeightView rows = internal::weightToRead(table.derived().operand(), "embedding", context);
  eigen_assert((ids.cols() == 1 && (ids.rows() <= 1 || ids.rowStride() == 1)) &&
               "embedding: the ids are no contiguous column");
  DeviceMatrix<Scalar, Eigen::RowMajor> y(ids.rows(), rows.cols, context);
  if (y.size() == 0) return y;
  internal::embeddingForward(rows, internal::toRead(ids, context).data(),
                             internal::toWrite(y, context).mutableDense().transpose(), context);
  return y;
}
/** The same for ids on the host, which are checked and uploaded. Throws std::out_of_range for an id outside the table.
 */
template <typename Scalar = float, typename Table>
DeviceMatrix<Scalar, Eigen::RowMajor> embedding(const DeviceQuantizedBase<Table>& table,
                                                const Eigen::Ref<const Eigen::VectorXi>& ids) {
  for (Index t = 0; t < ids.size(); ++t) EigenQ::internal::checkedId(ids, t, table.rows());
  const auto uploaded = DeviceMatrix<int>::fromHost(ids);
  return embedding<Scalar>(table, DeviceView<const int>(uploaded.view()));
}

}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_GPU_DEVICEMATMUL4BIT_H
