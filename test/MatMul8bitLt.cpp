// SPDX-License-Identifier: MPL-2.0
// The int8 linear layer's passes, the state between them, the outlier pool and what a device must be for them.
#define BOOST_TEST_MODULE MatMul8bitLt
#include <boost/test/unit_test.hpp>

#include "support/Bounds.h"

#include <eigen_q/Core>

#include <limits>
#include <thread>

using namespace EigenQ;
using namespace EigenQ::test;
using Eigen::MatrixXd;
using Eigen::MatrixXf;
using Eigen::VectorXf;

namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();

std::vector<Index> indices(const IndexVector& v) { return {v.begin(), v.end()}; }

/** Values in [-1, 1], and in columns 3 and k - 2 also magnitudes of 20 and 8. */
MatrixXf withOutliers(Index m, Index k) {
  MatrixXf a = MatrixXf::Random(m, k);
  a(m / 2, 3) = 20;
  a(m - 1, k - 2) = -8;
  return a;
}

MatrixXd decodedRows(const MatrixXf& w) {
  const Int8Quantized q = int8VectorwiseQuant(w);
  MatrixXd d = q.codes.cast<double>();
  for (Index i = 0; i < d.rows(); ++i) d.row(i) *= double(q.rowStats[i]) / 127;
  return d;
}

/** The definition: codes of A and B, but for the columns that hold an outlier. \param outlierWeights  used there */
MatrixXd definition(const MatrixXf& a, const MatrixXf& b, float threshold, const MatrixXd& outlierWeights) {
  const Int8Quantized q = int8VectorwiseQuant(a, threshold);
  MatrixXd da = q.codes.cast<double>();
  for (Index i = 0; i < da.rows(); ++i) da.row(i) *= double(q.rowStats[i]) / 127;
  MatrixXd y = da * decodedRows(b).transpose();
  for (const Index k : q.outlierColumns) y += a.col(k).cast<double>() * outlierWeights.col(k).transpose();
  return y;
}

/** One rounding of the result, a few of the outlier sum. */
template <typename Y>
void expectProduct(const char* what, const Y& y, const MatrixXd& exact, double largestTerm) {
  using Scalar = typename Y::Scalar;
  BOOST_TEST_REQUIRE((y.rows() == exact.rows() && y.cols() == exact.cols()));
  const Eigen::ArrayXXd error = (y.template cast<double>() - exact).array().abs();
  const double sums = gammaFloat(8) * largestTerm;
  BOOST_TEST((error <= unitRoundoff<Scalar>() * exact.array().abs() + sums + smallestError<Scalar>()).all(),
             what << ": off by " << error.maxCoeff());
}

template <typename Scalar>
void everyForwardBranch() {
  using Matrix = Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic>;
  for (const auto& [m, n, k] : {std::array<Index, 3>{1, 7, 33}, {6, 1, 20}, {13, 70, 129}}) {
    const Matrix a = withOutliers(m, k).template cast<Scalar>(),
                 b = MatrixXf(MatrixXf::Random(n, k)).template cast<Scalar>();
    const MatrixXf fa = a.template cast<float>(), fb = b.template cast<float>();
    const VectorXf bias = VectorXf::Random(n);
    const MatrixXd biasRows = bias.cast<double>().transpose().replicate(m, 1);
    for (const float threshold : {0.0f, 6.0f, 100.0f}) {
      for (const bool floatWeights : {true, false}) {
        for (const bool training : {true, false}) {
          MatmulLtState state;
          state.threshold = threshold;
          state.hasFp16Weights = floatWeights;
          state.isTraining = training;
          const MatrixXd exact =
              definition(fa, fb, threshold, floatWeights ? MatrixXd(fb.cast<double>()) : decodedRows(fb));
          expectProduct("A*B'", matMul8bitLt(a, b, state), exact, 25);
          expectProduct("A*B' + b", matMul8bitLt(a, b, state, bias), exact + biasRows, 25);
          const std::size_t outliers = threshold == 6 ? 2 : 0;
          BOOST_TEST(indices(state.outlierColumns).size() == outliers);
        }
      }
      MatmulLtState codesOnly;
      codesOnly.threshold = threshold;
      codesOnly.hasFp16Weights = false;
      const Int8Quantized q = int8VectorwiseQuant(fb);
      codesOnly.codes = q.codes;
      codesOnly.rowStats = q.rowStats;
      expectProduct("codes", matMul8bitLt(a, codesOnly, bias),
                    definition(fa, fb, threshold, decodedRows(fb)) + biasRows, 25);
      codesOnly.tiledCodes = toTiles(q.codes, TileOrder::kColAmpere);
      codesOnly.codes.resize(0, 0);
      expectProduct("tiled codes", matMul8bitLt(a, codesOnly), definition(fa, fb, threshold, decodedRows(fb)), 25);
      codesOnly.forceNoIgemmlt = true;
      expectProduct("no integer product", matMul8bitLt(a, codesOnly), fa.cast<double>() * decodedRows(fb).transpose(),
                    25.0 * double(k));
    }
  }
}

