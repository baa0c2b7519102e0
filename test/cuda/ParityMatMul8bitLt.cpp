// SPDX-License-Identifier: MPL-2.0
// The int8 linear layer's passes on the device against the host: every branch, and the state between them.
#define BOOST_TEST_MODULE cuda_ParityMatMul8bitLt
#include "Parity.h"

#include <boost/mpl/list.hpp>

#include <array>

using namespace EigenQ;
using namespace EigenQ::test;

namespace {

using Scalars = boost::mpl::list<float, Eigen::half, Eigen::bfloat16>;

struct Sizes {
  Index m, n, k;
};
/** One token, few, many; nothing a multiple of 4, and all of 16. */
constexpr Sizes kSizes[] = {{1, 7, 33}, {6, 1, 20}, {13, 70, 129}, {48, 64, 160}, {300, 66, 70}};

/** Values in [-1, 1], and in columns 3 and k - 2 also magnitudes of 20 and 8. */
template <typename Scalar>
ColMatrix<Scalar> withOutliers(Index m, Index k) {
  Eigen::MatrixXf a = Eigen::MatrixXf::Random(m, k);
  a(m / 2, 3) = 20;
  a(m - 1, k - 2) = -8;
  return a.cast<Scalar>();
}

template <typename Scalar>
ColMatrix<Scalar> random(Index rows, Index cols) {
  return Eigen::MatrixXf(Eigen::MatrixXf::Random(rows, cols)).cast<Scalar>();
}

/** Options of a state: of both states, of the host and of the device. */
struct Options {
  float threshold = 0;
  bool floatWeights = true;
  bool viaDense = true;
  bool noIgemmlt = false;
  TileOrder layout = TileOrder::kRow;

