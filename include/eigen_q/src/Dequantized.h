// SPDX-License-Identifier: MPL-2.0
// Reading a quantised expression as a dense one.
#ifndef EIGENQ_DEQUANTIZED_H
#define EIGENQ_DEQUANTIZED_H

#include "QuantizedView.h"
#include "Destination.h"

#include <Eigen/Core>

namespace EigenQ {

/** A quantised expression read as a dense matrix of Scalar_: every dense method of Eigen, one code at a time. Assigned
 * whole, it is dequantised by one kernel. */
template <typename Xpr, typename Scalar_>
class Dequantized : public Eigen::MatrixBase<Dequantized<Xpr, Scalar_>> {
 public:
  using Base = Eigen::MatrixBase<Dequantized>;
  EIGEN_DENSE_PUBLIC_INTERFACE(Dequantized)
  using NestedExpression = Xpr;

  explicit Dequantized(const Xpr& xpr) : m_xpr(xpr) {}

  Index rows() const { return m_xpr.rows(); }
  Index cols() const { return m_xpr.cols(); }
  internal::QuantizedView quantizedView() const { return internal::QuantizedAccess<Xpr>::view(m_xpr); }

 private:
  typename Eigen::internal::ref_selector<Xpr>::type m_xpr;
};

namespace internal {

/** dst =, += or -= \a src, as Functor says; dst has src's size already. */
template <typename Functor, typename Dst>
void assignDequantized(Dst& dst, const QuantizedView& src) {
  Store store = Store::of<Functor>();
  store.epilogue.alpha = src.factor;
  storeTo(dst, store,
          [&](const DenseView& y, const Epilogue& epilogue) { dequantize(src.weights, src.transposed, y, epilogue); });
}

}  // namespace internal
}  // namespace EigenQ

namespace Eigen {
namespace internal {

template <typename Xpr, typename Scalar_>
struct traits<EigenQ::Dequantized<Xpr, Scalar_>> {
  using Scalar = Scalar_;
  using StorageIndex = Eigen::Index;
  using StorageKind = Dense;
  using XprKind = MatrixXpr;
  enum {
    RowsAtCompileTime = Dynamic,
    ColsAtCompileTime = Dynamic,
    MaxRowsAtCompileTime = Dynamic,
    MaxColsAtCompileTime = Dynamic,
    Flags = int(traits<Xpr>::Flags) & RowMajorBit
  };
};

// By coefficient only: whoever wants speed assigns, which runs a kernel.
template <typename Xpr, typename Scalar_>
struct evaluator<EigenQ::Dequantized<Xpr, Scalar_>> : evaluator_base<EigenQ::Dequantized<Xpr, Scalar_>> {
  using XprType = EigenQ::Dequantized<Xpr, Scalar_>;
  using CoeffReturnType = Scalar_;
  enum { CoeffReadCost = 8 * int(NumTraits<float>::MulCost), Flags = traits<XprType>::Flags, Alignment = 0 };

  explicit evaluator(const XprType& x) : m_view(x.quantizedView()) {}
  Scalar_ coeff(Index i, Index j) const { return Scalar_(m_view.coeff(i, j)); }

 private:
  EigenQ::internal::QuantizedView m_view;
};

template <typename Dst, typename Xpr, typename Scalar_, typename Functor>
struct Assignment<Dst, EigenQ::Dequantized<Xpr, Scalar_>, Functor, Dense2Dense,
                  std::enable_if_t<EigenQ::internal::AssignmentSign<Functor>::kSupported>> {
  static void run(Dst& dst, const EigenQ::Dequantized<Xpr, Scalar_>& src, const Functor& functor) {
    resize_if_allowed(dst, src, functor);
    EigenQ::internal::assignDequantized<Functor>(dst, src.quantizedView());
  }
};

}  // namespace internal
}  // namespace Eigen

#endif  // EIGENQ_DEQUANTIZED_H
