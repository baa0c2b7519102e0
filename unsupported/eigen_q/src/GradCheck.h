// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_GRAD_CHECK_H
#define EIGENQ_GRAD_CHECK_H

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <ostream>
#include <vector>

#include <Eigen/Core>

#include "NoGradGuard.h"
#include "Tape.h"

namespace EigenQ {
namespace ad {

/** The entry where analytic and numeric gradient differ most. */
struct GradCheckResult {
  double error = -1;  // |analytic - numeric| / max(1, |analytic|, |numeric|); -1 if there was no entry to compare
  double tolerance = 0;
  std::size_t input = 0;
  Eigen::Index row = 0;
  Eigen::Index col = 0;
  double analytic = 0;
  double numeric = 0;

  explicit operator bool() const { return error <= tolerance; }  // false for NaN

  friend std::ostream& operator<<(std::ostream& out, const GradCheckResult& r) {
    if (r.error == -1) return out << "gradCheck: no entry to compare";
    return out << "gradCheck: worst entry: input " << r.input << " (" << r.row << ", " << r.col << "): analytic "
               << r.analytic << ", numeric " << r.numeric << ", relative error " << r.error << ", tolerance "
               << r.tolerance;
  }
};

namespace internal {
/** Projects a result to a scalar with weights that no symmetry of an op cancels (softmax columns sum to 1). */
inline Eigen::MatrixXd gradCheckSeed(Eigen::Index rows, Eigen::Index cols) {
  const RandomStream random{0x67726164, 0};
  Eigen::MatrixXd seed(rows, cols);
  for (Eigen::Index i = 0; i < seed.size(); ++i)
    seed.data()[i] = static_cast<double>(random(static_cast<std::uint64_t>(i))[0]) / 4294967296.0 + 0.5;
  return seed;
}

/** NaN counts as the largest error. */
inline bool isWorse(double error, double worst) { return !std::isnan(worst) && !(error <= worst); }
}  // namespace internal

/** Compares the gradient of fn with central differences, for every entry of every input, in double.
 * \param fn  called as fn(tape, vars) with `Tape<double>&` and `const std::vector<Var<double>>&`; returns a
 *   `Var<double>` of any shape. It is called once more than twice per entry, each time with the same random streams.
 * \param inputs  the point; away from kinks by more than \a eps.
 * \param eps  step: 1e-5 balances truncation (eps²) against rounding (1e-16/eps).
 * \param tol  on |analytic - numeric| / max(1, |analytic|, |numeric|).
 * \returns  true in a condition if every entry agrees; printable. */
template <typename Fn>
GradCheckResult gradCheck(const Fn& fn, std::vector<Eigen::MatrixXd> inputs, double eps = 1e-5, double tol = 1e-7) {
  Tape<double> tape;
  const auto run = [&] {
    tape.clear();
    tape.setSeed(0);
    std::vector<Var<double>> vars;
    for (const Eigen::MatrixXd& input : inputs) vars.push_back(tape.variable(input));
    return std::make_pair(fn(tape, static_cast<const std::vector<Var<double>>&>(vars)), vars);
  };

  auto [y, vars] = run();
  const Eigen::MatrixXd seed = internal::gradCheckSeed(y.rows(), y.cols());
  std::vector<Eigen::MatrixXd> gradients;
  if (y.requiresGrad()) tape.backward(y, seed);
  for (const Var<double>& v : vars) gradients.push_back(v.grad());

  const auto loss = [&] {
    const NoGradGuard<double> guard(tape);
    return run().first.value().cwiseProduct(seed).sum();
  };
  GradCheckResult worst;
  worst.tolerance = tol;
  for (std::size_t k = 0; k < inputs.size(); ++k)
    for (Eigen::Index j = 0; j < inputs[k].cols(); ++j)
      for (Eigen::Index i = 0; i < inputs[k].rows(); ++i) {
        const double x = inputs[k](i, j);
        inputs[k](i, j) = x + eps;
        const double above = loss();
        inputs[k](i, j) = x - eps;
        const double below = loss();
        inputs[k](i, j) = x;
        const double numeric = (above - below) / (2 * eps), analytic = gradients[k](i, j);
        const double error = std::abs(analytic - numeric) / std::max({1.0, std::abs(analytic), std::abs(numeric)});
        if (internal::isWorse(error, worst.error)) worst = {error, tol, k, i, j, analytic, numeric};
      }
  return worst;
}

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_GRAD_CHECK_H