/** Root mean square of the error of Gᵀ·A whose factors are off by half a step of their columns at most, uniformly. */
double quantisationNoise(const MatrixXf& g, const MatrixXf& a, const std::vector<Index>& exactColumns) {
  double variance = 0;
  const auto stepOf = [](const MatrixXf& m, Index j) { return double(m.col(j).cwiseAbs().maxCoeff()) / 127; };
  for (Index k = 0; k < a.cols(); ++k) {
    if (std::find(exactColumns.begin(), exactColumns.end(), k) != exactColumns.end()) continue;
    for (Index n = 0; n < g.cols(); ++n) {
      variance += std::pow(stepOf(g, n), 2) / 12 * double(a.col(k).squaredNorm()) +
                  std::pow(stepOf(a, k), 2) / 12 * double(g.col(n).squaredNorm());
    }
  }
  return std::sqrt(variance);
}

}  // namespace

BOOST_AUTO_TEST_CASE(forwardFloat) { everyForwardBranch<float>(); }
BOOST_AUTO_TEST_CASE(forwardHalf) { everyForwardBranch<Eigen::half>(); }
BOOST_AUTO_TEST_CASE(forwardBFloat16) { everyForwardBranch<Eigen::bfloat16>(); }

// bitsandbytes rounds float and bfloat16 activations to half first, and the result too: 70000 and 1e-9 are lost there.
BOOST_AUTO_TEST_CASE(activationsAndResultsKeepTheirRange) {
  MatrixXf a = MatrixXf::Random(3, 16);
  a.row(0) *= 70000.0f;
  a.row(1) *= 1e-9f;
  const MatrixXf b = MatrixXf::Random(5, 16);
  const MatrixXf y = matmul(a, b);
  const MatrixXd exact = a.cast<double>() * b.cast<double>().transpose();
  for (Index i = 0; i < 3; ++i)
    BOOST_TEST((y.row(i).cast<double>() - exact.row(i)).norm() <= 0.02 * exact.row(i).norm());
  const MatrixXf big = matmul(MatrixXf(a * 1e33f), b);
  BOOST_TEST(big.allFinite());
}

BOOST_AUTO_TEST_CASE(weightCodesAreReusedAsLongAsTheyAreRight) {
  const MatrixXf a = MatrixXf::Random(4, 16), first = MatrixXf::Random(5, 16), second = 2 * first;
  const auto codesFollow = [&](bool floatWeights, bool training, bool accumulated) {
    MatmulLtState state;
    state.hasFp16Weights = floatWeights;
    state.isTraining = training;
    matMul8bitLt(a, first, state);
    state.hasAccumulatedGradients = accumulated;
    matMul8bitLt(a, second, state);
    return state.rowStats == second.cwiseAbs().rowwise().maxCoeff();
  };
  BOOST_TEST(codesFollow(true, true, false));
  BOOST_TEST(!codesFollow(true, true, true));    // gradient accumulation
  BOOST_TEST(!codesFollow(true, false, false));  // evaluation
  BOOST_TEST(!codesFollow(false, true, false));  // frozen
  MatmulLtState state;
  state.isTraining = false;
  matMul8bitLt(a, first, state);
  state.resetGrads();
  BOOST_TEST(!state.hasCodes());
  matMul8bitLt(a, second, state);
  BOOST_TEST((state.rowStats == second.cwiseAbs().rowwise().maxCoeff()));
}

