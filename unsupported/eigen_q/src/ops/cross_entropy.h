// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_OPS_CROSS_ENTROPY_H
#define EIGENQ_OPS_CROSS_ENTROPY_H

#include <stdexcept>
#include <string>

#include "../Tape.h"
#include "softmax.h"

namespace EigenQ {
namespace ad {

/** Mean is over the counted targets, not over all columns. */
enum class Reduction { Mean, Sum };

/** How many targets crossEntropy() counts: those that differ from \a ignoreIndex. Micro-batches that share one step
 * use Reduction::Sum and divide by the total of these. */
inline Eigen::Index countedTargets(const Eigen::Ref<const Eigen::VectorXi>& targets, int ignoreIndex = -100) {
  return (targets.array() != ignoreIndex).count();
}

namespace internal {
inline void checkTargets(const Eigen::Ref<const Eigen::VectorXi>& targets, int ignoreIndex, Eigen::Index classes,
                         Eigen::Index columns) {
  if (targets.size() != columns)
    throw std::invalid_argument("crossEntropy: expected " + std::to_string(columns) +
                                " targets, one per column of the logits, found " + std::to_string(targets.size()));
  for (Eigen::Index j = 0; j < targets.size(); ++j)
    if (targets(j) != ignoreIndex && (targets(j) < 0 || targets(j) >= classes))
      throw std::out_of_range("crossEntropy: target " + std::to_string(j) + ": expected 0 to " +
                              std::to_string(classes - 1) + " or " + std::to_string(ignoreIndex) + ", found " +
                              std::to_string(targets(j)));
}
}  // namespace internal

/** -log softmax(logits)[target], per column, reduced to 1×1.
 * \param logits  classes×tokens. \param targets  one class per column; \a ignoreIndex marks columns that take no part.
 * With no counted target the loss is 0 and so are the gradients. Saves one log-sum-exp per token, not the softmax.
 * Throws std::invalid_argument for a wrong number of targets and std::out_of_range for a target that is no class. */
template <typename Scalar>
Var<Scalar> crossEntropy(const Var<Scalar>& logits, const Eigen::Ref<const Eigen::VectorXi>& targets,
                         int ignoreIndex = -100, Reduction reduction = Reduction::Mean) {
  Tape<Scalar>& tape = logits.tape();
  const auto x = logits.value();
  internal::checkTargets(targets, ignoreIndex, x.rows(), x.cols());
  const auto kept = tape.keep(targets);
  const Eigen::Index counted = countedTargets(targets, ignoreIndex);
  const Scalar weight =
      reduction == Reduction::Sum || counted == 0 ? Scalar(1) : Scalar(1) / static_cast<Scalar>(counted);

  ArenaMatrix<Scalar> lse = tape.newMatrix(1, x.cols());
  double total = 0;  // thousands of float terms would lose digits
  for (Eigen::Index j = 0; j < x.cols(); ++j) {
    if (kept(j) == ignoreIndex) continue;
    lse(j) = internal::logSumExp(x.col(j));
    total += static_cast<double>(lse(j) - x(kept(j), j));
  }
  ArenaMatrix<Scalar> loss = tape.newMatrix(1, 1);
  loss(0, 0) = static_cast<Scalar>(total * static_cast<double>(weight));

  return tape.record("crossEntropy", {logits}, loss, [=](const auto& dy) {
    const Scalar g = dy(0, 0) * weight;
    const auto x = logits.value();
    auto target = logits.gradTarget();
    for (Eigen::Index j = 0; j < x.cols(); ++j) {
      if (kept(j) == ignoreIndex) {
        if (!target.accumulate) target.grad.col(j).setZero();
        continue;
      }
      internal::scaledExp(x.col(j), lse(j), g, target.grad.col(j), target.accumulate);
      target.grad(kept(j), j) -= g;
    }
  });
}

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPS_CROSS_ENTROPY_H
