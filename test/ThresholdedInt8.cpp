// SPDX-License-Identifier: MPL-2.0
// LLM.int8() in expressions: the same kernel calls, epilogues and operands as other products, its own arithmetic.
#define BOOST_TEST_MODULE ThresholdedInt8
#include <boost/test/unit_test.hpp>

#include "support/Expressions.h"

#include <eigen_q/Core>

#include <limits>

using namespace EigenQ;
using namespace EigenQ::test;
using Eigen::MatrixXd;
using Eigen::MatrixXf;

namespace {

constexpr float kThreshold = 6;

/** Tokens as rows; columns 2 and k - 1 hold outliers. */
MatrixXf tokens(Index m, Index k) {
  MatrixXf x = MatrixXf::Random(m, k);
  x(0, 2) = -25;
  x(m - 1, k - 1) = 7;
  return x;
}

/** X as the product sees it: decoded codes, and outlier columns as they are. */
MatrixXd seen(const MatrixXf& x, float threshold) {
  const Int8Quantized q = int8VectorwiseQuant(x, threshold);
  MatrixXd d = q.codes.cast<double>();
  for (Index i = 0; i < d.rows(); ++i) d.row(i) *= double(q.rowStats[i]) / 127;
  for (const Index k : q.outlierColumns) d.col(k) = x.col(k).cast<double>();
  return d;
}

MatrixXd dense(const Int8Matrix& w) { return MatrixXf(w).cast<double>(); }

/** One rounding of the scalar beside what float sums of terms up to \a size may lose. */
template <typename Y>
void expectNear(const char* what, const Y& y, const MatrixXd& exact, double size = 30) {
  using Scalar = typename Y::Scalar;
  BOOST_TEST_REQUIRE((y.rows() == exact.rows() && y.cols() == exact.cols()));
  const Eigen::ArrayXXd error = (y.template cast<double>() - exact).array().abs();
  BOOST_TEST((error <= 2 * unitRoundoff<Scalar>() * exact.array().abs() + gammaFloat(16) * size).all(),
             what << ": off by " << error.maxCoeff());
}

}  // namespace

BOOST_AUTO_TEST_CASE(tokensAsRowsAndAsColumnsGiveTheSameBits) {
  for (const auto& [m, n, k] : {std::array<Index, 3>{1, 1, 5}, {7, 33, 70}, {140, 65, 31}}) {
    const Int8Matrix w(MatrixXf::Random(n, k));
    const MatrixXf x = tokens(m, k);
    for (const float threshold : {0.0f, kThreshold}) {
      const KernelLog log;
      const MatrixXf y = x * w.withThreshold(threshold).transpose();
      MatrixXf yt = w.withThreshold(threshold) * x.transpose();
      BOOST_TEST((log.products() == 2 && log.dequantizations() == 0));
      BOOST_TEST((yt == y.transpose()));
      expectNear("X W'", y, seen(x, threshold) * dense(w).transpose());
      yt.noalias() -= w.withThreshold(threshold) * x.transpose();
      BOOST_TEST((yt.array() == 0).all());
    }
  }
}

BOOST_AUTO_TEST_CASE(everyScalar) {
  const Int8Matrix w(MatrixXf::Random(9, 40));
  const auto check = [&](auto scalar) {
    using Matrix = Eigen::Matrix<decltype(scalar), Eigen::Dynamic, Eigen::Dynamic>;
    const Matrix x = tokens(6, 40).cast<decltype(scalar)>();
    const Matrix y = x * w.withThreshold(kThreshold).transpose();
    expectNear("y", y, seen(x.template cast<float>(), kThreshold) * dense(w).transpose());
  };
  check(float());
  check(Eigen::half());
  check(Eigen::bfloat16());
}

BOOST_AUTO_TEST_CASE(everythingJoinsTheKernel) {
  const Int8Matrix w(MatrixXf::Random(12, 30));
  const MatrixXf x = tokens(5, 30), c = MatrixXf::Random(5, 12);
  const Eigen::VectorXf b = Eigen::VectorXf::Random(12);
  const MatrixXd p = seen(x, kThreshold) * dense(w).transpose();
  const MatrixXd biased = p.rowwise() + b.cast<double>().transpose();
  const auto wt = w.withThreshold(kThreshold);
  MatrixXf y = c;
  const auto check = [&](const char* what, const MatrixXd& exact, const auto& statement) {
    y = c;
    const KernelLog log;
    statement();
    BOOST_TEST(log.products() == 1, what);
    expectNear(what, y, exact, 60);
  };
  const MatrixXd cd = c.cast<double>();
  check("+=", cd + p, [&] { y.noalias() += x * wt.transpose(); });
  check("bias", biased, [&] { y.noalias() = (x * wt.transpose()).rowwise() + b.transpose(); });
  check("relu of a bias", biased.cwiseMax(0.0),
        [&] { y.noalias() = relu((x * wt.transpose()).rowwise() + b.transpose()); });
  check("tokens as columns", cd + biased.cwiseMax(0.0),
        [&] { y.transpose().noalias() += relu((wt * x.transpose()).colwise() + b); });
  check("scale", -1.5 * p, [&] { y.noalias() = -1.5f * (x * wt.transpose()); });
  check("scaled weight", 0.5 * p, [&] { y.noalias() = x * (0.5f * wt).transpose(); });
  check("residual", p - cd, [&] { y.noalias() = x * wt.transpose() - c; });
  y = c;
  y.col(3).noalias() = y.col(2) - w.topRows(5) * x.row(0).transpose();  // without a threshold: the plain product
  expectNear("vector", Eigen::VectorXf(y.col(3)), cd.col(2) - dense(w).topRows(5) * x.row(0).cast<double>().transpose(),
             60);
}

