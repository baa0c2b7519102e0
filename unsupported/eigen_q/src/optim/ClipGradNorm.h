// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_OPTIM_CLIP_GRAD_NORM_H
#define EIGENQ_OPTIM_CLIP_GRAD_NORM_H

#include <cmath>
#include <vector>

#include "Optimizer.h"

namespace EigenQ {
namespace ad {

/** The 2-norm of all gradients taken as one vector; NaN or infinite where an entry is. */
template <typename Scalar>
double gradNorm(const std::vector<Parameter<Scalar>*>& parameters) {
  double sum = 0;
  for (const Parameter<Scalar>* p : parameters)
    if (p->hasGrad()) sum += static_cast<double>(p->grad().squaredNorm());
  return std::sqrt(sum);
}

/** Scales all gradients by one factor so that their common 2-norm is at most \a maxNorm: maxNorm / (norm + 1e-6), as
 * torch.nn.utils.clip_grad_norm_, where that is below 1.
 * \returns the norm before. A norm that is not finite leaves the gradients alone, for the caller to skip the step.
 * Throws std::invalid_argument for a negative \a maxNorm. */
template <typename Scalar>
double clipGradNorm(const std::vector<Parameter<Scalar>*>& parameters, double maxNorm) {
  internal::checkOption(maxNorm >= 0, "clipGradNorm", "maxNorm", maxNorm);
  const double norm = gradNorm(parameters);
  const double factor = maxNorm / (norm + 1e-6);
  if (!std::isfinite(norm) || factor >= 1) return norm;
  for (Parameter<Scalar>* p : parameters)
    if (p->hasGrad()) p->mutableGrad() *= static_cast<Scalar>(factor);
  return norm;
}

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPTIM_CLIP_GRAD_NORM_H