  template <typename State>
  void set(State& state) const {
    state.threshold = threshold;
    state.hasFp16Weights = floatWeights;
    state.memoryEfficientBackward = viaDense;
    state.forceNoIgemmlt = noIgemmlt;
    state.layout = layout;
  }
  std::string name() const {
    return "threshold " + std::to_string(threshold) + (floatWeights ? ", float weights" : ", codes only") +
           (viaDense ? "" : ", transposed codes") + (noIgemmlt ? ", no integer product" : "") +
           (layout == TileOrder::kRow ? "" : ", tiled");
  }
};

std::vector<Options> everyBranch() {
  std::vector<Options> all;
  for (const float threshold : {0.0f, 6.0f, 100.0f}) {
    all.push_back({threshold});
    all.push_back({threshold, false});
  }
  all.push_back({6, true, false});
  all.push_back({6, true, true, true});
  all.push_back({6, true, true, false, TileOrder::kColAmpere});
  all.push_back({6, false, true, true, TileOrder::kColTuring});
  return all;
}

void expectSameState(const std::string& what, const gpu::MatmulLtState& found, const MatmulLtState& expected) {
  const auto ints = [](const auto& codes) { return codes.template cast<int>().eval(); };
  // A part that is absent is 0x1 where it is a vector on the host, and 0x0 otherwise.
  const auto expectSamePart = [&](const char* part, const auto& f, const auto& e) {
    if (f.size() > 0 || e.size() > 0) expectSame(what + ", " + part, f, e);
  };
  expectSamePart("codes", ints(found.codes.toHost()), ints(expected.codes));
  expectSamePart("tiled codes", ints(found.tiledCodes.buffer.toHost()), ints(expected.tiledCodes.buffer));
  expectSamePart("statistics", found.rowStats.toHost(), expected.rowStats);
  expectSamePart("transposed codes", ints(found.transposedCodes.toHost()), ints(expected.transposedCodes));
  expectSamePart("transposed statistics", found.transposedStats.toHost(), expected.transposedStats);
  expectSamePart("outlier columns", found.outlierColumns.toHost(), expected.outlierColumns);
}

/** Between exact integer sums that are scaled in double and rounded once, and those that int8.wgmma scales in float:
 * five roundings there, the last when the bias is added. */
template <typename Scalar, typename Y>
Eigen::ArrayXXd scaledSums(const Y& y, double largestBias = 0) {
  const Eigen::ArrayXXd size = y.template cast<double>().array().abs() + 2 * largestBias;
  return twoRoundings<Scalar>(y, 5 * unitRoundoff<float>() * size);
}

template <typename M>
double largest(const M& m) {
  return m.size() == 0 ? 0 : static_cast<double>(m.template cast<float>().cwiseAbs().maxCoeff());
}

/** Of float sums of \a terms products |a||b|, whose order may differ, and of weights that are rounded to Scalar. */
template <typename Scalar, typename A, typename B>
Eigen::ArrayXXd floatSumSlack(const A& a, const B& b) {
  const double weights = std::is_same<Scalar, float>::value ? 0 : unitRoundoff<Scalar>();
  return (4 * gammaFloat(a.cols() + 4) + weights) *
         (a.template cast<double>().cwiseAbs() * b.template cast<double>().cwiseAbs()).array();
}

/** The rows that a state's codes stand for. */
Eigen::MatrixXf decoded(const MatmulLtState& state) {
  const Int8Codes codes = state.codes.size() != 0 ? state.codes : fromTiles(state.tiledCodes);
  return int8VectorwiseDequant(codes, state.rowStats);
}

/** What lies between two right answers of the forward pass. */
template <typename Scalar, typename A, typename Y>
Eigen::ArrayXXd forwardBound(const Options& options, const A& a, const MatmulLtState& state, const Y& y,
                             double largestBias = 0) {
  if (options.noIgemmlt) return twoRoundings<Scalar>(y, floatSumSlack<Scalar>(a, decoded(state).transpose()));
  Eigen::ArrayXXd outliers = Eigen::ArrayXXd::Zero(y.rows(), y.cols());
  const Eigen::MatrixXf w = decoded(state);
  for (const Index k : state.outlierColumns)
    outliers += (a.col(k).template cast<double>().cwiseAbs() * w.col(k).cast<double>().cwiseAbs().transpose()).array();
  if (state.outlierColumns.size() == 0) return scaledSums<Scalar>(y, largestBias);
  const double roundings = static_cast<double>(2 * state.outlierColumns.size() + 4);
  // Weights kept in float are within a step of those of the codes.
  return twoRoundings<Scalar>(y, 2 * roundings * unitRoundoff<float>() * (1.1 * outliers + 1));
}

template <typename Scalar>
void everyPass(const Sizes& size, const Options& options, int layout) {
  const auto& [m, n, k] = size;
  const Mirrored<Scalar> a(withOutliers<Scalar>(m, k), layout), b(random<Scalar>(n, k), layout + 1),
      g(random<Scalar>(m, n), layout + 2), bias(random<Scalar>(n, 1), 0);
  const std::string what =
      std::string(nameOf<Scalar>()) + " " + shapeOf(m, k) + " to " + std::to_string(n) + ", " + options.name();
  MatmulLtState state;
  gpu::MatmulLtState deviceState;
  options.set(state);
  options.set(deviceState);

  const auto y = matMul8bitLt(a.host(), b.host(), state);
  const auto deviceY = gpu::matMul8bitLt(a.device(), b.device(), deviceState);
  expectSameState(what, deviceState, state);
  expectWithin(what, deviceY.toHost(), y, forwardBound<Scalar>(options, a.host(), state, y));
  const auto yb = matMul8bitLt(a.host(), b.host(), state, bias.host());
  expectWithin(what + " + bias", gpu::matMul8bitLt(a.device(), b.device(), deviceState, bias.device()).toHost(), yb,
               forwardBound<Scalar>(options, a.host(), state, yb, largest(bias.host())));
  if (!options.floatWeights) {
    expectWithin(what + ", no weight", gpu::matMul8bitLt(a.device(), deviceState).toHost(), y,
                 forwardBound<Scalar>(options, a.host(), state, y));
  }

  const auto expected = matMul8bitLtBackward(g.host(), a.host(), state, state.outlierColumns);
  const auto found = gpu::matMul8bitLtBackward(g.device(), a.device(), deviceState, deviceState.outlierColumns);
  const Eigen::ArrayXXd dense = twoRoundings<Scalar>(expected.a, floatSumSlack<Scalar>(g.host(), decoded(state)));
  expectWithin(what + ", gradient of A", found.a.toHost(), expected.a,
               options.viaDense || options.noIgemmlt ? dense : scaledSums<Scalar>(expected.a));
  Eigen::ArrayXXd bound = scaledSums<Scalar>(expected.b);
  if (options.noIgemmlt) {
    bound = twoRoundings<Scalar>(expected.b, floatSumSlack<Scalar>(ColMatrix<Scalar>(g.host().transpose()), a.host()));
  }
  for (const Index column : state.outlierColumns)  // sums in double
    bound.col(column) = twoRoundings<Scalar>(expected.b.col(column), Eigen::ArrayXXd::Constant(n, 1, 1e-12));
  expectWithin(what + ", gradient of B", found.b.toHost(), expected.b, bound);
  expectWithin(what + ", gradient of the bias", found.bias.toHost(), expected.bias,
               twoRoundings<Scalar>(expected.bias, Eigen::ArrayXXd::Constant(n, 1, 1e-12)));
}

}  // namespace

