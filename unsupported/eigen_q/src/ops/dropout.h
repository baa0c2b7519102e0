// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_OPS_DROPOUT_H
#define EIGENQ_OPS_DROPOUT_H

#include <stdexcept>
#include <string>

#include "../Tape.h"
#include "helpers.h"

namespace EigenQ {
namespace ad {

namespace internal {
inline void checkDropout(const char* op, double p) {
  if (!(p >= 0 && p < 1))
    throw std::invalid_argument(std::string(op) + ": expected a dropout probability in [0, 1), found " +
                                std::to_string(p));
}
}  // namespace internal

/** Zeroes each entry with probability \a p and divides the others by 1 - p; for p = 0 it is \a x itself.
 * The mask depends on the tape's seed and on how many random ops ran since (Tape::setSeed); it is not stored.
 * Throws std::invalid_argument unless 0 ≤ p < 1. */
template <typename Scalar, typename Place>
Var<Scalar, Place> dropout(const Var<Scalar, Place>& x, double p) {
  using Ops = internal::OpsOn<Place>;
  internal::checkDropout("dropout", p);
  if (p == 0) return x;
  Tape<Scalar, Place>& tape = x.tape();
  const RandomStream stream = tape.nextRandomStream();
  ArenaMatrix<Scalar, Place> y = tape.newMatrix(x.rows(), x.cols());
  Ops::template dropout<Scalar>(tape, x.value(), p, stream, y);
  return tape.record("dropout", {x}, y, [=](const auto& dy) { Ops::template addDropout<Scalar>(x, dy, p, stream); });
}

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPS_DROPOUT_H
