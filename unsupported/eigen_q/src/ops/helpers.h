// SPDX-License-Identifier: MPL-2.0
// What ops that are written once for every place need, and each place does in its own way.
#ifndef EIGENQ_OPS_HELPERS_H
#define EIGENQ_OPS_HELPERS_H

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include <eigen_q/src/FloatKernels.h>

#include "../Tape.h"

namespace EigenQ {
namespace ad {
namespace internal {

template <>
struct OpsOn<Host> {
  template <typename Scalar>
  using ConstMap = Host::ConstMap<Scalar>;
  template <typename Scalar>
  using Map = Host::Map<Scalar>;

  /** y = W x + b 1ᵀ, where b may be a false Var. In two passes: a product inside a sum would be evaluated into a
   * temporary. */
  template <typename Scalar>
  static void linear(const ConstMap<Scalar>& w, const ConstMap<Scalar>& x, const Var<Scalar>& b, Map<Scalar> y) {
    Host::Memory::store<Scalar>(y, w * x, /*accumulate=*/false);
    if (b) y.colwise() += b.value().col(0);
  }

  /** Adds dy 1 to the gradient of a bias. */
  template <typename Scalar>
  static void addRowSums(const Var<Scalar>& bias, const ConstMap<Scalar>& dy) {
    bias.addGrad(dy.rowwise().sum());
  }

  /** y = mask ∘ x / (1 - p): entry i is kept if the i-th word of the stream, as a number in [0, 1), is at least p. */
  template <typename Scalar>
  static void dropout(Tape<Scalar>&, const ConstMap<Scalar>& x, double p, const RandomStream& stream, Map<Scalar> y) {
    if constexpr (std::is_same_v<Scalar, float>) {
      dropByKernel(x, p, stream, {y.data(), /*accumulate=*/false});
    } else {
      const auto factor = static_cast<Scalar>(1.0 / (1.0 - p));
      for (Eigen::Index i = 0; i < x.size(); i += 4) {
        const EigenQ::internal::PhiloxWords words = stream(static_cast<std::uint64_t>(i) / 4);
        const Eigen::Index n = std::min<Eigen::Index>(4, x.size() - i);
        for (Eigen::Index k = 0; k < n; ++k)
          y.data()[i + k] = (words[k] >> 8) >= threshold(p) ? factor * x.data()[i + k] : Scalar(0);
      }
    }
  }

  /** Adds mask ∘ dy / (1 - p) to the gradient of x. */
  template <typename Scalar>
  static void addDropout(const Var<Scalar>& x, const ConstMap<Scalar>& dy, double p, const RandomStream& stream) {
    if (!x.requiresGrad()) return;
    if constexpr (std::is_same_v<Scalar, float>) {
      dropByKernel(dy, p, stream, floatGradient(x));
    } else {
      Scratch<Scalar> scratch(x.tape());
      auto dx = scratch.matrix(x.rows(), x.cols());
      dropout<Scalar>(x.tape(), dy, p, stream, dx);
      x.addGrad(dx);
    }
  }

 private:
  static std::uint32_t threshold(double p) {
    return static_cast<std::uint32_t>(p * 16777216.0);
  }  // 2²⁴: exact in float
  static void dropByKernel(const ConstMap<float>& x, double p, const RandomStream& stream,
                           EigenQ::internal::FloatGradient y) {
    const auto factor = static_cast<float>(1.0 / (1.0 - p));
    EigenQ::internal::floatKernels().dropout({x.size(), stream.seed, stream.stream, threshold(p), factor, x.data(), y});
  }
};

}  // namespace internal
}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPS_HELPERS_H
