// SPDX-License-Identifier: MPL-2.0
// Every row of hostFloatLowerings() against double.
#define BOOST_TEST_MODULE FloatKernels
#include <boost/test/unit_test.hpp>

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <eigen_q/Core>
#include <eigen_q/src/FloatKernels.h>

using namespace EigenQ::internal;
using Eigen::ArrayXXd;
using Eigen::MatrixXd;
using Eigen::MatrixXf;
using EigenQ::Index;

namespace {

constexpr float kEps = std::numeric_limits<float>::epsilon();

MatrixXf randomMatrix(Index rows, Index cols, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> draw;
  return MatrixXf::NullaryExpr(rows, cols, [&] { return draw(random); });
}

template <typename Check>
void forEachRow(const Check& check) {
  int ran = 0;
  for (const FloatLowering& row : hostFloatLowerings()) {
    if (const char* why = row.refuse()) {
      BOOST_TEST_MESSAGE(row.name << ": " << why);
      continue;
    }
    BOOST_TEST_CONTEXT(row.name) { check(*row.kernels); }
    ++ran;
  }
  BOOST_TEST(ran > 0);
}

/** Limits the threads of kernels while it lives. */
struct Threads {
  explicit Threads(int threads) { EigenQ::setMaxThreads(threads); }
  ~Threads() { EigenQ::setMaxThreads(0); }
};

/** y (+)= alpha·a·b with y's columns contiguous, as the tape multiplies. */
template <typename A, typename B>
void multiply(const FloatKernels& kernels, const A& a, const B& b, float alpha, bool accumulate, MatrixXf& y) {
  kernels.multiply({viewOf(b).transpose(), viewOf(a).transpose(), mutableViewOf(y).transpose(), alpha, accumulate});
}

/** Sums of k products in float, in any order, and one rounding of the factor. */
template <typename A, typename B>
void expectProduct(const FloatKernels& kernels, const A& a, const B& b) {
  const MatrixXd ad = a.template cast<double>(), bd = b.template cast<double>();
  const ArrayXXd most = (ad.cwiseAbs() * bd.cwiseAbs()).array();
  const MatrixXf before = randomMatrix(a.rows(), b.cols(), 9);
  for (const bool accumulate : {false, true}) {
    MatrixXf y = before;
    multiply(kernels, a, b, 0.7f, accumulate, y);
    MatrixXd exact = static_cast<double>(0.7f) * (ad * bd);
    if (accumulate) exact += before.cast<double>();
    const double gamma = static_cast<double>(a.cols() + 3) * static_cast<double>(kEps);
    const ArrayXXd bound = gamma * (most + before.cast<double>().array().abs());
    BOOST_TEST(((y.cast<double>() - exact).array().abs() <= bound).all(),
               "product " << a.rows() << "x" << a.cols() << "x" << b.cols() << ", accumulate " << accumulate);
  }
}

}  // namespace

BOOST_AUTO_TEST_CASE(productsOfEveryLayout) {
  const Index sizes[][3] = {{1, 1, 1},     {3, 0, 5},    {3, 0, 1},    {0, 4, 5},   {4, 5, 0},
                            {33, 17, 1},   {64, 40, 2},  {31, 33, 3},  {65, 70, 4}, {32, 257, 5},
                            {100, 19, 13}, {7, 130, 25}, {40, 300, 70}};
  forEachRow([&](const FloatKernels& kernels) {
    for (const auto& s : sizes) {
      const MatrixXf a = randomMatrix(s[0], s[1], 1), b = randomMatrix(s[1], s[2], 2);
      const MatrixXf at = a.transpose(), bt = b.transpose();
      expectProduct(kernels, a, b);
      expectProduct(kernels, at.transpose(), b);
      expectProduct(kernels, a, bt.transpose());
      expectProduct(kernels, at.transpose(), bt.transpose());
      const MatrixXf wide = randomMatrix(2 * s[0] + 1, s[1] + 2, 3), tall = randomMatrix(2 * s[1] + 1, s[2] + 2, 4);
      using Strides = Eigen::Stride<Eigen::Dynamic, 2>;
      using Strided = Eigen::Map<const MatrixXf, 0, Strides>;
      expectProduct(kernels, Strided(wide.data(), s[0], s[1], Strides(wide.rows(), 2)),
                    Strided(tall.data(), s[1], s[2], Strides(tall.rows(), 2)));
    }
  });
}