BOOST_AUTO_TEST_CASE(outlierColumnsAreThoseOfThisCall) {
  MatmulLtState state;
  state.threshold = 6;
  const MatrixXf b = MatrixXf::Random(5, 20);
  for (const bool fallback : {false, true}) {
    state.forceNoIgemmlt = false;
    matMul8bitLt(withOutliers(4, 20), b, state);
    BOOST_TEST(indices(state.outlierColumns) == (std::vector<Index>{3, 18}), boost::test_tools::per_element());
    state.forceNoIgemmlt = fallback;
    const MatrixXf a = MatrixXf::Random(4, 20), y = matMul8bitLt(a, b, state);
    BOOST_TEST(state.outlierColumns.size() == 0);
    const MatrixXd exact = a.cast<double>() * b.cast<double>().transpose();
    BOOST_TEST((y.cast<double>() - exact).norm() <= 0.03 * exact.norm());
  }
}

BOOST_AUTO_TEST_CASE(theLayoutOfTheCodesDoesNotMatter) {
  const MatrixXf a = withOutliers(6, 45), b = MatrixXf::Random(11, 45), g = MatrixXf::Random(6, 11);
  MatmulLtState row;
  row.threshold = 6;
  const MatrixXf y = matMul8bitLt(a, b, row), dx = matMul8bitLtGradA(g, row);
  for (const TileOrder order : {TileOrder::kCol32, TileOrder::kColTuring, TileOrder::kColAmpere}) {
    MatmulLtState tiled;
    tiled.threshold = 6;
    tiled.layout = order;
    BOOST_TEST((matMul8bitLt(a, b, tiled) == y));
    BOOST_TEST(tiled.codes.size() == 0);
    BOOST_TEST(tiled.tiledCodes.buffer.size() == tileBufferSize(order, 11, 45));
    BOOST_TEST((matMul8bitLtGradA(g, tiled) == dx));
  }
}

BOOST_AUTO_TEST_CASE(gradientOfTheActivations) {
  const MatrixXf a = withOutliers(9, 33), b = MatrixXf::Random(20, 33), g = MatrixXf::Random(9, 20);
  MatmulLtState state;
  matMul8bitLt(a, b, state);
  const MatrixXd viaCodes = g.cast<double>() * decodedRows(b);
  expectProduct("G*W", matMul8bitLtGradA(g, state), viaCodes, 20);
  state.memoryEfficientBackward = false;
  matMul8bitLt(a, b, state);
  const MatrixXd viaTransposed = decodedRows(g) * decodedRows(b.transpose()).transpose();
  expectProduct("codes of G * codes of W'", matMul8bitLtGradA(g, state), viaTransposed, 20);
  const MatrixXd exact = g.cast<double>() * b.cast<double>();
  BOOST_TEST((viaTransposed - exact).norm() <= 0.02 * exact.norm());
  state.forceNoIgemmlt = true;
  expectProduct("no integer product", matMul8bitLtGradA(g, state), viaCodes, 20);
  MatmulLtState damaged;
  damaged.rowStats = VectorXf::Ones(20);
  BOOST_CHECK_THROW(matMul8bitLtGradA(g, damaged), FormatError);  // statistics without codes
}

BOOST_AUTO_TEST_CASE(gradientOfTheWeightIsRightUpToQuantisationNoise) {
  for (const Index tokens : {1, 2, 3, 4, 29, 30, 31, 32}) {
    for (const bool outliers : {false, true}) {
      const Index n = 24, k = 40;
      MatrixXf a = MatrixXf::Random(tokens, k);
      if (outliers) a.col(7) *= 50.0f, a.col(31) *= -30.0f, a(0, 7) = 60, a(tokens - 1, 31) = 25;
      const MatrixXf b = MatrixXf::Random(n, k), g = MatrixXf::Random(tokens, n) * 1e-3f;
      MatmulLtState state;
      state.threshold = 6;
      matMul8bitLt(a, b, state);
      BOOST_TEST(state.outlierColumns.size() == (outliers ? 2 : 0));
      const auto found = matMul8bitLtBackward(g, a, state, state.outlierColumns);
      const MatrixXd exact = g.cast<double>().transpose() * a.cast<double>();
      const double noise = quantisationNoise(g, a, indices(state.outlierColumns));
      BOOST_TEST((found.b.cast<double>() - exact).norm() <= 2 * noise);
      for (const Index c : state.outlierColumns)
        BOOST_TEST((found.b.col(c) == exact.col(c).cast<float>()));  // in full precision
      BOOST_TEST((found.bias == g.cast<double>().colwise().sum().transpose().cast<float>()));
      state.forceNoIgemmlt = true;
      BOOST_TEST((matMul8bitLtGradB(g, a, state, {}) == exact.cast<float>()));
    }
  }
}