BOOST_AUTO_TEST_SUITE(parity, *needsDevice())

BOOST_AUTO_TEST_CASE_TEMPLATE(everyBranchOfEveryPass, Scalar, Scalars) {
  int layout = 0;
  for (const Sizes& size : kSizes)
    for (const Options& options : everyBranch()) everyPass<Scalar>(size, options, layout++);
}

// Weights and biases of other types than the activations'.
BOOST_AUTO_TEST_CASE(mixedTypes) {
  const Mirrored<Eigen::bfloat16> a(withOutliers<Eigen::bfloat16>(9, 40), 0);
  const Mirrored<float> b(random<float>(12, 40), 1), bias(random<float>(12, 1), 0);
  const Mirrored<Eigen::half> halfBias(random<Eigen::half>(12, 1), 0);
  MatmulLtState state;
  gpu::MatmulLtState deviceState;
  Options options{6};
  options.set(state);
  options.set(deviceState);
  const auto y = matMul8bitLt(a.host(), b.host(), state, bias.host());
  expectWithin("float bias of a bfloat16 product",
               gpu::matMul8bitLt(a.device(), b.device(), deviceState, bias.device()).toHost(), y,
               forwardBound<Eigen::bfloat16>(options, a.host(), state, y, largest(bias.host())));
  expectSameState("float weights", deviceState, state);
  const auto row = gpu::DeviceMatrix<Eigen::half>::fromHost(halfBias.host().transpose().eval());
  const auto yh = matMul8bitLt(a.host(), b.host(), state, halfBias.host());
  expectWithin("half bias, in a row", gpu::matMul8bitLt(a.device(), b.device(), deviceState, row).toHost(), yh,
               forwardBound<Eigen::bfloat16>(options, a.host(), state, yh, largest(halfBias.host())));
}

BOOST_AUTO_TEST_CASE(codesAreReusedAsOnTheHost) {
  const Mirrored<float> a(random<float>(4, 16), 0), first(random<float>(5, 16), 0), second(2 * first.host(), 1);
  for (int bits = 0; bits < 8; ++bits) {
    MatmulLtState state;
    gpu::MatmulLtState deviceState;
    const auto run = [&](auto& s, const auto& x, const auto& before, const auto& after, const auto& product) {
      s.hasFp16Weights = bits & 1;
      s.isTraining = bits & 2;
      product(x, before, s);
      s.hasAccumulatedGradients = bits & 4;
      product(x, after, s);
    };
    run(state, a.host(), first.host(), second.host(),
        [](const auto& x, const auto& w, auto& s) { (void)matMul8bitLt(x, w, s); });
    run(deviceState, a.device(), first.device(), second.device(),
        [](const auto& x, const auto& w, auto& s) { (void)gpu::matMul8bitLt(x, w, s); });
    expectSameState("flags " + std::to_string(bits), deviceState, state);
    deviceState.resetGrads();
    BOOST_TEST(!deviceState.hasCodes());
  }
}

