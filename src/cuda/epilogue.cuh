// SPDX-License-Identifier: MPL-2.0
// The epilogue of Lowering.h inside kernels.
#ifndef EIGENQ_CUDA_EPILOGUE_CUH
#define EIGENQ_CUDA_EPILOGUE_CUH

#include <eigen_q/src/Lowering.h>

#include "scalar.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {

using EigenQ::internal::BiasAxis;
using EigenQ::internal::DenseView;
using EigenQ::internal::Epilogue;

__device__ __forceinline__ float activate(Activation activation, float v) {
  switch (activation) {
    case Activation::kRelu:
      return v < 0.0f ? 0.0f : v;
    case Activation::kGelu:
      return 0.5f * v * erfcf(v * -0.70710678118654752440f);
    case Activation::kSilu:
      return v / (1.0f + expf(-v));
    case Activation::kTanh:
      return tanhf(v);
    case Activation::kNone:
      break;
  }
  return v;
}

/** y(i, j) from its accumulator, before the rounding to T, the scalar of y, bias and residual. NaN stays NaN. */
template <typename T>
__device__ __forceinline__ float applyEpilogue(const Epilogue& e, float acc, Index i, Index j) {
  float v = e.alpha * acc;
  if (e.biasAxis != BiasAxis::kNone)
    v += toFloat(static_cast<const T*>(e.bias)[(e.biasAxis == BiasAxis::kPerRow ? i : j) * e.biasStride]);
  v = activate(e.activation, v);
  if (v < e.lower) v = e.lower;
  if (v > e.upper) v = e.upper;
  v *= e.sign;
  if (e.residual.data)
    v += e.residualSign *
         toFloat(static_cast<const T*>(e.residual.data)[i * e.residual.rowStride + j * e.residual.colStride]);
  return v;
}

/** What an epilogue without activation makes of an accumulator and a bias, 0 where there is none; the residual is to be
 * added. */
__device__ __forceinline__ float bounded(const Epilogue& e, float acc, float bias) {
  float v = e.alpha * acc + bias;
  if (v < e.lower) v = e.lower;
  if (v > e.upper) v = e.upper;
  return v * e.sign;
}
/** The same and the residual, 0 where there is none. */
__device__ __forceinline__ float affine(const Epilogue& e, float acc, float bias, float residual) {
  return bounded(e, acc, bias) + e.residualSign * residual;
}

/** The biases of columns \a j and j + 1, where a bias is of a column if there is one: see storesPairs(). */
template <typename T>
__device__ __forceinline__ float2 columnBiases(const Epilogue& e, Index j) {
  if (e.biasAxis == BiasAxis::kNone) return {0, 0};
  const T* const from = static_cast<const T*>(e.bias) + j * e.biasStride;
  return {toFloat(from[0]), toFloat(from[e.biasStride])};
}

/** y(i, j) and y(i, j + 1) of 16 bits from their accumulators and biases, where storesPairs(). */
template <typename T>
__device__ __forceinline__ std::uint32_t pairOf(const Epilogue& e, float2 acc, float2 bias, Index i, Index j) {
  float residual[2] = {0, 0};
  if (e.residual.data) {
    const T* const from = static_cast<const T*>(e.residual.data) + i * e.residual.rowStride + j * e.residual.colStride;
    residual[0] = toFloat(from[0]);
    residual[1] = toFloat(from[e.residual.colStride]);
  }
  return packPair<T>(affine(e, acc.x, bias.x, residual[0]), affine(e, acc.y, bias.y, residual[1]));
}
template <typename T>
__device__ __forceinline__ void storePair(const DenseView& y, const Epilogue& e, float2 acc, float2 bias, Index i,
                                          Index j) {
  *reinterpret_cast<std::uint32_t*>(static_cast<T*>(y.data) + i * y.rowStride + j) = pairOf<T>(e, acc, bias, i, j);
}

template <typename T>
__device__ __forceinline__ void storeResult(const DenseView& y, const Epilogue& e, float acc, Index i, Index j) {
  static_cast<T*>(y.data)[i * y.rowStride + j * y.colStride] = fromFloat<T>(applyEpilogue<T>(e, acc, i, j));
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_EPILOGUE_CUH