BOOST_AUTO_TEST_CASE(aBatchIsAMatrixOfAllItsRows) {
  const MatrixXf stacked = withOutliers(7, 18), b = MatrixXf::Random(5, 18);
  const VectorXf bias = VectorXf::Random(5);
  MatmulLtState state;
  state.threshold = 6;
  const MatrixXf y = matMul8bitLt(stacked, b, state, bias);
  const std::vector<MatrixXf> batch = {stacked.topRows(3), stacked.middleRows(3, 0), stacked.bottomRows(4)};
  const auto parts = matMul8bitLt(batch, b, state, bias);
  BOOST_TEST(parts.size() == 3u);
  BOOST_TEST((parts[0] == y.topRows(3)));
  BOOST_TEST(parts[1].rows() == 0);
  BOOST_TEST((parts[2] == y.bottomRows(4)));
}

BOOST_AUTO_TEST_CASE(specialValuesShow) {
  const MatrixXf b = MatrixXf::Random(4, 12);
  MatrixXf a = MatrixXf::Random(5, 12);
  a(1, 2) = kNaN;
  a(2, 3) = kInfinity;
  a.row(3).setZero();
  a.row(4).setConstant(1e-42f);
  for (const float threshold : {0.0f, 6.0f}) {
    const MatrixXf y = matmul(a, b, threshold);
    BOOST_TEST(y.row(0).allFinite());
    BOOST_TEST(y.row(1).array().isNaN().all());
    BOOST_TEST((threshold > 0 ? y.row(2).array().isInf().all() : y.row(2).array().isNaN().all()));
    BOOST_TEST((y.row(3).array() == 0).all());
    BOOST_TEST((y.row(4).array().abs() < 1e-40f).all());
  }
  MatrixXf damaged = b;
  damaged(2, 0) = kNaN;
  const MatrixXf y = matmul(MatrixXf(a.topRows(1)), damaged);
  BOOST_TEST(std::isnan(y(0, 2)));
  BOOST_TEST((std::isfinite(y(0, 1)) && std::isfinite(y(0, 3))));
}

BOOST_AUTO_TEST_CASE(emptyOperands) {
  const VectorXf bias = VectorXf::Constant(4, 2);
  MatmulLtState state;
  BOOST_TEST(matMul8bitLt(MatrixXf(0, 12), MatrixXf::Random(4, 12), state, bias).rows() == 0);
  BOOST_TEST((matMul8bitLtGradB(MatrixXf(0, 4), MatrixXf(0, 12), state, {}) == MatrixXf::Zero(4, 12)));
  BOOST_TEST(matMul8bitLtGradA(MatrixXf(0, 4), state).cols() == 12);
  for (const TileOrder layout : {TileOrder::kRow, TileOrder::kColTuring}) {
    MatmulLtState thin;
    thin.layout = layout;
    BOOST_TEST((matMul8bitLt(MatrixXf(3, 0), MatrixXf(4, 0), thin, bias).array() == 2).all());
    BOOST_TEST(matMul8bitLt(MatrixXf::Random(3, 5), MatrixXf(0, 5), thin).cols() == 0);
  }
}

BOOST_AUTO_TEST_CASE(partsThatDoNotFitAreRefused) {
  const MatrixXf a = MatrixXf::Random(3, 8);
  MatmulLtState state;
  state.hasFp16Weights = false;
  state.rowStats = VectorXf::Ones(4);
  BOOST_CHECK_THROW(matMul8bitLt(a, state), FormatError);  // statistics without codes
  state.codes = Int8Codes::Zero(4, 9);
  BOOST_CHECK_THROW(matMul8bitLt(a, state), FormatError);
  state.codes = Int8Codes::Zero(5, 8);
  BOOST_CHECK_THROW(matMul8bitLt(a, state), FormatError);
  state.codes = Int8Codes::Zero(4, 8);
  BOOST_TEST(matMul8bitLt(a, state).cols() == 4);
  for (const float threshold : {-1.0f, kNaN}) {
    state.threshold = threshold;
    BOOST_CHECK_THROW(matMul8bitLt(a, state), std::invalid_argument);
  }
}

