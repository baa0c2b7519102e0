// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_OPS_DEVICE_ADD_NORM_H
#define EIGENQ_OPS_DEVICE_ADD_NORM_H

#include "../add_norm.h"
#include "columns.h"
#include "elementwise.h"

namespace EigenQ {
namespace ad {

template <typename Scalar>
SumAndNorm<Scalar, Device> addRmsNorm(const Var<Scalar, Device>& x, const Var<Scalar, Device>& y,
                                      OperandArg<Scalar, Device> gain, double eps = 1e-6) {
  Tape<Scalar, Device>& tape = x.tape();
  const Var<Scalar, Device> g = gain.on(tape);
  if (tape.needsGrad({x, y, g})) {
    const Var<Scalar, Device> sum = x + y;
    return {sum, rmsNorm(sum, g, eps)};
  }
  eigen_assert(x.rows() == y.rows() && x.cols() == y.cols() && "addRmsNorm: shapes differ");
  eigen_assert(g.rows() == x.rows() && g.cols() == 1 && "rmsNorm: the gain is not dim x 1");
  gpu::Context& context = tape.context();
  ArenaMatrix<Scalar, Device> sum = tape.newMatrix(x.rows(), x.cols()), norm = tape.newMatrix(x.rows(), x.cols());
  gpu::internal::AddNorm op;
  op.a = internal::reading(x);
  op.b = internal::reading(y);
  op.gain = internal::reading(g);
  op.eps = eps;
  op.sum = internal::writing(sum, context);
  op.y = internal::writing(norm, context);
  gpu::internal::addNorm(op, context);
  // No pullback is kept here; but inside a checkpoint the results have to know whether they depend on a gradient.
  const auto nothing = [](const auto&) {};
  return {tape.record("add", {x, y}, sum, nothing), tape.record("rmsNorm", {x, y, g}, norm, nothing)};
}

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPS_DEVICE_ADD_NORM_H