BOOST_AUTO_TEST_CASE(weightsOf16BitsAreWidened) {
  forEachRow([](const FloatKernels& kernels) {
    for (const Index columns : {1, 2, 9}) {
      const MatrixXf a = randomMatrix(37, 50, 1), b = randomMatrix(50, columns, 2);
      const Eigen::MatrixX<Eigen::half> h = a.cast<Eigen::half>(), ht = h.transpose();
      const Eigen::MatrixX<Eigen::bfloat16> f = a.cast<Eigen::bfloat16>(), ft = f.transpose();
      expectProduct(kernels, h, b);
      expectProduct(kernels, ht.transpose(), b);
      expectProduct(kernels, f, b);
      expectProduct(kernels, ft.transpose(), b);
    }
  });
}

BOOST_AUTO_TEST_CASE(rowsThatCollideInTheCacheArePacked) {
  const MatrixXf a = randomMatrix(70, 1024, 1), b = randomMatrix(1024, 14, 2);
  forEachRow([&](const FloatKernels& kernels) { expectProduct(kernels, a, b); });
}

BOOST_AUTO_TEST_CASE(resultsDoNotDependOnThreads) {
  forEachRow([](const FloatKernels& kernels) {
    for (const Index columns : {1, 3, 40, 1100}) {
      const MatrixXf a = randomMatrix(600, 530, 1), b = randomMatrix(530, columns, 2);
      MatrixXf one(a.rows(), columns), many(a.rows(), columns);
      const auto run = [&](int threads, MatrixXf& y) {
        const Threads limit(threads);
        multiply(kernels, a, b, 1, false, y);
      };
      run(1, one);
      run(5, many);
      BOOST_TEST((one.array() == many.array()).all());
    }
  });
}

BOOST_AUTO_TEST_CASE(exponentialsAreWithin2Ulp) {
  std::vector<float> x, y;
  for (float v = -87; v <= 0; v += 0.00037f) x.push_back(v);
  y.resize(x.size());
  forEachRow([&](const FloatKernels& kernels) {
    kernels.scaledExp(static_cast<Index>(x.size()), x.data(), 0, 1, y.data(), false);
    double worst = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double exact = std::exp(static_cast<double>(x[i]));
      worst = std::max(worst, std::abs(static_cast<double>(y[i]) - exact) / exact);
    }
    BOOST_TEST(worst <= 1.0 * static_cast<double>(kEps));
    const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
    const float special[] = {-inf, -88, nan, 0, 1};
    float out[5];
    kernels.scaledExp(5, special, 0, 1, out, false);
    BOOST_TEST(out[0] == 0);
    BOOST_TEST(out[1] == 0);
    BOOST_TEST(std::isnan(out[2]));
    BOOST_TEST(out[3] == 1);
    BOOST_TEST(std::abs(out[4] - std::exp(1.0f)) <= 4 * kEps);
  });
}

BOOST_AUTO_TEST_CASE(nothingIsComputedOfNothing) {
  forEachRow([](const FloatKernels& kernels) {
    const float x[4] = {1, 2, 3, 4};
    float y[4] = {5, 6, 7, 8}, inverse[4] = {}, more[4] = {};
    const int positions[4] = {};
    for (const auto& size : {std::pair<Index, Index>{0, 4}, {4, 0}, {0, 0}}) {
      const FloatRmsNorm norm{size.first, size.second, x, x, inverse};
      kernels.rmsNorm(norm, 1e-6f, y);
      kernels.rmsNormBackward(norm, x, {y, true}, nullptr);
      if (size.second == 0) kernels.rmsNormBackward(norm, x, {y, true}, y);
      kernels.rope({1, size.first / 2, size.second, false, 1, x, x, positions, x, {y, false}});
      kernels.rope({size.first, 2, size.second, true, 1, x, x, positions, x, {y, false}});
    }
    kernels.swiglu(0, x, x, y);
    kernels.swigluBackward(0, x, x, x, {y, false}, {y, true});
    kernels.scaledExp(0, x, 0, 1, y, false);
    kernels.dropout({0, 1, 2, 3, 1, x, {y, false}});
    kernels.adamW({0, y, x, more, more});
    const AttentionSequence none{0, 0, 0, 0};
    for (const Index count : {0, 1}) kernels.attend({1, 1, 4, 0, 1, &none, count, x, x, x, y, inverse});
    for (const Index count : {0, 1}) {
      const FloatAttention nobody{1, 1, 4, 0, 1, &none, count, x, x, x, y, inverse};
      kernels.attendBackward({nobody, x, y, y, y});
    }
    for (int i = 0; i < 4; ++i) BOOST_TEST(y[i] == static_cast<float>(5 + i));
  });
}

