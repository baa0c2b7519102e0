// SPDX-License-Identifier: MPL-2.0
#define BOOST_TEST_MODULE Layers
#include "Support.h"

#include <cmath>
#include <complex>
#include <limits>
#include <stdexcept>

using namespace EigenQ::ad;
using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using EigenQ::test::expectClose;
using EigenQ::test::expectGradient;
using EigenQ::test::integers;
using EigenQ::test::randomMatrix;

namespace {

const std::pair<Index, Index> kShapes[] = {{1, 1}, {5, 1}, {1, 3}, {7, 5}, {3, 0}};

MatrixXd naiveSoftmax(const MatrixXd& x) {
  MatrixXd y(x.rows(), x.cols());
  for (Index j = 0; j < x.cols(); ++j) {
    double total = 0;
    for (Index i = 0; i < x.rows(); ++i) total += std::exp(x(i, j));
    for (Index i = 0; i < x.rows(); ++i) y(i, j) = std::exp(x(i, j)) / total;
  }
  return y;
}

}  // namespace

BOOST_AUTO_TEST_CASE(linearWithAndWithoutBias) {
  for (const auto& s : kShapes) {
    const Index out = 3, in = s.first, tokens = s.second;
    expectGradient([](Tape<double>&, const auto& v) { return linear(v[0], v[1]); }, {{out, in}, {in, tokens}});
    expectGradient([](Tape<double>&, const auto& v) { return linear(v[0], v[1], v[2]); },
                   {{out, in}, {in, tokens}, {out, 1}});
  }
  Tape<double> tape;
  Parameter<double> w(randomMatrix(2, 3, 1)), b(randomMatrix(2, 1, 2));
  const MatrixXd x = randomMatrix(3, 4, 3);
  const Var<double> y = linear(w, tape.constant(x), b);
  expectClose(y.value(), w.value() * x + b.value() * MatrixXd::Ones(1, 4), 1e-15);
  tape.backward(sum(y));
  expectClose(w.grad(), MatrixXd::Ones(2, 4) * x.transpose(), 1e-15);
  expectClose(b.grad(), MatrixXd::Constant(2, 1, 4), 1e-15);
}

BOOST_AUTO_TEST_CASE(loraIsItsDenseFormula) {
  for (double p : {0.0, 0.4})
    for (const auto& s : kShapes)
      expectGradient(
          [&](Tape<double>&, const auto& v) {
            return loraLinear(v[0], v[1], v[2], v[3], {0.7, p}, v[4]);
          },
          {{3, s.first}, {2, s.first}, {3, 2}, {s.first, s.second}, {3, 1}});
  Tape<double> tape;
  const Var<double> w = tape.constant(randomMatrix(5, 4, 1)), a = tape.constant(randomMatrix(2, 4, 2)),
                    b = tape.constant(randomMatrix(5, 2, 3)), x = tape.constant(randomMatrix(4, 6, 4));
  const MatrixXd merged = w.value() + 0.5 * b.value() * a.value();
  expectClose(loraLinear(w, a, b, x, {0.5, 0}).value(), merged * x.value(), 1e-14);
}

BOOST_AUTO_TEST_CASE(loraDropsOnlyTheAdaptersInput) {
  const MatrixXd x = randomMatrix(4, 6, 4);
  Tape<double> tape(11);
  const Var<double> w = tape.constant(randomMatrix(5, 4, 1)), a = tape.constant(randomMatrix(2, 4, 2)),
                    b = tape.constant(randomMatrix(5, 2, 3));
  const Var<double> y = loraLinear(w, a, b, tape.constant(x), {2, 0.5});
  tape.setSeed(11);
  const Var<double> dropped = dropout(tape.constant(x), 0.5);
  BOOST_TEST((dropped.value().array() == 0).any());
  expectClose(y.value(), w.value() * x + 2 * b.value() * (a.value() * dropped.value()), 1e-14);
}

