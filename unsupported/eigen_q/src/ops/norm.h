// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_OPS_NORM_H
#define EIGENQ_OPS_NORM_H

#include <cmath>

#include <type_traits>

#include <eigen_q/src/FloatKernels.h>

#include "../Tape.h"

namespace EigenQ {
namespace ad {

namespace internal {

/** Values and pullback of rmsNorm(). */
template <typename Scalar>
struct RmsNorm {
  using ConstMap = Host::ConstMap<Scalar>;
  using Map = Host::Map<Scalar>;

  /** \param inverse  1×tokens: 1/√(mean(x²) + eps) */
  static void forward(const ConstMap& x, const ConstMap& gain, Scalar eps, Map inverse, Map y) {
    const auto dim = static_cast<Scalar>(x.rows());
    for (Eigen::Index t = 0; t < x.cols(); ++t) {
      inverse(t) = Scalar(1) / std::sqrt(x.col(t).squaredNorm() / dim + eps);
      y.col(t) = inverse(t) * x.col(t).cwiseProduct(gain.col(0));
    }
  }

  /** With x̂ = x·inverse and h = gain ∘ ȳ:  x̄ = inverse·(h - x̂·mean(h ∘ x̂)),  gain's = Σ ȳ ∘ x̂. */
  static void backward(const Var<Scalar>& x, const Var<Scalar>& gain, const ConstMap& inverse, const ConstMap& dy) {
    const auto in = x.value();
    const auto weight = gain.value().col(0);
    if (x.requiresGrad()) {
      auto dx = x.grad();
      for (Eigen::Index t = 0; t < dx.cols(); ++t) {
        const Scalar r = inverse(t);
        const Scalar projection = r * r * weight.cwiseProduct(dy.col(t)).dot(in.col(t)) / static_cast<Scalar>(x.rows());
        dx.col(t) += r * (weight.cwiseProduct(dy.col(t)) - projection * in.col(t));
      }
    }
    if (gain.requiresGrad()) {
      auto dg = gain.grad().col(0);
      for (Eigen::Index t = 0; t < dy.cols(); ++t) dg += inverse(t) * dy.col(t).cwiseProduct(in.col(t));
    }
  }
};

/** The same by the library's kernels. */
template <>
struct RmsNorm<float> {
  using ConstMap = Host::ConstMap<float>;
  using Map = Host::Map<float>;

  static void forward(const ConstMap& x, const ConstMap& gain, float eps, Map inverse, Map y) {
    EigenQ::internal::floatKernels().rmsNorm({x.rows(), x.cols(), x.data(), gain.data(), inverse.data()}, eps,
                                             y.data());
  }
  static void backward(const Var<float>& x, const Var<float>& gain, const ConstMap& inverse, const ConstMap& dy) {
    const auto in = x.value();
    // const_cast: backward reads it.
    const EigenQ::internal::FloatRmsNorm norm{in.rows(), in.cols(), in.data(), gain.value().data(),
                                              const_cast<float*>(inverse.data())};
    EigenQ::internal::floatKernels().rmsNormBackward(norm, dy.data(), floatGradient(x),
                                                     gain.requiresGrad() ? gain.grad().data() : nullptr);
  }
};
}  // namespace internal

/** y = gain ∘ x / √(mean(x²) + eps), per column.
 * \param x  dim×tokens, dim > 0. \param gain  dim×1.
 * Saves one factor per token. Source: Zhang and Sennrich, arXiv:1910.07467. */
template <typename Scalar>
Var<Scalar> rmsNorm(const Var<Scalar>& x, OperandArg<Scalar> gain, double eps = 1e-6) {
  Tape<Scalar>& tape = x.tape();
  const Var<Scalar> g = gain.on(tape);
  eigen_assert(g.rows() == x.rows() && g.cols() == 1 && "rmsNorm: the gain is not dim x 1");
  ArenaMatrix<Scalar> y = tape.newMatrix(x.rows(), x.cols());
  ArenaMatrix<Scalar> inverse = tape.newMatrix(1, x.cols());
  using Norm = internal::RmsNorm<Scalar>;
  Norm::forward(x.value(), g.value(), static_cast<Scalar>(eps), inverse, y);
  return tape.record("rmsNorm", {x, g}, y,
                     [=](const auto& dy) { Norm::backward(x, g, Host::readOnly<Scalar>(inverse), dy); });
}

/** y = gain ∘ (x - mean(x)) / √(var(x) + eps) + bias, per column; the variance divides by dim.
 * \param x  dim×tokens, dim > 0. \param gain, bias  dim×1.
 * Saves two numbers per token. Source: Ba et al., arXiv:1607.06450. */
template <typename Scalar>
Var<Scalar> layerNorm(const Var<Scalar>& x, OperandArg<Scalar> gain, OperandArg<Scalar> bias, double eps = 1e-5) {
  Tape<Scalar>& tape = x.tape();
  const Var<Scalar> g = gain.on(tape), b = bias.on(tape);
  eigen_assert(g.rows() == x.rows() && g.cols() == 1 && "layerNorm: the gain is not dim x 1");
  eigen_assert(b.rows() == x.rows() && b.cols() == 1 && "layerNorm: the bias is not dim x 1");
  const auto in = x.value();
  const auto dim = static_cast<Scalar>(x.rows()), epsilon = static_cast<Scalar>(eps);

  ArenaMatrix<Scalar> y = tape.newMatrix(x.rows(), x.cols());
  ArenaMatrix<Scalar> center = tape.newMatrix(1, x.cols());
  ArenaMatrix<Scalar> inverse = tape.newMatrix(1, x.cols());
  for (Eigen::Index t = 0; t < x.cols(); ++t) {
    center(t) = in.col(t).sum() / dim;
    inverse(t) = Scalar(1) / std::sqrt((in.col(t).array() - center(t)).square().sum() / dim + epsilon);
    y.col(t) = (in.col(t).array() - center(t)) * inverse(t) * g.value().col(0).array() + b.value().col(0).array();
  }
  // With x̂ = (x - center)·inverse and h = gain ∘ ȳ:  x̄ = inverse·(h - mean(h) - x̂·mean(h ∘ x̂)).
  return tape.record("layerNorm", {x, g, b}, y, [=](const auto& dy) {
    const auto in = x.value();
    const auto weight = g.value().col(0).array();
    if (x.requiresGrad()) {
      auto dx = x.grad();
      for (Eigen::Index t = 0; t < dx.cols(); ++t) {
        const Scalar r = inverse(t);
        const auto centered = in.col(t).array() - center(t);
        const auto h = weight * dy.col(t).array();
        const Scalar meanH = h.sum() / dim, projection = r * r * (h * centered).sum() / dim;
        dx.col(t).array() += r * (h - meanH - projection * centered);
      }
    }
    if (g.requiresGrad()) {
      auto dg = g.grad().col(0).array();
      for (Eigen::Index t = 0; t < dy.cols(); ++t)
        dg += inverse(t) * dy.col(t).array() * (in.col(t).array() - center(t));
    }
    b.addGrad(dy.rowwise().sum());
  });
}

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPS_NORM_H