BOOST_AUTO_TEST_CASE(outliersAreSharedThroughAPool) {
  GlobalOutlierPooler pool, devicePool;
  const Mirrored<float> a(withOutliers<float>(7, 40), 0), plain(random<float>(7, 40), 1), b(random<float>(12, 40), 0);
  for (const float threshold : {6.0f, 0.0f}) {  // without a threshold, what the pool has is taken all the same
    for (const auto* x : {&a, &plain}) {
      MatmulLtState state;
      gpu::MatmulLtState deviceState;
      state.usePool = deviceState.usePool = true;
      state.threshold = deviceState.threshold = threshold;
      state.outlierPool = &pool;
      deviceState.outlierPool = &devicePool;
      const auto y = matMul8bitLt(x->host(), b.host(), state);
      const auto found = gpu::matMul8bitLt(x->device(), b.device(), deviceState);
      expectSameState("pooled", deviceState, state);
      BOOST_TEST(state.outlierColumns.size() == 2);
      expectWithin("pooled", found.toHost(), y, forwardBound<float>({threshold}, x->host(), state, y));
      expectSame("pool", devicePool.currentOutlierIndices(), pool.currentOutlierIndices());
    }
  }
}

BOOST_AUTO_TEST_CASE(specialValues) {
  for (const float threshold : {0.0f, 6.0f}) {
    Eigen::MatrixXf x = withOutliers<float>(9, 36), w = random<float>(8, 36);
    x(0, 5) = kNaN;
    x(1, 6) = kInfinity;
    x.row(2).setZero();
    x.row(4) *= 1e-38f;
    x.row(5) *= 1e36f;
    w(3, 7) = kNaN;
    w.row(6).setZero();
    const Mirrored<float> a(x, 0), b(w, 1);
    MatmulLtState state;
    gpu::MatmulLtState deviceState;
    state.threshold = deviceState.threshold = threshold;
    const auto y = matMul8bitLt(a.host(), b.host(), state);
    const auto found = gpu::matMul8bitLt(a.device(), b.device(), deviceState);
    expectSameState("special values", deviceState, state);
    if (threshold == 0) {
      expectSame("special values", found.toHost(), y);
    } else {
      const Eigen::ArrayXXd terms =
          (x.cast<double>().cwiseAbs() * w.cast<double>().cwiseAbs().transpose()).array() * 256 * 0x1p-24;
      expectWithin("special values, outliers", found.toHost(), y, terms.isFinite().select(terms, 1.0) + 1e-30);
    }
  }
}

BOOST_AUTO_TEST_CASE(emptyOperands) {
  for (const auto& [m, n, k] : {Sizes{0, 5, 8}, Sizes{4, 0, 8}, Sizes{4, 5, 0}}) {
    const Mirrored<float> a(random<float>(m, k), 1), b(random<float>(n, k), 0), g(random<float>(m, n), 1),
        bias(random<float>(n, 1), 0);
    for (const float threshold : {0.0f, 6.0f}) {
      const std::string what = shapeOf(m, k) + " to " + std::to_string(n);
      MatmulLtState state;
      gpu::MatmulLtState deviceState;
      state.threshold = deviceState.threshold = threshold;
      expectSame(what, gpu::matMul8bitLt(a.device(), b.device(), deviceState, bias.device()).toHost(),
                 matMul8bitLt(a.host(), b.host(), state, bias.host()));
      expectSameState(what, deviceState, state);
      const auto expected = matMul8bitLtBackward(g.host(), a.host(), state, state.outlierColumns);
      const auto found = gpu::matMul8bitLtBackward(g.device(), a.device(), deviceState, deviceState.outlierColumns);
      expectSame(what + ", gradient of A", found.a.toHost(), expected.a);
      expectSame(what + ", gradient of B", found.b.toHost(), expected.b);
      expectSame(what + ", gradient of the bias", found.bias.toHost(), expected.bias);
    }
  }
}