BOOST_AUTO_TEST_CASE(embeddingGathersAndScatters) {
  const Eigen::VectorXi ids = integers({3, 0, 3, 1, 3});
  expectGradient([&](Tape<double>& tape, const auto& v) { return embedding(tape, v[0], ids); }, {{2, 5}});
  expectGradient([&](Tape<double>& tape, const auto& v) { return embedding(tape, v[0], integers({})); }, {{2, 5}});
  Tape<double> tape;
  Parameter<double> e(randomMatrix(2, 5, 1));
  const Var<double> y = embedding(tape, e, ids);
  for (Index t = 0; t < ids.size(); ++t) BOOST_TEST((y.value().col(t) == e.value().col(ids(t))));
  tape.backward(sum(y));
  BOOST_TEST((e.grad().row(0) == Eigen::RowVectorXd::Map(std::vector<double>{1, 1, 0, 3, 0}.data(), 5)));
  BOOST_CHECK_THROW(embedding(tape, e, integers({5})), std::out_of_range);
  BOOST_CHECK_THROW(embedding(tape, e, integers({0, -1})), std::out_of_range);
}

BOOST_AUTO_TEST_CASE(rmsNormAgainstItsFormula) {
  for (const auto& s : kShapes)
    expectGradient([](Tape<double>&, const auto& v) { return rmsNorm(v[0], v[1], 1e-2); }, {s, {s.first, 1}});
  const MatrixXd x = 3 * randomMatrix(7, 4, 1), g = randomMatrix(7, 1, 2);
  MatrixXd expected(7, 4);
  for (Index j = 0; j < 4; ++j) {
    double squares = 0;
    for (Index i = 0; i < 7; ++i) squares += x(i, j) * x(i, j);
    for (Index i = 0; i < 7; ++i) expected(i, j) = g(i) * x(i, j) / std::sqrt(squares / 7 + 1e-5);
  }
  Tape<double> tape;
  expectClose(rmsNorm(tape.constant(x), tape.constant(g), 1e-5).value(), expected, 1e-14);
}

BOOST_AUTO_TEST_CASE(layerNormAgainstItsFormula) {
  for (const auto& s : kShapes)
    expectGradient([](Tape<double>&, const auto& v) { return layerNorm(v[0], v[1], v[2], 1e-2); },
                   {s, {s.first, 1}, {s.first, 1}});
  const MatrixXd x = (3 * randomMatrix(7, 4, 1)).array() + 2, g = randomMatrix(7, 1, 2), b = randomMatrix(7, 1, 3);
  MatrixXd expected(7, 4);
  for (Index j = 0; j < 4; ++j) {
    double mean = 0, variance = 0;
    for (Index i = 0; i < 7; ++i) mean += x(i, j) / 7;
    for (Index i = 0; i < 7; ++i) variance += (x(i, j) - mean) * (x(i, j) - mean) / 7;
    for (Index i = 0; i < 7; ++i) expected(i, j) = g(i) * (x(i, j) - mean) / std::sqrt(variance + 1e-5) + b(i);
  }
  Tape<double> tape;
  expectClose(layerNorm(tape.constant(x), tape.constant(g), tape.constant(b)).value(), expected, 1e-13);
}

BOOST_AUTO_TEST_CASE(ropeIsAComplexRotation) {
  const Eigen::VectorXi positions = integers({0, 1, 2, 0, 9});
  for (RopePairs pairs : {RopePairs::Half, RopePairs::Adjacent})
    for (Index headDim : {2, 6}) {
      const Index heads = 3, half = headDim / 2;
      const RopeTable<double> table(headDim, 10, 100, pairs);
      expectGradient([&](Tape<double>&, const auto& v) { return rope(v[0], table, positions); },
                     {{heads * headDim, 5}});
      const MatrixXd x = randomMatrix(heads * headDim, 5, 1);
      MatrixXd expected(x.rows(), x.cols());
      for (Index t = 0; t < 5; ++t)
        for (Index h = 0; h < heads; ++h)
          for (Index i = 0; i < half; ++i) {
            const Index a = h * headDim + (pairs == RopePairs::Half ? i : 2 * i);
            const Index b = pairs == RopePairs::Half ? a + half : a + 1;
            const double angle =
                positions(t) * std::pow(100.0, -2.0 * static_cast<double>(i) / static_cast<double>(headDim));
            const std::complex<double> z = std::complex<double>(x(a, t), x(b, t)) * std::polar(1.0, angle);
            expected(a, t) = z.real();
            expected(b, t) = z.imag();
          }
      Tape<double> tape;
      expectClose(rope(tape.constant(x), table, positions).value(), expected, 1e-14);
    }
}

