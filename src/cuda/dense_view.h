// SPDX-License-Identifier: MPL-2.0
// What host code asks of dense operands before it picks a kernel.
#ifndef EIGENQ_CUDA_DENSE_VIEW_H
#define EIGENQ_CUDA_DENSE_VIEW_H

#include <eigen_q/src/Lowering.h>

#include <cstddef>
#include <cstdint>
#include <limits>

namespace EigenQ {
namespace gpu {
namespace internal {

using EigenQ::internal::BasicDenseView;
using EigenQ::internal::BiasAxis;
using EigenQ::internal::ConstDenseView;
using EigenQ::internal::DenseView;
using EigenQ::internal::Epilogue;

inline std::size_t sizeOf(ScalarType scalar) {
  switch (scalar) {
    case ScalarType::kHalf:
    case ScalarType::kBFloat16:
      return 2;
    case ScalarType::kFloat:
      return 4;
    case ScalarType::kDouble:
      break;
  }
  return 8;
}

inline ConstDenseView asConst(const DenseView& v) {
  return {v.data, v.scalar, v.rows, v.cols, v.rowStride, v.colStride};
}

/** \a offset elements behind \a data, which may be null where there are no elements. */
inline const void* advance(const void* data, ScalarType scalar, Index offset) {
  return data ? static_cast<const char*>(data) + offset * static_cast<Index>(sizeOf(scalar)) : nullptr;
}
inline void* advance(void* data, ScalarType scalar, Index offset) {
  return data ? static_cast<char*>(data) + offset * static_cast<Index>(sizeOf(scalar)) : nullptr;
}

/** Columns [begin, begin + count). */
template <typename Void>
BasicDenseView<Void> columns(BasicDenseView<Void> v, Index begin, Index count) {
  v.data = advance(v.data, v.scalar, begin * v.colStride);
  v.cols = count;
  return v;
}

/** Rows [begin, begin + count). */
template <typename Void>
BasicDenseView<Void> rows(BasicDenseView<Void> v, Index begin, Index count) {
  v.data = advance(v.data, v.scalar, begin * v.rowStride);
  v.rows = count;
  return v;
}

/** The epilogue of those columns, or rows, of a result. \a scalar is the result's. */
inline Epilogue columns(Epilogue e, ScalarType scalar, Index begin, Index count) {
  if (e.biasAxis == BiasAxis::kPerCol) e.bias = advance(e.bias, scalar, begin * e.biasStride);
  e.residual = columns(e.residual, begin, count);
  return e;
}
inline Epilogue rows(Epilogue e, ScalarType scalar, Index begin, Index count) {
  if (e.biasAxis == BiasAxis::kPerRow) e.bias = advance(e.bias, scalar, begin * e.biasStride);
  e.residual = rows(e.residual, begin, count);
  return e;
}

/** Whether both name the same elements in the same order. */
inline bool sameElements(const ConstDenseView& a, const ConstDenseView& b) {
  return a.data == b.data && a.scalar == b.scalar && (a.rows <= 1 || a.rowStride == b.rowStride) &&
         (a.cols <= 1 || a.colStride == b.colStride);
}

/** Nothing but alpha, sign and residual. */
inline bool isLinear(const Epilogue& e) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  return e.biasAxis == BiasAxis::kNone && e.activation == Activation::kNone && e.lower == -kInfinity &&
         e.upper == kInfinity;
}
/** Nothing but a residual. */
inline bool addsOnly(const Epilogue& e) { return isLinear(e) && e.alpha == 1 && e.sign == 1; }
/** y = acc. */
inline bool isPlain(const Epilogue& e) { return addsOnly(e) && !e.residual.data; }

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_DENSE_VIEW_H
