// SPDX-License-Identifier: MPL-2.0
// The passes of an int8 linear layer on views, wherever they lie: what the plain functions of MatMul8bitLt.h, those of
// EigenQ::gpu and the tape's op share.
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

/** What the passes are made of where matrices lie on the host. */
struct HostInt8Linear {
  using State = MatmulLtState;
  using Codes = Int8Codes;

  static void quantizeWeight(const ConstDenseView& w, Int8Codes& codes, Eigen::VectorXf& stats) {
    codes.resize(w.rows, w.cols);
    stats.resize(w.rows);
    quantizeInt8Rows(w, 0, codes.data(), stats.data(), nullptr);
    markRowsWithNaN(w, stats.data());
  }
  static WeightView weight(const Int8Codes& codes, const Eigen::VectorXf& stats) {
    return WeightView::int8(codes.data(), codes.rows(), codes.cols(), codes.cols(), stats.data());
  }
  static auto tiled(const Int8Codes& codes, TileOrder order) { return toTiles(codes, order); }
  static Int8Codes untiled(const TiledBuffer<std::int8_t>& codes) { return fromTiles(codes); }

  /** Rows of activations as codes. */
  class Activations {
   public:
    Activations(const HostInt8Linear&, const ConstDenseView& x, float threshold = 0)
        : m_x(x), m_codes(quantizeActivations(x, threshold)) {}

    IndexVector outliers() const { return toIndexVector(m_codes.outliers); }
    void addOutliers(const IndexVector& columns) {
      internal::addOutliers(std::vector<Index>(columns.data(), columns.data() + columns.size()), m_x.cols, m_codes);
    }
    /** Rows that drop out of products by their scale and their codes. */
    template <typename Integers>
    void clearRows(const Integers& rows) {
      for (const Index k : rows) {
        std::fill_n(m_codes.codes.begin() + k * m_x.cols, m_x.cols, std::int8_t{0});
        m_codes.rowStats[static_cast<std::size_t>(k)] = 0;
      }
    }
    WeightView asWeight() const {
      return WeightView::int8(m_codes.codes.data(), m_x.rows, m_x.cols, m_x.cols, m_codes.rowStats.data());
    }
    void multiply(const WeightView& w, const ConstDenseView& outlierWeights, const DenseView& y,
                  const Epilogue& epilogue) const {
      multiplyDecomposed({&m_codes, m_x, w, outlierWeights, y, epilogue});
    }

   private:
    ConstDenseView m_x;
    Int8Activations m_codes;
  };
  /** Activations whose outlier columns are to be kept in \a state. */
  Activations activations(const ConstDenseView& x, const MatmulLtState& state) const {
    return {*this, x, state.threshold};
  }
  static void keepOutliers(const Activations& a, MatmulLtState& state) { state.outlierColumns = a.outliers(); }

  static void multiply(const QuantizedProduct& product) { lower(product); }
};

/** The row-major codes of a state, untiled for as long as this lives. */
template <typename Ops>
class StateCodes {
 public:
  StateCodes(const Ops& ops, const typename Ops::State& state)
      : m_ops(ops), m_state(state), m_tiled(state.codes.size() == 0 && state.tiledCodes.buffer.size() != 0) {
    if (m_tiled) m_untiled = ops.untiled(state.tiledCodes);
    requireState(
        state.rowStats.size() == codes().rows(), "rowStats",
        "expected " + std::to_string(codes().rows()) + " entries, found " + std::to_string(state.rowStats.size()));
  }
  StateCodes(const StateCodes&) = delete;
  StateCodes& operator=(const StateCodes&) = delete;

  const typename Ops::Codes& codes() const { return m_tiled ? m_untiled : m_state.codes; }
  WeightView view() const { return m_ops.weight(codes(), m_state.rowStats); }

 private:
  const Ops& m_ops;
  const typename Ops::State& m_state;
  bool m_tiled;
  typename Ops::Codes m_untiled;
};

