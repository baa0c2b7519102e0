// SPDX-License-Identifier: MPL-2.0
// The passes of an int8 linear layer on views: what the plain functions of MatMul8bitLt.h and the tape's op share.
#ifndef EIGENQ_INT8LINEAR_H
#define EIGENQ_INT8LINEAR_H

#include <string>
#include <vector>

#include <Eigen/Core>

#include "EigenViews.h"
#include "Int8Product.h"
#include "MatmulLtState.h"

namespace EigenQ {
namespace internal {

inline void requireState(bool holds, const char* key, const std::string& message) {
  if (!holds) throw FormatError("MatmulLtState", key, message);
}

inline std::string shapeText(Index rows, Index cols) { return std::to_string(rows) + "x" + std::to_string(cols); }

/** The row-major codes of a state, untiled for as long as this lives. */
class StateCodes {
 public:
  explicit StateCodes(const MatmulLtState& state)
      : m_state(state), m_tiled(state.codes.size() == 0 && state.tiledCodes.buffer.size() != 0) {
    if (m_tiled) m_untiled = fromTiles(state.tiledCodes);
    requireState(
        state.rowStats.size() == codes().rows(), "rowStats",
        "expected " + std::to_string(codes().rows()) + " entries, found " + std::to_string(state.rowStats.size()));
  }
  StateCodes(const StateCodes&) = delete;
  StateCodes& operator=(const StateCodes&) = delete;

  const Int8Codes& codes() const { return m_tiled ? m_untiled : m_state.codes; }
  WeightView view() const {
    return WeightView::int8(codes().data(), codes().rows(), codes().cols(), codes().cols(), m_state.rowStats.data());
  }

 private:
  const MatmulLtState& m_state;
  bool m_tiled;
  Int8Codes m_untiled;
};

/** Row-wise codes and statistics of \a w. */
inline void quantizeWeight(const ConstDenseView& w, Int8Codes& codes, Eigen::VectorXf& stats) {
  codes.resize(w.rows, w.cols);
  stats.resize(w.rows);
  quantizeInt8Rows(w, 0, codes.data(), stats.data(), nullptr);
  markRowsWithNaN(w, stats.data());
}

/** Makes the codes of \a w where the state has none, or where a trained weight has moved on. */
inline void updateCodes(const ConstDenseView& w, MatmulLtState& state) {
  const bool moved = state.hasFp16Weights && state.isTraining && !state.hasAccumulatedGradients;
  if (state.hasCodes() && !moved) return;
  quantizeWeight(w, state.codes, state.rowStats);
  state.tiledCodes = TiledBuffer<std::int8_t>();
  if (state.layout != TileOrder::kRow && w.cols > 0) {
    state.tiledCodes = toTiles(state.codes, state.layout);
    state.codes.resize(0, 0);
  }
  if (state.hasFp16Weights && !state.memoryEfficientBackward) {
    quantizeWeight(w.transpose(), state.transposedCodes, state.transposedStats);
  } else {
    state.transposedCodes.resize(0, 0);
    state.transposedStats.resize(0);
  }
}

/** Adds what \a a found to the state's pool, and what the pool holds to \a a. */
inline void poolOutliers(const MatmulLtState& state, Index features, Int8Activations& a) {
  GlobalOutlierPooler& pool = state.outlierPool ? *state.outlierPool : GlobalOutlierPooler::instance();
  pool.addOutliers(toIndexVector(a.outliers), features);
  if (pool.modelDim() != features) return;
  const IndexVector pooled = pool.currentOutlierIndices();
  addOutliers(std::vector<Index>(pooled.data(), pooled.data() + pooled.size()), features, a);
}

/** Y = epilogue(X·Wᵀ) for tokens as rows: X m×k, Y m×n. \param w  n×k in float; no data where only codes are kept. */
inline void int8LinearForward(const ConstDenseView& x, const ConstDenseView& w, MatmulLtState& state,
                              const DenseView& y, const Epilogue& epilogue) {
  if (!(state.threshold >= 0))
    throw std::invalid_argument("MatmulLtState: threshold: expected 0 or more, found " +
                                std::to_string(state.threshold));
  state.outlierColumns.resize(0);  // never those of an earlier call
  if (y.cols == 0) return;
  if (w.rows > 0) updateCodes(w, state);
  requireState(state.hasCodes(), "codes", "expected those of the weight, found none");
  const StateCodes codes(state);
  requireState(
      codes.codes().rows() == y.cols && codes.codes().cols() == x.cols, "codes",
      "expected " + shapeText(y.cols, x.cols) + ", found " + shapeText(codes.codes().rows(), codes.codes().cols()));
  if (state.forceNoIgemmlt) return lower({x, codes.view(), true, y, epilogue});
  Int8Activations a = quantizeActivations(x, state.threshold);
  if (state.usePool) poolOutliers(state, x.cols, a);
  state.outlierColumns = toIndexVector(a.outliers);
  DecomposedProduct product;
  product.activations = &a;
  product.x = x;
  product.w = codes.view();
  if (state.hasFp16Weights) product.outlierWeights = w;
  product.y = y;
  product.epilogue = epilogue;
  multiplyDecomposed(product);
}

/** Ȳ·Ŵ, or the product of the transposed codes with those of Ȳ. \param g  m×n   \param dx  m×k */
inline void int8LinearInputGradient(const ConstDenseView& g, const MatmulLtState& state, const DenseView& dx,
                                    const Epilogue& epilogue) {
  if (state.transposedCodes.size() == 0 || state.forceNoIgemmlt) {
    requireState(state.hasCodes() || g.cols == 0, "codes", "expected those of the weight, found none");
    const StateCodes codes(state);
    return lower({g, codes.view(), false, dx, epilogue});
  }
  const Int8Activations a = quantizeActivations(g, 0);
  DecomposedProduct product;
  product.activations = &a;
  product.x = g;
  product.w = WeightView::int8(state.transposedCodes.data(), state.transposedCodes.rows(), state.transposedCodes.cols(),
                               state.transposedCodes.cols(), state.transposedStats.data());
  product.y = dx;
  product.epilogue = epilogue;
  multiplyDecomposed(product);
}

/** Ȳᵀ·X for tokens as rows, both factors quantised over the tokens, but for the columns \a outliers of X, which are
 * multiplied as they are. \param dw  n×k */
inline void int8LinearWeightGradient(const ConstDenseView& g, const ConstDenseView& x, const IndexVector& outliers,
                                     const DenseView& dw, const Epilogue& epilogue) {
  const Int8Activations gt = quantizeActivations(g.transpose(), 0);
  Int8Activations xt = quantizeActivations(x.transpose(), 0);
  // Features of X are rows here: an outlier feature drops out of the integer product by its scale and its codes.
  for (const Index k : outliers) {
    std::fill_n(xt.codes.begin() + k * x.rows, x.rows, std::int8_t{0});
    xt.rowStats[static_cast<std::size_t>(k)] = 0;
  }
  DecomposedProduct product;
  product.activations = &gt;
  product.x = g.transpose();
  product.w = WeightView::int8(xt.codes.data(), x.cols, x.rows, x.rows, xt.rowStats.data());
  product.y = dw;
  product.epilogue = epilogue;
  multiplyDecomposed(product);
}

}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_INT8LINEAR_H