BOOST_AUTO_TEST_CASE(ropeRefusesWhatItHasNoAngleFor) {
  BOOST_CHECK_THROW(RopeTable<float>(3, 10), std::invalid_argument);
  const RopeTable<double> table(2, 4);
  Tape<double> tape;
  const Var<double> x = tape.constant(MatrixXd::Ones(2, 2));
  BOOST_CHECK_THROW(rope(x, table, integers({0, 4})), std::out_of_range);
  BOOST_CHECK_THROW(rope(x, table, integers({-1, 0})), std::out_of_range);
  BOOST_CHECK_THROW(rope(x, table, integers({0})), std::invalid_argument);
}

BOOST_AUTO_TEST_CASE(softmaxes) {
  for (const auto& s : kShapes) {
    expectGradient([](Tape<double>&, const auto& v) { return softmax(v[0]); }, {s});
    expectGradient([](Tape<double>&, const auto& v) { return logSoftmax(v[0]); }, {s});
    const MatrixXd x = 3 * randomMatrix(s.first, s.second, 1), expected = naiveSoftmax(x);
    Tape<double> tape;
    expectClose(softmax(tape.constant(x)).value(), expected, 1e-14);
    expectClose(logSoftmax(tape.constant(x)).value(), expected.array().log().matrix(), 1e-14);
  }
  Tape<double> tape;
  const Var<double> huge = tape.constant(MatrixXd::Constant(2, 1, 1e4));
  expectClose(softmax(huge).value(), MatrixXd::Constant(2, 1, 0.5), 0);
  expectClose(logSoftmax(huge).value(), MatrixXd::Constant(2, 1, -std::log(2.0)), 1e-12);
}

BOOST_AUTO_TEST_CASE(crossEntropyCountsWhatIsNotIgnored) {
  const MatrixXd x = 3 * randomMatrix(4, 5, 1), p = naiveSoftmax(x);
  const Eigen::VectorXi targets = integers({0, -100, 3, 1, -100});
  const double total = -std::log(p(0, 0)) - std::log(p(3, 2)) - std::log(p(1, 3));
  BOOST_TEST(countedTargets(targets) == 3);
  BOOST_TEST(countedTargets(targets, 3) == 4);
  Tape<double> tape;
  const Var<double> logits = tape.variable(x);
  BOOST_TEST(crossEntropy(logits, targets, -100, Reduction::Sum).item() == total, boost::test_tools::tolerance(1e-14));
  const Var<double> mean = crossEntropy(logits, targets);
  BOOST_TEST(mean.item() == total / 3, boost::test_tools::tolerance(1e-14));
  tape.backward(mean);
  MatrixXd expected = p / 3;
  expected(0, 0) -= 1.0 / 3, expected(3, 2) -= 1.0 / 3, expected(1, 3) -= 1.0 / 3;
  expected.col(1).setZero(), expected.col(4).setZero();
  expectClose(logits.grad(), expected, 1e-15);
}

BOOST_AUTO_TEST_CASE(crossEntropyGradients) {
  for (Reduction reduction : {Reduction::Mean, Reduction::Sum})
    for (const Eigen::VectorXi& targets : {integers({0, 2, 1}), integers({7, 2, 7}), integers({7, 7, 7})})
      expectGradient(
          [&](Tape<double>&, const auto& v) { return crossEntropy(v[0], targets, /*ignoreIndex=*/7, reduction); },
          {{3, 3}});
}

BOOST_AUTO_TEST_CASE(crossEntropyOfNothingIsZero) {
  for (Reduction reduction : {Reduction::Mean, Reduction::Sum}) {
    Tape<double> tape;
    // Values of an ignored column do not matter, not even these.
    const Var<double> logits = tape.variable(MatrixXd::Constant(3, 2, std::numeric_limits<double>::infinity()));
    const Var<double> loss = crossEntropy(logits, integers({-100, -100}), -100, reduction);
    BOOST_TEST(loss.item() == 0);
    tape.backward(loss);
    BOOST_TEST((logits.grad().array() == 0).all());
    BOOST_TEST(crossEntropy(tape.constant(MatrixXd(3, 0)), integers({}), -100, reduction).item() == 0);
  }
}

BOOST_AUTO_TEST_CASE(crossEntropyRefusesBadTargets) {
  Tape<double> tape;
  const Var<double> logits = tape.variable(MatrixXd::Ones(3, 2));
  BOOST_CHECK_THROW(crossEntropy(logits, integers({0})), std::invalid_argument);
  BOOST_CHECK_THROW(crossEntropy(logits, integers({0, 3})), std::out_of_range);
  BOOST_CHECK_THROW(crossEntropy(logits, integers({-1, 0})), std::out_of_range);
}
