// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_OPS_SLICE_H
#define EIGENQ_OPS_SLICE_H

#include "../Tape.h"

namespace EigenQ {
namespace ad {

/** Rows first … first + n - 1 of \a x, copied. */
template <typename Scalar, typename Place>
Var<Scalar, Place> middleRows(const Var<Scalar, Place>& x, Eigen::Index first, Eigen::Index n) {
  return x.tape().record("middleRows", {x}, x.value().middleRows(first, n),
                         [=](const auto& dy) { x.grad().middleRows(first, n) += dy; });
}

/** Columns first … first + n - 1 of \a x, copied. */
template <typename Scalar, typename Place>
Var<Scalar, Place> middleCols(const Var<Scalar, Place>& x, Eigen::Index first, Eigen::Index n) {
  return x.tape().record("middleCols", {x}, x.value().middleCols(first, n),
                         [=](const auto& dy) { x.grad().middleCols(first, n) += dy; });
}

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPS_SLICE_H
