// SPDX-License-Identifier: MPL-2.0
// Recognising  activation(alpha·X·op(W) + bias) ± C  at assignment, so that one kernel call does all of it.
//
// Fusion<Xpr> peels one layer of an expression, notes it in the Store and hands the rest to the next, down to the
// product, which runs. Layers have an order, innermost first; an expression that does not follow it is simply not
// fused, and Eigen evaluates its products into temporaries:
//
//     Stage::kProduct    X*W, W*X, and s*P, P*s, P/s, -P
//     Stage::kBiased     P.rowwise() + b, P.colwise() + b, and vector + vector
//     Stage::kActivated  relu(.), gelu(.), silu(.), tanh(.), .cwiseMax(lo), .cwiseMin(hi)
//     Stage::kSum        . + C, C + ., . - C, C - .
#ifndef EIGENQ_FUSION_H
#define EIGENQ_FUSION_H

#include "Activations.h"
#include "QuantProduct.h"

#include <Eigen/Core>

namespace EigenQ {
namespace internal {

enum class Stage { kNotFused, kProduct, kBiased, kActivated, kSum };

template <typename Xpr, typename = void>
struct Fusion {
  static constexpr Stage kStage = Stage::kNotFused;
};
template <typename Xpr>
struct Fusion<const Xpr> : Fusion<Xpr> {};

template <typename Xpr>
constexpr bool isFused() {
  return Fusion<Xpr>::kStage != Stage::kNotFused;
}
template <typename Xpr>
constexpr bool isFusedUpTo(Stage last) {
  return isFused<Xpr>() && Fusion<Xpr>::kStage <= last;
}

template <typename Scalar, typename Plain>
using Constant = const Eigen::CwiseNullaryOp<Eigen::internal::scalar_constant_op<Scalar>, Plain>;
template <typename Op, typename Lhs, typename Rhs>
using Binary = Eigen::CwiseBinaryOp<Op, Lhs, Rhs>;

// ---- the product and its scale --------------------------------------------------------------------------------------

template <typename Lhs, typename Rhs>
struct Fusion<QuantProductType<Lhs, Rhs>> {
  static constexpr Stage kStage = Stage::kProduct;
  template <typename Dst, typename Xpr>
  static void run(Dst& dst, const Xpr& x, const Store& store) {
    runProduct(dst, x.lhs(), x.rhs(), store);
  }
};

template <typename Xpr>
struct FusedScale {
  static constexpr Stage kStage = Stage::kProduct;
  template <typename Dst>
  static void runScaled(Dst& dst, const Xpr& x, Store store, float factor) {
    store.epilogue.alpha *= factor;
    Fusion<Xpr>::run(dst, x, store);
  }
};

template <typename A, typename B, typename Plain, typename Xpr>
struct Fusion<Binary<Eigen::internal::scalar_product_op<A, B>, Constant<A, Plain>, const Xpr>,
              std::enable_if_t<isFusedUpTo<Xpr>(Stage::kProduct)>> : FusedScale<Xpr> {
  template <typename Dst, typename Scaled>
  static void run(Dst& dst, const Scaled& x, const Store& store) {
    FusedScale<Xpr>::runScaled(dst, x.rhs(), store, static_cast<float>(x.lhs().functor()()));
  }
};
template <typename A, typename B, typename Plain, typename Xpr>
struct Fusion<Binary<Eigen::internal::scalar_product_op<A, B>, const Xpr, Constant<B, Plain>>,
              std::enable_if_t<isFusedUpTo<Xpr>(Stage::kProduct)>> : FusedScale<Xpr> {
  template <typename Dst, typename Scaled>
  static void run(Dst& dst, const Scaled& x, const Store& store) {
    FusedScale<Xpr>::runScaled(dst, x.lhs(), store, static_cast<float>(x.rhs().functor()()));
  }
};
template <typename A, typename B, typename Plain, typename Xpr>
struct Fusion<Binary<Eigen::internal::scalar_quotient_op<A, B>, const Xpr, Constant<B, Plain>>,
              std::enable_if_t<isFusedUpTo<Xpr>(Stage::kProduct)>> : FusedScale<Xpr> {
  template <typename Dst, typename Scaled>
  static void run(Dst& dst, const Scaled& x, const Store& store) {
    FusedScale<Xpr>::runScaled(dst, x.lhs(), store, 1.0f / static_cast<float>(x.rhs().functor()()));
  }
};
template <typename A, typename Xpr>
struct Fusion<Eigen::CwiseUnaryOp<Eigen::internal::scalar_opposite_op<A>, const Xpr>,
              std::enable_if_t<isFusedUpTo<Xpr>(Stage::kProduct)>> : FusedScale<Xpr> {
  template <typename Dst, typename Scaled>
  static void run(Dst& dst, const Scaled& x, const Store& store) {
    FusedScale<Xpr>::runScaled(dst, x.nestedExpression(), store, -1.0f);
  }
};

// ---- bias -----------------------------------------------------------------------------------------------------------

/** The axis along which a vector added to a matrix varies. */
template <typename Vector>
constexpr BiasAxis biasAxis() {
  return int(Vector::RowsAtCompileTime) == 1 ? BiasAxis::kPerCol : BiasAxis::kPerRow;
}

template <typename Product, typename Dst, typename Vector>
void runBiased(Dst& dst, const Product& product, const Vector& bias, Store store) {
  DirectOrPlain<Vector> direct(bias);  // lives until the kernel has returned
  store.epilogue.biasAxis = biasAxis<Vector>();
  store.epilogue.bias = direct.data();
  store.epilogue.biasStride = direct.innerStride();
  Fusion<Product>::run(dst, product, store);
}

/** What P.rowwise() + b and P.colwise() + b add: a vector replicated across the other dimension. */
template <typename Xpr>
struct IsBroadcast : std::false_type {};
template <typename Vector, int RowFactor, int ColFactor>
struct IsBroadcast<Eigen::Replicate<Vector, RowFactor, ColFactor>>
    : std::bool_constant<(int(Vector::RowsAtCompileTime) == 1 && ColFactor == 1) ||
                         (int(Vector::ColsAtCompileTime) == 1 && RowFactor == 1)> {};

template <typename A, typename B, typename Xpr, typename Vector, int RowFactor, int ColFactor>
struct Fusion<
    Binary<Eigen::internal::scalar_sum_op<A, B>, const Xpr, const Eigen::Replicate<Vector, RowFactor, ColFactor>>,
    std::enable_if_t<isFusedUpTo<Xpr>(Stage::kProduct) &&
                     IsBroadcast<Eigen::Replicate<Vector, RowFactor, ColFactor>>::value>> {
  static constexpr Stage kStage = Stage::kBiased;
  template <typename Dst, typename Sum>
  static void run(Dst& dst, const Sum& x, const Store& store) {
    const auto& bias = x.rhs().nestedExpression();
    // A replicated vector of another length would have made the sum assert; its length along the axis is checked there.
    runBiased(dst, x.lhs(), bias, store);
  }
};

/** Products of Eigen's own are left to Eigen's rule for sums with them. */
template <typename Xpr>
struct IsDenseProduct : std::false_type {};
template <typename Lhs, typename Rhs>
struct IsDenseProduct<Eigen::Product<Lhs, Rhs, Eigen::DefaultProduct>> : std::true_type {};

/** In decoding, results are vectors and so is the bias: relu(W * x + b). */
template <typename Xpr, typename Vector>
constexpr bool isVectorBias() {
  using X = Eigen::internal::traits<std::remove_const_t<Xpr>>;
  using V = Eigen::internal::traits<std::remove_const_t<Vector>>;
  if (isFused<Vector>() || IsBroadcast<Vector>::value || IsDenseProduct<Vector>::value) return false;
  const bool column =
      int(X::ColsAtCompileTime) == 1 && int(X::RowsAtCompileTime) != 1 && int(V::ColsAtCompileTime) == 1;
  const bool row = int(X::RowsAtCompileTime) == 1 && int(X::ColsAtCompileTime) != 1 && int(V::RowsAtCompileTime) == 1;
  return column || row;
}

template <typename A, typename B, typename Xpr, typename Vector>
struct Fusion<Binary<Eigen::internal::scalar_sum_op<A, B>, const Xpr, const Vector>,
              std::enable_if_t<isFusedUpTo<Xpr>(Stage::kProduct) && isVectorBias<Xpr, Vector>()>> {
  static constexpr Stage kStage = Stage::kBiased;
  template <typename Dst, typename Sum>
  static void run(Dst& dst, const Sum& x, const Store& store) {
    runBiased(dst, x.lhs(), x.rhs(), store);
  }
};

// ---- activations ----------------------------------------------------------------------------------------------------

template <typename Scalar, Activation kActivation, typename Xpr>
struct Fusion<Eigen::CwiseUnaryOp<ActivationOp<Scalar, kActivation>, const Xpr>,
              std::enable_if_t<isFusedUpTo<Xpr>(Stage::kBiased)>> {
  static constexpr Stage kStage = Stage::kActivated;
  template <typename Dst, typename Activated>
  static void run(Dst& dst, const Activated& x, Store store) {
    store.epilogue.activation = kActivation;
    Fusion<Xpr>::run(dst, x.nestedExpression(), store);
  }
};
// The kernel clamps from below first, so a maximum may stand inside a minimum but not around it.
template <typename A, typename B, int NaNPropagation, typename Xpr, typename Plain>
struct Fusion<Binary<Eigen::internal::scalar_max_op<A, B, NaNPropagation>, const Xpr, Constant<B, Plain>>,
              std::enable_if_t<isFusedUpTo<Xpr>(Stage::kBiased)>> {
  static constexpr Stage kStage = Stage::kActivated;
  template <typename Dst, typename Clamped>
  static void run(Dst& dst, const Clamped& x, Store store) {
    store.epilogue.lower = static_cast<float>(x.rhs().functor()());
    Fusion<Xpr>::run(dst, x.lhs(), store);
  }
};
template <typename A, typename B, int NaNPropagation, typename Xpr, typename Plain>
struct Fusion<Binary<Eigen::internal::scalar_min_op<A, B, NaNPropagation>, const Xpr, Constant<B, Plain>>,
              std::enable_if_t<isFusedUpTo<Xpr>(Stage::kActivated)>> {
  static constexpr Stage kStage = Stage::kActivated;
  template <typename Dst, typename Clamped>
  static void run(Dst& dst, const Clamped& x, Store store) {
    const float upper = static_cast<float>(x.rhs().functor()());
    if (upper < store.epilogue.upper) store.epilogue.upper = upper;
    Fusion<Xpr>::run(dst, x.lhs(), store);
  }
};

// ---- sums -----------------------------------------------------------------------------------------------------------

template <typename Op>
struct SumSign {
  static constexpr int kSign = 0;
};
template <typename A, typename B>
struct SumSign<Eigen::internal::scalar_sum_op<A, B>> {
  static constexpr int kSign = 1;
};
template <typename A, typename B>
struct SumSign<Eigen::internal::scalar_difference_op<A, B>> {
  static constexpr int kSign = -1;
};

template <typename Op, typename Lhs, typename Rhs>
constexpr bool isFusedSum() {
  if (SumSign<Op>::kSign == 0 || IsDenseProduct<Rhs>::value) return false;
  if (isFused<Rhs>()) return true;
  if (!isFused<Lhs>()) return false;
  const bool isBias = IsBroadcast<Rhs>::value || isVectorBias<Lhs, Rhs>();
  return !(SumSign<Op>::kSign == 1 && isFusedUpTo<Lhs>(Stage::kProduct) && isBias);
}

/** dst (+)= sign·x for an x that no kernel of ours covers. */
template <typename Dst, typename Xpr>
void assignOther(Dst& dst, const Xpr& x, float sign, bool accumulate) {
  using Scalar = typename Dst::Scalar;
  using Eigen::internal::call_assignment_no_alias;
  if (accumulate && sign > 0) {
    call_assignment_no_alias(dst, x, Eigen::internal::add_assign_op<Scalar, Scalar>());
  } else if (accumulate) {
    call_assignment_no_alias(dst, x, Eigen::internal::sub_assign_op<Scalar, Scalar>());
  } else if (sign > 0) {
    call_assignment_no_alias(dst, x, Eigen::internal::assign_op<Scalar, Scalar>());
  } else {
    call_assignment_no_alias(dst, -x, Eigen::internal::assign_op<Scalar, Scalar>());
  }
}

/** What a sum has beside its products: sign·xpr. */
template <typename Xpr, int kSign_>
struct DenseTerms {
  static constexpr int kSign = kSign_;
  typename Eigen::internal::ref_selector<Xpr>::type xpr;
};
struct NoTerms {};

template <int kSign, typename Xpr>
DenseTerms<Xpr, kSign> signedTerms(const Xpr& x) {
  return {x};
}

/** a + sign·b in one expression, so that whatever stands in it is read before the destination is written. */
template <int kSign, typename A, typename B>
auto joinTerms(const A& a, const B& b) {
  if constexpr (std::is_same<B, NoTerms>::value) {
    return a;
  } else if constexpr (std::is_same<A, NoTerms>::value) {
    return signedTerms<kSign * B::kSign>(b.xpr);
  } else if constexpr (A::kSign == kSign * B::kSign) {
    return signedTerms<A::kSign>(a.xpr + b.xpr);
  } else if constexpr (A::kSign > 0) {
    return signedTerms<1>(a.xpr - b.xpr);
  } else {
    return signedTerms<1>(b.xpr - a.xpr);
  }
}

template <typename Xpr>
auto termsOf(const Xpr& x) {
  if constexpr (!isFused<Xpr>()) {
    return signedTerms<1>(x);
  } else if constexpr (Fusion<Xpr>::kStage == Stage::kSum) {
    return Fusion<Xpr>::terms(x);
  } else {
    return NoTerms();
  }
}

/** dst (+)= the products of x, each times \a sign. \param store  of the first; then of those that follow it */
template <typename Dst, typename Xpr>
void runProducts(Dst& dst, const Xpr& x, float sign, Store& store) {
  if constexpr (!isFused<Xpr>()) {
    return;
  } else if constexpr (Fusion<Xpr>::kStage == Stage::kSum) {
    Fusion<Xpr>::runProductsOf(dst, x, sign, store);
  } else {
    store.epilogue.sign = sign;
    Fusion<Xpr>::run(dst, x, store);
    store = Store();
    store.accumulates = true;
  }
}

template <typename Dst>
void beginSum(Dst&, NoTerms, float, Store&) {}
/** The kernel of the first product reads one dense term from where it lies; further terms, and one that is not in
 * memory, go to dst before all products: any of them may be dst's own entries. */
template <typename Dst, typename Xpr, int kSign>
void beginSum(Dst& dst, const DenseTerms<Xpr, kSign>& terms, float sign, Store& store) {
  const float termsSign = sign * static_cast<float>(kSign);
  if constexpr (hasDirectAccess<Xpr>()) {
    if (!store.accumulates) {
      store.epilogue.residual = viewOf(terms.xpr);
      store.epilogue.residualSign = termsSign;
      return;
    }
  }
  assignOther(dst, terms.xpr, termsSign, store.accumulates);
  store.accumulates = true;
}

template <typename Op, typename Lhs, typename Rhs>
struct Fusion<Binary<Op, const Lhs, const Rhs>, std::enable_if_t<isFusedSum<Op, Lhs, Rhs>()>> {
  static constexpr Stage kStage = Stage::kSum;
  static constexpr int kRhsSign = SumSign<Op>::kSign;