BOOST_AUTO_TEST_CASE(windows) {
  const Int8Matrix w(MatrixXf::Random(20, 50));
  const MatrixXf x = tokens(6, 50);
  const MatrixXf rows = x * w.withThreshold(kThreshold).middleRows(3, 9).transpose();
  BOOST_TEST((rows == (x * w.withThreshold(kThreshold).transpose()).eval().middleCols(3, 9)));
  // Some features: tokens are quantised by what is left of them.
  const MatrixXf part = x.leftCols(20) * w.withThreshold(kThreshold).leftCols(20).transpose();
  expectNear("features", part, seen(x.leftCols(20), kThreshold) * dense(w).leftCols(20).transpose());
}

BOOST_AUTO_TEST_CASE(backwardProductsUseTheDequantisedWeight) {
  const Int8Matrix w(MatrixXf::Random(12, 30));
  const MatrixXf g = MatrixXf::Random(5, 12) * 20;
  const auto wt = w.withThreshold(kThreshold);
  BOOST_TEST((MatrixXf(g * wt) == MatrixXf(g * w)));
  BOOST_TEST((MatrixXf(wt.transpose() * g.transpose()) == MatrixXf(w.transpose() * g.transpose())));
  BOOST_TEST((MatrixXf(wt) == MatrixXf(w)));
  BOOST_TEST(wt.coeff(3, 4) == w.coeff(3, 4));
}

BOOST_AUTO_TEST_CASE(theTableAgreesWithTheReference) {
  const Int8Matrix w(MatrixXf::Random(70, 130));
  for (const Index m : {1, 9, 200}) {
    const MatrixXf x = tokens(m, 130);
    MatrixXf expected(m, 70), found(m, 70);
    internal::QuantizedProduct p;
    p.x = internal::viewOf(x);
    p.w = w.withThreshold(kThreshold).quantizedView().weights;
    p.y = internal::mutableViewOf(expected);
    const internal::Lowering* const reference = internal::hostLowerings().end() - 1;
    BOOST_REQUIRE_EQUAL(std::string(reference->name), "reference");
    reference->run(p);
    p.y = internal::mutableViewOf(found);
    int accepted = 0;
    for (const internal::Lowering& row : internal::hostLowerings()) {
      if (row.refuse(p)) continue;
      ++accepted;
      row.run(p);
      expectNear(row.name, found, expected.cast<double>());
    }
    BOOST_TEST(accepted == 2);  // the decomposition and the reference
  }
}

BOOST_AUTO_TEST_CASE(resultsDoNotDependOnTheNumberOfThreads) {
  const Int8Matrix w(MatrixXf::Random(300, 400));
  const MatrixXf x = tokens(150, 400);
  setMaxThreads(1);
  const MatrixXf one = x * w.withThreshold(kThreshold).transpose();
  setMaxThreads(3);
  const MatrixXf three = x * w.withThreshold(kThreshold).transpose();
  setMaxThreads(0);
  BOOST_TEST((one == three));
}

BOOST_AUTO_TEST_CASE(specialValuesAndNothing) {
  const Int8Matrix w(MatrixXf::Random(4, 10));
  MatrixXf x = MatrixXf::Random(4, 10);
  x(0, 1) = std::numeric_limits<float>::quiet_NaN();
  x(1, 2) = std::numeric_limits<float>::infinity();
  x.row(2).setZero();
  const MatrixXf y = x * w.withThreshold(kThreshold).transpose();
  BOOST_TEST(y.row(0).array().isNaN().all());
  BOOST_TEST(y.row(1).array().isInf().all());
  BOOST_TEST((y.row(2).array() == 0).all());
  BOOST_TEST(y.row(3).allFinite());
  const MatrixXf plain = x * w.withThreshold(0).transpose();
  BOOST_TEST(plain.row(1).array().isNaN().all());
  const Int8Matrix thin(MatrixXf(5, 0));
  const MatrixXf zeros = MatrixXf(3, 0) * thin.withThreshold(kThreshold).transpose();
  BOOST_TEST((zeros.rows() == 3 && zeros.cols() == 5 && (zeros.array() == 0).all()));
}

// Deeper than what one int32 sum holds.
BOOST_AUTO_TEST_CASE(deepSumsAreExact) {
  const Index depth = 3 * internal::kInt8MaxDepth / 2;
  const Int8Matrix w(MatrixXf::Ones(1, depth));
  const MatrixXf x = MatrixXf::Ones(1, depth);
  const MatrixXf y = x * w.withThreshold(0).transpose();
  BOOST_TEST(y(0, 0) == float(depth));
}
