// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_QUANTIZEDVIEW_H
#define EIGENQ_QUANTIZEDVIEW_H

#include "Views.h"

#include <Eigen/Core>

namespace EigenQ {
namespace internal {

/** What a quantised expression denotes: factor·op(weights), op the transpose or nothing. */
struct QuantizedView {
  WeightView weights;
  bool transposed = false;
  float factor = 1;

  QuantizedView transpose() const { return {weights, !transposed, factor}; }
  QuantizedView scaled(float by) const { return {weights, transposed, factor * by}; }
  QuantizedView block(Index row, Index col, Index rows, Index cols) const {
    return {transposed ? weights.window(col, row, cols, rows) : weights.window(row, col, rows, cols), transposed,
            factor};
  }
  float coeff(Index i, Index j) const { return factor * (transposed ? weights.coeff(j, i) : weights.coeff(i, j)); }
};

/** From an expression to its view; Transpose and Block are Eigen's classes and know nothing of ours. */
template <typename Xpr>
struct QuantizedAccess {
  static QuantizedView view(const Xpr& x) { return x.quantizedView(); }
};
template <typename Xpr>
struct QuantizedAccess<const Xpr> : QuantizedAccess<Xpr> {};
template <typename Nested>
struct QuantizedAccess<Eigen::Transpose<Nested>> {
  static QuantizedView view(const Eigen::Transpose<Nested>& x) {
    return QuantizedAccess<Nested>::view(x.nestedExpression()).transpose();
  }
};
template <typename Nested, int BlockRows, int BlockCols, bool InnerPanel>
struct QuantizedAccess<Eigen::Block<Nested, BlockRows, BlockCols, InnerPanel>> {
  static QuantizedView view(const Eigen::Block<Nested, BlockRows, BlockCols, InnerPanel>& x) {
    return QuantizedAccess<Nested>::view(x.nestedExpression()).block(x.startRow(), x.startCol(), x.rows(), x.cols());
  }
};

}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_QUANTIZEDVIEW_H