  template <typename Sum>
  static auto terms(const Sum& x) {
    return joinTerms<kRhsSign>(termsOf(x.lhs()), termsOf(x.rhs()));
  }

  template <typename Dst, typename Sum>
  static void runProductsOf(Dst& dst, const Sum& x, float sign, Store& store) {
    runProducts(dst, x.lhs(), sign, store);
    runProducts(dst, x.rhs(), sign * static_cast<float>(kRhsSign), store);
  }

  template <typename Dst, typename Sum>
  static void run(Dst& dst, const Sum& x, Store store) {
    const float sign = store.epilogue.sign;
    beginSum(dst, terms(x), sign, store);
    runProductsOf(dst, x, sign, store);
  }
};

}  // namespace internal

/** Whether assigning this expression runs quantised kernels alone, without a temporary of Eigen's for their results. */
template <typename Xpr>
inline constexpr bool kIsFused = internal::isFused<std::decay_t<Xpr>>();

}  // namespace EigenQ

namespace Eigen {
namespace internal {

// Both hooks are enabled by the same predicate: a fused expression writes its destination while it still reads its
// operands, so without noalias() it needs the temporary. The shape's slot serves SFINAE, since a plain partial
// specialisation for sums or scaled products would be ambiguous against Eigen's own for dense ones.
template <typename Xpr>
struct evaluator_assume_aliasing<Xpr, std::enable_if_t<EigenQ::internal::isFused<Xpr>(), DenseShape>> {
  static const bool value = true;
};

template <typename Dst, typename Src, typename Functor>
struct Assignment<
    Dst, Src, Functor, Dense2Dense,
    std::enable_if_t<EigenQ::internal::isFused<Src>() && EigenQ::internal::AssignmentSign<Functor>::kSupported>> {
  static void run(Dst& dst, const Src& src, const Functor& functor) {
    resize_if_allowed(dst, src, functor);
    EigenQ::internal::Fusion<Src>::run(dst, src, EigenQ::internal::Store::of<Functor>());
  }
};

}  // namespace internal
}  // namespace Eigen

#endif  // EIGENQ_FUSION_H