BOOST_AUTO_TEST_CASE(aBatchIsOneMatrixOfAllItsRows) {
  std::vector<Eigen::MatrixXf> batch = {withOutliers<float>(3, 24), random<float>(5, 24), random<float>(1, 24)};
  std::vector<gpu::DeviceMatrix<float>> deviceBatch;
  for (const Eigen::MatrixXf& x : batch) deviceBatch.push_back(gpu::DeviceMatrix<float>::fromHost(x));
  const Mirrored<float> b(random<float>(6, 24), 0);
  MatmulLtState state;
  gpu::MatmulLtState deviceState;
  state.threshold = deviceState.threshold = 6;
  const auto expected = matMul8bitLt(batch, b.host(), state);
  const auto found = gpu::matMul8bitLt(deviceBatch, b.device(), deviceState);
  expectSameState("batch", deviceState, state);
  BOOST_TEST_REQUIRE(found.size() == expected.size());
  for (std::size_t i = 0; i < found.size(); ++i)
    expectWithin("matrix " + std::to_string(i), found[i].toHost(), expected[i],
                 forwardBound<float>({6}, batch[i], state, expected[i]));
}

BOOST_AUTO_TEST_CASE(badInputIsRefused) {
  const Mirrored<float> a(random<float>(4, 8), 0), b(random<float>(5, 8), 0);
  gpu::MatmulLtState state;
  for (const float threshold : {-1.0f, kNaN}) {
    state.threshold = threshold;
    BOOST_CHECK_THROW(gpu::matMul8bitLt(a.device(), b.device(), state), std::invalid_argument);
  }
  state.threshold = 0;
  (void)gpu::matMul8bitLt(a.device(), b.device(), state);
  state.isTraining = false;
  const Mirrored<float> wider(random<float>(4, 9), 0), widerWeight(random<float>(5, 9), 0);
  BOOST_CHECK_THROW(gpu::matMul8bitLt(wider.device(), widerWeight.device(), state), FormatError);
}

BOOST_AUTO_TEST_CASE(theDispatcher) {
  const Mirrored<float> a(withOutliers<float>(7, 40), 0), b(random<float>(12, 40), 0);
  MatmulLtState state;
  const auto y = matmul(a.host(), b.host(), state, 6);
  expectWithin("matmul", gpu::matmul(a.device(), b.device(), 6).toHost(), y,
               forwardBound<float>({6}, a.host(), state, y));
}

BOOST_AUTO_TEST_CASE(runsRepeatToTheBit) {
  const Mirrored<Eigen::half> a(withOutliers<Eigen::half>(65, 200), 0), b(random<Eigen::half>(96, 200), 0),
      g(random<Eigen::half>(65, 96), 1);
  const auto run = [&] {
    gpu::MatmulLtState state;
    state.threshold = 6;
    Eigen::MatrixXf all(65, 96), weight(96, 200);
    all = gpu::matMul8bitLt(a.device(), b.device(), state).toHost().cast<float>();
    weight = gpu::matMul8bitLtGradB(g.device(), a.device(), state, state.outlierColumns).toHost().cast<float>();
    return std::make_pair(all, weight);
  };
  const auto first = run(), second = run();
  expectSame("forward", second.first, first.first);
  expectSame("gradient of B", second.second, first.second);
}

BOOST_AUTO_TEST_SUITE_END()