/** Makes the codes of \a w where the state has none, or where a trained weight has moved on. */
template <typename Ops>
void updateCodes(const Ops& ops, const ConstDenseView& w, typename Ops::State& state) {
  const bool moved = state.hasFp16Weights && state.isTraining && !state.hasAccumulatedGradients;
  if (state.hasCodes() && !moved) return;
  ops.quantizeWeight(w, state.codes, state.rowStats);
  state.tiledCodes = decltype(state.tiledCodes)();
  if (state.layout != TileOrder::kRow && w.cols > 0) {
    state.tiledCodes = ops.tiled(state.codes, state.layout);
    state.codes.resize(0, 0);
  }
  if (state.hasFp16Weights && !state.memoryEfficientBackward) {
    ops.quantizeWeight(w.transpose(), state.transposedCodes, state.transposedStats);
  } else {
    state.transposedCodes.resize(0, 0);
    state.transposedStats.resize(0, 1);
  }
}

/** Adds what \a a found to the state's pool, and what the pool holds to \a a. The pool lies on the host: on a device
 * this waits for what was found. */
template <typename State, typename Activations>
void poolOutliers(const State& state, Index features, Activations& a) {
  GlobalOutlierPooler& pool = state.outlierPool ? *state.outlierPool : GlobalOutlierPooler::instance();
  pool.addOutliers(a.outliers(), features);
  if (pool.modelDim() == features) a.addOutliers(pool.currentOutlierIndices());
}

/** Y = epilogue(X·Wᵀ) for tokens as rows: X m×k, Y m×n. \param w  n×k in float; no data where only codes are kept. */
template <typename Ops>
void int8LinearForward(const Ops& ops, const ConstDenseView& x, const ConstDenseView& w, typename Ops::State& state,
                       const DenseView& y, const Epilogue& epilogue) {
  if (!(state.threshold >= 0))
    throw std::invalid_argument("MatmulLtState: threshold: expected 0 or more, found " +
                                std::to_string(state.threshold));
  state.outlierColumns.resize(0);  // never those of an earlier call
  if (y.cols == 0) return;
  if (w.rows > 0) updateCodes(ops, w, state);
  requireState(state.hasCodes(), "codes", "expected those of the weight, found none");
  const StateCodes<Ops> codes(ops, state);
  requireState(
      codes.codes().rows() == y.cols && codes.codes().cols() == x.cols, "codes",
      "expected " + shapeText(y.cols, x.cols) + ", found " + shapeText(codes.codes().rows(), codes.codes().cols()));
  if (state.forceNoIgemmlt) return ops.multiply({x, codes.view(), true, y, epilogue});
  auto a = ops.activations(x, state);
  if (state.usePool) poolOutliers(state, x.cols, a);
  ops.keepOutliers(a, state);
  a.multiply(codes.view(), state.hasFp16Weights ? w : ConstDenseView(), y, epilogue);
}

/** Ȳ·Ŵ, or the product of the transposed codes with those of Ȳ. \param g  m×n   \param dx  m×k */
template <typename Ops>
void int8LinearInputGradient(const Ops& ops, const ConstDenseView& g, const typename Ops::State& state,
                             const DenseView& dx, const Epilogue& epilogue) {
  if (state.transposedCodes.size() == 0 || state.forceNoIgemmlt) {
    requireState(state.hasCodes() || g.cols == 0, "codes", "expected those of the weight, found none");
    const StateCodes<Ops> codes(ops, state);
    return ops.multiply({g, codes.view(), false, dx, epilogue});
  }
  const typename Ops::Activations a(ops, g);
  a.multiply(ops.weight(state.transposedCodes, state.transposedStats), {}, dx, epilogue);
}

/** Ȳᵀ·X for tokens as rows, both factors quantised over the tokens, but for the columns \a outliers of X, whose columns
 * of the result are the epilogue's of zero. \param dw  n×k */
template <typename Ops, typename Columns>
void int8LinearWeightGradient(const Ops& ops, const ConstDenseView& g, const ConstDenseView& x, const Columns& outliers,
                              const DenseView& dw, const Epilogue& epilogue) {
  const typename Ops::Activations gt(ops, g.transpose());
  typename Ops::Activations xt(ops, x.transpose());
  xt.clearRows(outliers);  // features of X are rows here
  gt.multiply(xt.asWeight(), {}, dw, epilogue);
}

}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_INT8LINEAR_H
