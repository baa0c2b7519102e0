// SPDX-License-Identifier: MPL-2.0
// The tables of device kernels: one row a way, best first; the last row never refuses. Pointers in the problem structs
// are device pointers; work is queued on the context's stream and nothing waits for it.
#ifndef EIGENQ_CUDA_DEVICE_LOWERING_H
#define EIGENQ_CUDA_DEVICE_LOWERING_H

#include <eigen_q/src/Lowering.h>
#include <eigen_q/src/gpu/Context.h>

namespace EigenQ {
namespace gpu {
namespace internal {

using EigenQ::internal::AbsmaxView;
using EigenQ::internal::ConstDenseView;
using EigenQ::internal::DenseView;
using EigenQ::internal::Epilogue;
using EigenQ::internal::LoweringTable;
using EigenQ::internal::QuantizedProduct;
using EigenQ::internal::WeightFormat;
using EigenQ::internal::WeightView;

/** Y = epilogue(A·B), all dense and of one scalar type: A m×k, B k×n. */
struct DenseProduct {
  ConstDenseView a;
  ConstDenseView b;
  DenseView y;
  Epilogue epilogue;
};

/** One way to compute a product. \tparam Product  QuantizedProduct or DenseProduct */
template <typename Product>
struct DeviceLowering {
  const char* name;
  const char* (*refuse)(const Product&, const Context&);  // null: "mine". Otherwise the reason, in words.
  void (*run)(const Product&, Context&);
};

LoweringTable<DeviceLowering<QuantizedProduct>> deviceLowerings();
LoweringTable<DeviceLowering<DenseProduct>> deviceDenseLowerings();

/** Runs the first row that does not refuse. */
void lower(const QuantizedProduct& product, Context& context);
void lower(const DenseProduct& product, Context& context);

/** Y = epilogue(op(W)), W dequantised; Y is W's shape, transposed when \a transposed. */
void dequantize(const WeightView& w, bool transposed, const DenseView& y, const Epilogue& epilogue, Context& context);

/** Y = epilogue(X), elementwise; X of y's shape and of any scalar type, where it is y itself of the same strides. */
void elementwise(const ConstDenseView& x, const DenseView& y, const Epilogue& epilogue, Context& context);

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_DEVICE_LOWERING_H