BOOST_AUTO_TEST_CASE(thePoolHoldsOneWidth) {
  GlobalOutlierPooler pool;
  BOOST_TEST(pool.modelDim() == 0);
  pool.addOutliers((IndexVector(3) << 7, 2, 7).finished(), 16);
  pool.addOutliers((IndexVector(1) << 5).finished(), 16);
  pool.addOutliers((IndexVector(1) << 30).finished(), 64);  // another width
  BOOST_TEST(pool.modelDim() == 16);
  BOOST_TEST(indices(pool.currentOutlierIndices()) == (std::vector<Index>{2, 5, 7}), boost::test_tools::per_element());
  pool.reset();
  BOOST_TEST((pool.modelDim() == 0 && pool.currentOutlierIndices().size() == 0));
  BOOST_TEST(&GlobalOutlierPooler::instance() == &GlobalOutlierPooler::instance());
}

BOOST_AUTO_TEST_CASE(thePoolMayBeFilledByManyThreads) {
  GlobalOutlierPooler pool;
  std::vector<std::thread> threads;
  for (Index t = 0; t < 4; ++t) {
    threads.emplace_back([&pool, t] {
      for (Index i = 0; i < 200; ++i) pool.addOutliers((IndexVector(1) << (i * 4 + t) % 512).finished(), 512);
    });
  }
  for (std::thread& thread : threads) thread.join();
  BOOST_TEST(pool.currentOutlierIndices().size() == 512);
}

BOOST_AUTO_TEST_CASE(pooledColumnsAreMultipliedInFullPrecision) {
  const MatrixXf b = MatrixXf::Random(6, 20);
  MatrixXf calm = MatrixXf::Random(5, 20);
  calm.col(3) *= 5;  // below the threshold, but its steps are coarse
  GlobalOutlierPooler pool;
  MatmulLtState first, second;
  for (MatmulLtState* state : {&first, &second}) {
    state->threshold = 6;
    state->usePool = true;
    state->outlierPool = &pool;
  }
  const MatrixXf before = matMul8bitLt(calm, b, second);
  BOOST_TEST(second.outlierColumns.size() == 0);
  matMul8bitLt(withOutliers(4, 20), b, first);
  const MatrixXf after = matMul8bitLt(calm, b, second);
  BOOST_TEST(indices(second.outlierColumns) == (std::vector<Index>{3, 18}), boost::test_tools::per_element());
  // By definition: codes of both factors elsewhere, the matrices themselves in the pooled columns.
  const Int8Quantized q = int8VectorwiseQuant(calm);
  MatrixXd codes = q.codes.cast<double>();
  for (Index i = 0; i < codes.rows(); ++i) codes.row(i) *= double(q.rowStats[i]) / 127;
  MatrixXd exact = codes * decodedRows(b).transpose();
  for (const Index k : {3, 18}) {
    exact += calm.col(k).cast<double>() * b.col(k).cast<double>().transpose() -
             codes.col(k) * decodedRows(b).col(k).transpose();
  }
  expectProduct("pooled", after, exact, 25);
  BOOST_TEST((after != before));
  // A layer of another width neither adds nor takes.
  MatmulLtState other = first;
  other.resetGrads();
  matMul8bitLt(withOutliers(4, 30), MatrixXf::Random(6, 30), other);
  BOOST_TEST(indices(other.outlierColumns) == (std::vector<Index>{3, 28}), boost::test_tools::per_element());
  BOOST_TEST(pool.currentOutlierIndices().size() == 2);
}

BOOST_AUTO_TEST_CASE(devicesWithAnInt8Product) {
  BOOST_TEST(!supportsIgemmlt({7, 0, "Tesla V100-SXM2-16GB"}));
  BOOST_TEST(!supportsIgemmlt({6, 1, "NVIDIA GeForce GTX 1080"}));
  BOOST_TEST(supportsIgemmlt({7, 5, "Tesla T4"}));
  BOOST_TEST(supportsIgemmlt({7, 5, "NVIDIA GeForce RTX 2080 Ti"}));
  BOOST_TEST(!supportsIgemmlt({7, 5, "NVIDIA GeForce GTX 1660 Ti"}));
  BOOST_TEST(!supportsIgemmlt({7, 5, "NVIDIA GeForce GTX 1650"}));
  BOOST_TEST(!supportsIgemmlt({7, 5, "GeForce GTX 1630"}));
  BOOST_TEST(supportsIgemmlt({8, 0, "NVIDIA A100-SXM4-80GB"}));
  BOOST_TEST(supportsIgemmlt({9, 0, "NVIDIA H200"}));
  BOOST_TEST(supportsIgemmlt({10, 0, "NVIDIA B200"}));
}
