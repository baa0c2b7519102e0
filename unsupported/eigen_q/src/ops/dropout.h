// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_OPS_DROPOUT_H
#define EIGENQ_OPS_DROPOUT_H

#include <stdexcept>
#include <string>

#include "../Tape.h"

namespace EigenQ {
namespace ad {

namespace internal {
/** y = mask ∘ x / (1 - p): entry i is kept if the i-th word of the stream, as a number in [0, 1), is at least p. */
template <typename Scalar>
void applyDropout(const Eigen::Map<const Eigen::MatrixX<Scalar>>& x, double p, const RandomStream& stream,
                  Eigen::Map<Eigen::MatrixX<Scalar>> y) {
  const auto threshold = static_cast<std::uint32_t>(p * 16777216.0);  // 2²⁴: exact in float
  const auto factor = static_cast<Scalar>(1.0 / (1.0 - p));
  for (Eigen::Index i = 0; i < x.size(); i += 4) {
    const std::array<std::uint32_t, 4> words = stream(static_cast<std::uint64_t>(i) / 4);
    const Eigen::Index n = std::min<Eigen::Index>(4, x.size() - i);
    for (Eigen::Index k = 0; k < n; ++k)
      y.data()[i + k] = (words[static_cast<std::size_t>(k)] >> 8) >= threshold ? factor * x.data()[i + k] : Scalar(0);
  }
}

inline void checkDropout(const char* op, double p) {
  if (!(p >= 0 && p < 1))
    throw std::invalid_argument(std::string(op) + ": expected a dropout probability in [0, 1), found " +
                                std::to_string(p));
}
}  // namespace internal

/** Zeroes each entry with probability \a p and divides the others by 1 - p; for p = 0 it is \a x itself.
 * The mask depends on the tape's seed and on how many random ops ran since (Tape::setSeed); it is not stored.
 * Throws std::invalid_argument unless 0 ≤ p < 1. */
template <typename Scalar>
Var<Scalar> dropout(const Var<Scalar>& x, double p) {
  internal::checkDropout("dropout", p);
  if (p == 0) return x;
  Tape<Scalar>& tape = x.tape();
  const RandomStream stream = tape.nextRandomStream();
  ArenaMatrix<Scalar> y = tape.newMatrix(x.rows(), x.cols());
  internal::applyDropout<Scalar>(x.value(), p, stream, y);
  return tape.record("dropout", {x}, y, [=](const auto& dy) {
    Scratch<Scalar> scratch(x.tape());
    auto dx = scratch.matrix(x.rows(), x.cols());
    internal::applyDropout<Scalar>(dy, p, stream, dx);
    x.addGrad(dx);
  });
}

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPS_DROPOUT_H
