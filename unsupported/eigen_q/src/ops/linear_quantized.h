// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_OPS_LINEAR_QUANTIZED_H
#define EIGENQ_OPS_LINEAR_QUANTIZED_H

#include <functional>
#include <type_traits>

#include <eigen_q/Core>

#include "linear.h"

namespace EigenQ {
namespace ad {
namespace internal {

/** Whether T is a quantised matrix of this place, and whether it is but a reference to one. */
template <typename T, typename Place>
struct FrozenWeight {
  static constexpr bool value = std::is_base_of_v<QuantizedBase<T>, T>;
  static constexpr bool kIsReference = std::is_same_v<T, ThresholdedInt8>;
};

/** A frozen quantised weight: products, and no gradient of its own. It is kept by address; W.withThreshold(t), whose
 * forward product quantises X (LLM.int8()), as the reference to W that it is. */
template <typename Weight, typename Scalar, typename Place>
class WeightOperand<Weight, Scalar, Place, std::enable_if_t<FrozenWeight<std::remove_const_t<Weight>, Place>::value>> {
  using Plain = std::remove_const_t<Weight>;

 public:
  static constexpr bool kKeepsAddress = !FrozenWeight<Plain, Place>::kIsReference;

  WeightOperand(Tape<Scalar, Place>&, Weight& weight) : m_weight(weight) {}

  Eigen::Index rows() const { return weight().rows(); }
  Eigen::Index cols() const { return weight().cols(); }
  Var<Scalar, Place> var() const { return {}; }

  template <typename X, typename Y>
  void apply(const X& x, const Var<Scalar, Place>& b, Y& y) const {
    if constexpr (std::is_same_v<Scalar, double>) {
      EigenQ::internal::exactProduct(weight(), /*transposed=*/false, x, y, /*accumulate=*/false);
      if (b) y.colwise() += b.value().col(0);
    } else if (b) {
      y.noalias() = (weight() * x).colwise() + b.value().col(0);  // the kernel adds the bias
    } else {
      y.noalias() = weight() * x;
    }
  }

  template <typename Dy, typename Dx>
  void applyTransposed(const Dy& dy, Dx& dx) const {
    if constexpr (std::is_same_v<Scalar, double>)
      EigenQ::internal::exactProduct(weight(), /*transposed=*/true, dy, dx, /*accumulate=*/false);
    else
      dx.noalias() = weight().transpose() * dy;
  }

  template <typename Dy>
  void pullback(const Dy& dy, const Var<Scalar, Place>& x) const {
    if (!x.requiresGrad()) return;
    if constexpr (std::is_same_v<Scalar, double>) {
      auto target = x.gradTarget();
      EigenQ::internal::exactProduct(weight(), /*transposed=*/true, dy, target.grad, target.accumulate);
    } else {
      x.addGrad(weight().transpose() * dy);
    }
  }

 private:
  const Weight& weight() const { return m_weight; }

  std::conditional_t<kKeepsAddress, std::reference_wrapper<const Plain>, const Plain> m_weight;
};

}  // namespace internal

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPS_LINEAR_QUANTIZED_H