// A NaN anywhere, behind whole vectors too, reaches what depends on it and nothing else.
BOOST_AUTO_TEST_CASE(nanGoesWhereItBelongs) {
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  constexpr Index kRows = 37, kCols = 3;
  forEachRow([&](const FloatKernels& kernels) {
    for (const Index at : {0, 15, 16, 36}) {
      MatrixXf x = randomMatrix(kRows, kCols, 5);
      const MatrixXf other = randomMatrix(kRows, kCols, 6);
      x(at, 1) = kNaN;
      MatrixXf y(kRows, kCols), inverse(kCols, 1);
      const auto nansOf = [&](Index column) { return y.col(column).array().isNaN().count(); };
      kernels.rmsNorm({kRows, kCols, x.data(), other.data(), inverse.data()}, 1e-6f, y.data());
      BOOST_TEST(nansOf(0) + nansOf(2) == 0);
      BOOST_TEST(nansOf(1) == kRows);
      kernels.swiglu(x.size(), x.data(), other.data(), y.data());
      BOOST_TEST((nansOf(0) + nansOf(1) + nansOf(2) == 1 && std::isnan(y(at, 1))));
      kernels.swiglu(x.size(), other.data(), x.data(), y.data());
      BOOST_TEST((nansOf(0) + nansOf(1) + nansOf(2) == 1 && std::isnan(y(at, 1))));
      for (Index j = 0; j < kCols; ++j) BOOST_TEST(std::isnan(kernels.logSumExp(kRows, x.col(j).data())) == (j == 1));
      // Token 1 of three: a query before it does not see it, but that 0·NaN is NaN; its own and later ones do.
      const AttentionSequence sequence{0, 0, 0, kCols};
      const auto attend = [&](const MatrixXf& q, const MatrixXf& k, const MatrixXf& v) {
        kernels.attend({1, 1, kRows, 0, 0.2f, &sequence, 1, q.data(), k.data(), v.data(), y.data(), nullptr});
      };
      attend(x, other, other);
      BOOST_TEST((nansOf(0) == 0 && nansOf(1) == kRows && nansOf(2) == 0));
      attend(other, x, other);
      BOOST_TEST((nansOf(0) == 0 && nansOf(1) == kRows && nansOf(2) == kRows));
      attend(other, other, x);
      BOOST_TEST((nansOf(1) == 1 && nansOf(2) == 1));
    }
  });
}

BOOST_AUTO_TEST_CASE(logSumExpOfAnyLength) {
  forEachRow([](const FloatKernels& kernels) {
    for (const Index n : {1, 2, 7, 16, 31, 33, 257, 1000}) {
      const MatrixXf x = 50 * randomMatrix(n, 1, static_cast<unsigned>(n));
      const double top = static_cast<double>(x.maxCoeff());
      const double exact = top + std::log((x.cast<double>().array() - top).exp().sum());
      BOOST_TEST(std::abs(static_cast<double>(kernels.logSumExp(n, x.data())) - exact) <= 1e-6 * (1 + std::abs(exact)));
    }
  });
}

BOOST_AUTO_TEST_CASE(dropoutTakesTheWordsOfTheStream) {
  forEachRow([](const FloatKernels& kernels) {
    const Index n = 1003;
    const MatrixXf x = MatrixXf::Ones(n, 1);
    MatrixXf portable(n, 1), y(n, 1);
    FloatDropout call;
    call.size = n;
    call.seed = 0x123456789abcdefu;
    call.stream = 0xfedcba9876543210u;
    call.threshold = 1u << 22;  // a quarter
    call.factor = 2;
    call.x = x.data();
    call.y = {portable.data(), false};
    (hostFloatLowerings().end() - 1)->kernels->dropout(call);
    y.setOnes();
    call.y = {y.data(), true};
    kernels.dropout(call);
    BOOST_TEST((y.array() == portable.array() + 1).all());
    BOOST_TEST(std::abs(portable.mean() - 1.5f) < 0.1f);
  });
}
