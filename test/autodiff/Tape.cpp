// SPDX-License-Identifier: MPL-2.0
#define BOOST_TEST_MODULE Tape
#include "Support.h"

#include <memory>
#include <stdexcept>

using namespace EigenQ::ad;
using Eigen::MatrixXd;
using EigenQ::test::randomMatrix;

namespace {

Var<double> softplus(const Var<double>& x) {
  return x.tape().record("softplus", {x}, x.value().array().exp().log1p(),
                         [=](const auto& dy) { x.addGrad(dy.array() * x.value().array().logistic()); });
}

bool mentions(const std::exception& e, const char* words) {
  return std::string(e.what()).find(words) != std::string::npos;
}

}  // namespace

BOOST_AUTO_TEST_CASE(gradientsOfAProduct) {
  Tape<double> tape;
  const MatrixXd a = randomMatrix(3, 2, 1), b = randomMatrix(2, 4, 2), seed = randomMatrix(3, 4, 3);
  const Var<double> x = tape.variable(a), y = tape.variable(b);
  tape.backward(x * y, seed);
  BOOST_TEST(x.grad().isApprox(seed * b.transpose()));
  BOOST_TEST(y.grad().isApprox(a.transpose() * seed));
}

BOOST_AUTO_TEST_CASE(aMatrixUsedTwiceCollectsBothContributions) {
  Tape<double> tape;
  const Var<double> x = tape.variable(randomMatrix(2, 3, 1));
  tape.backward(sum(cwiseProduct(x, x) + 3 * x));
  BOOST_TEST(x.grad().isApprox((2 * x.value().array() + 3).matrix()));
}

BOOST_AUTO_TEST_CASE(aVarAfterClearThrows) {
  Tape<double> tape;
  const Var<double> x = tape.variable(MatrixXd::Ones(1, 1));
  tape.clear();
  const Var<double> y = tape.variable(MatrixXd::Ones(1, 1));
  BOOST_CHECK_EXCEPTION(x.value(), std::logic_error, [](const auto& e) { return mentions(e, "after Tape::clear()"); });
  BOOST_CHECK_THROW(x.grad(), std::logic_error);
  BOOST_CHECK_THROW(x + y, std::logic_error);
  BOOST_CHECK_THROW(y + x, std::logic_error);
  BOOST_CHECK_THROW(tape.backward(x), std::logic_error);
  BOOST_CHECK_NO_THROW(y + y);
}

BOOST_AUTO_TEST_CASE(aVarOfAnotherTapeThrows) {
  Tape<double> tape, other;
  const Var<double> x = tape.variable(MatrixXd::Ones(1, 1)), y = other.variable(MatrixXd::Ones(1, 1));
  BOOST_CHECK_EXCEPTION(x + y, std::logic_error, [](const auto& e) { return mentions(e, "not its own"); });
  BOOST_CHECK_THROW(linear(y, x), std::logic_error);
  BOOST_CHECK_THROW(tape.backward(y), std::logic_error);
  const NoGradGuard<double> guard(tape);
  BOOST_CHECK_THROW(x + y, std::logic_error);
}

BOOST_AUTO_TEST_CASE(aDefaultVarStandsForNothing) {
  const Var<double> none;
  BOOST_TEST(!none);
  BOOST_CHECK_THROW(none.value(), std::logic_error);
  BOOST_CHECK_THROW(none + none, std::logic_error);
}

BOOST_AUTO_TEST_CASE(backwardRefusesWhatHasNoGradient) {
  Tape<double> tape;
  const Var<double> x = tape.variable(MatrixXd::Ones(2, 1)), c = tape.constant(MatrixXd::Ones(1, 1));
  BOOST_CHECK_THROW(tape.backward(x), std::invalid_argument);                        // not 1×1
  BOOST_CHECK_THROW(tape.backward(x, MatrixXd::Ones(1, 1)), std::invalid_argument);  // a seed of another shape
  BOOST_CHECK_THROW(tape.backward(2 * c), std::logic_error);
  BOOST_CHECK_THROW(c.grad(), std::logic_error);
}

BOOST_AUTO_TEST_CASE(constantsCostNoPullback) {
  Tape<double> tape;
  const Var<double> c = tape.constant(MatrixXd::Ones(2, 2)), x = tape.variable(MatrixXd::Ones(2, 2));
  const auto probe = [&](const Var<double>& input, int& calls) {
    return tape.record("probe", {input}, input.value(), [&calls](const auto&) { ++calls; });
  };
  int frozen = 0, trained = 0;
  const Var<double> y = sum(probe(c, frozen)) + sum(probe(x, trained));
  tape.backward(y);
  BOOST_TEST(frozen == 0);
  BOOST_TEST(trained == 1);
}

BOOST_AUTO_TEST_CASE(whatTheLossDoesNotDependOnIsSkipped) {
  Tape<double> tape;
  const Var<double> x = tape.variable(MatrixXd::Ones(1, 1));
  int calls = 0;
  tape.record("unused", {x}, x.value(), [&calls](const auto&) { ++calls; });
  tape.backward(2 * x);
  BOOST_TEST(calls == 0);
}

BOOST_AUTO_TEST_CASE(leavesAccumulateOverBackwardCallsAndInnerNodesDoNot) {
  Tape<double> tape;
  const Var<double> x = tape.variable(MatrixXd::Constant(1, 1, 5)), y = 3 * x, z = 2 * y;
  y.retainGrad();
  BOOST_TEST(y.grad()(0, 0) == 0);
  tape.backward(z);
  tape.backward(z);
  BOOST_TEST(x.grad()(0, 0) == 12);
  BOOST_TEST(y.grad()(0, 0) == 2);
}

BOOST_AUTO_TEST_CASE(theGradientOfAnInnerNodeIsKeptOnDemandOnly) {
  Tape<double> tape;
  const Var<double> x = tape.variable(MatrixXd::Ones(1, 1)), y = 3 * x, z = 2 * y;
  BOOST_CHECK_THROW(y.grad(), std::logic_error);
  tape.backward(z);
  BOOST_CHECK_EXCEPTION(y.grad(), std::logic_error,
                        [](const auto& e) { return mentions(e, "result of 'scale'") && mentions(e, "retainGrad"); });
  BOOST_TEST(x.grad()(0, 0) == 6);
  BOOST_CHECK_THROW(tape.constant(MatrixXd::Ones(1, 1)).retainGrad(), std::logic_error);
  BOOST_CHECK_NO_THROW(x.retainGrad());
}

BOOST_AUTO_TEST_CASE(gradientsTakeNoMoreMemoryInADeeperGraph) {
  const auto reserved = [](int depth, bool backward) {
    Tape<double> tape;
    const Var<double> x = tape.variable(MatrixXd::Ones(64, 64));
    Var<double> y = x;
    for (int i = 0; i < depth; ++i) y = 0.5 * y + x;
    if (backward)
      for (int times = 0; times < 2; ++times) tape.backward(y, MatrixXd::Ones(64, 64));
    return tape.bytesReserved();
  };
  const std::size_t shallow = reserved(4, true) - reserved(4, false);
  BOOST_TEST(shallow >= 3 * 64 * 64 * sizeof(double));  // of x, of a sum and of a product
  BOOST_TEST(reserved(400, true) - reserved(400, false) == shallow);
}

BOOST_AUTO_TEST_CASE(parametersAccumulateUntilZeroGrad) {
  Tape<double> tape;
  Parameter<double> p(MatrixXd::Constant(1, 1, 5), "p");
  BOOST_TEST(!p.hasGrad());
  BOOST_TEST(p.grad()(0, 0) == 0);
  for (int step = 1; step <= 2; ++step) {
    tape.clear();
    tape.backward(3 * tape.parameter(p));
    BOOST_TEST(p.grad()(0, 0) == 3 * step);
  }
  p.zeroGrad();
  BOOST_TEST(!p.hasGrad());
  BOOST_TEST(p.grad()(0, 0) == 0);
  tape.clear();
  const Var<double> twice = tape.parameter(p) + tape.parameter(p);
  tape.backward(twice);
  BOOST_TEST(p.grad()(0, 0) == 2);
}

BOOST_AUTO_TEST_CASE(theFirstContributionAfterZeroGradAssigns) {
  Tape<double> tape;
  Parameter<double> p(MatrixXd::Ones(1, 1));
  p.mutableGrad()(0, 0) = std::nan("");  // addition would keep it
  tape.backward(3 * tape.parameter(p));
  BOOST_TEST(p.grad()(0, 0) == 3);
}

BOOST_AUTO_TEST_CASE(aFrozenParameterTakesNoGradient) {
  Tape<double> tape;
  Parameter<double> w(MatrixXd::Ones(2, 2), "w", /*requiresGrad=*/false), b(MatrixXd::Ones(2, 1), "b");
  const Var<double> y = linear(w, tape.constant(MatrixXd::Ones(2, 3)), b);
  tape.backward(sum(y));
  BOOST_TEST(!w.hasGrad());
  BOOST_TEST(w.grad().size() == 0);
  BOOST_TEST((b.grad().array() == 3).all());
}

BOOST_AUTO_TEST_CASE(aParameterModifiedBeforeBackwardIsDetected) {
  Tape<double> tape;
  Parameter<double> w(MatrixXd::Ones(1, 1), "w"), b(MatrixXd::Ones(1, 1), "b");
  const Var<double> x = tape.constant(MatrixXd::Ones(1, 1));
  const Var<double> y = linear(w, x, b);
  w.mutableValue()(0, 0) = 2;
  BOOST_CHECK_EXCEPTION(tape.backward(y), std::logic_error, [](const auto& e) { return mentions(e, "parameter 'w'"); });
  BOOST_TEST(!b.hasGrad());  // refused before anything was added

  tape.clear();
  const Var<double> z = linear(tape.parameter(w).detach(), tape.parameter(b));
  w.mutableValue()(0, 0) = 3;
  BOOST_CHECK_THROW(tape.backward(z), std::logic_error);
}

BOOST_AUTO_TEST_CASE(detachStopsTheGradient) {
  Tape<double> tape;
  const Var<double> x = tape.variable(MatrixXd::Constant(1, 1, 3));
  const Var<double> d = x.detach();
  BOOST_TEST(d.value().data() == x.value().data());
  tape.backward(cwiseProduct(x, d));
  BOOST_TEST(x.grad()(0, 0) == 3);
}

BOOST_AUTO_TEST_CASE(noGradGuardRecordsNothingAndNests) {
  Tape<double> tape;
  const Var<double> x = tape.variable(MatrixXd::Ones(1, 1));
  auto counter = std::make_shared<int>(0);
  const auto probe = [&] { return tape.record("probe", {x}, x.value(), [counter](const auto&) {}); };
  {
    const NoGradGuard<double> outer(tape);
    { const NoGradGuard<double> inner(tape); }
    BOOST_TEST(!tape.gradEnabled());
    BOOST_TEST(!probe().requiresGrad());
    BOOST_TEST(counter.use_count() == 1);
  }
  BOOST_TEST(probe().requiresGrad());
  BOOST_TEST(counter.use_count() == 2);
}

BOOST_AUTO_TEST_CASE(payloadsAreDestroyed) {
  auto owned = std::make_shared<int>(0);
  {
    Tape<double> tape;
    for (int step = 0; step < 2; ++step) {
      const Var<double> x = tape.variable(MatrixXd::Ones(1, 1));
      tape.record("owner", {x}, x.value(), [owned](const auto&) {});
      BOOST_TEST(owned.use_count() == 2);
      tape.clear();
      BOOST_TEST(owned.use_count() == 1);
    }
    const Var<double> x = tape.variable(MatrixXd::Ones(1, 1));
    tape.record("owner", {x}, x.value(), [owned](const auto&) {});
  }
  BOOST_TEST(owned.use_count() == 1);
}

BOOST_AUTO_TEST_CASE(aThrowingPullbackLeavesTheTapeUsable) {
  Tape<double> tape;
  const Var<double> x = tape.variable(MatrixXd::Ones(1, 1));
  const Var<double> y = tape.record("thrower", {x}, x.value(), [](const auto&) { throw std::runtime_error("no"); });
  BOOST_CHECK_THROW(tape.backward(y), std::runtime_error);
  tape.backward(2 * x);
  BOOST_TEST(x.grad()(0, 0) == 2);
  BOOST_CHECK_NO_THROW(tape.clear());
}

BOOST_AUTO_TEST_CASE(secondDerivativesAreRefused) {
  Tape<double> tape;
  const Var<double> x = tape.variable(MatrixXd::Ones(1, 1));
  const Var<double> y = tape.record("inner", {x}, x.value(), [=](const auto&) { (void)(2 * x); });
  BOOST_CHECK_EXCEPTION(tape.backward(y), std::logic_error,
                        [](const auto& e) { return mentions(e, "second derivatives"); });
  const Var<double> z = tape.record("clearing", {x}, x.value(), [&tape](const auto&) { tape.clear(); });
  BOOST_CHECK_THROW(tape.backward(z), std::logic_error);
}

BOOST_AUTO_TEST_CASE(aCustomOpIsThreeLines) {
  EigenQ::test::expectGradient([](Tape<double>&, const auto& v) { return softplus(v[0]); }, {{3, 2}});
  Tape<double> tape;
  BOOST_TEST(softplus(tape.constant(MatrixXd::Zero(1, 1))).item() == std::log(2.0));
}

BOOST_AUTO_TEST_CASE(gradCheckFindsTheWrongEntry) {
  const auto square = [](Tape<double>& tape, const EigenQ::test::Vars& v) {
    const Var<double> x = v[1];
    return tape.record("square", {x}, x.value().cwiseAbs2(), [=](const auto& dy) {
      MatrixXd dx = 2 * dy.cwiseProduct(x.value());
      dx(1, 2) *= 1.001;
      x.addGrad(dx);
    });
  };
  const GradCheckResult result = gradCheck(square, {MatrixXd::Ones(1, 1), MatrixXd::Ones(3, 4)});
  BOOST_TEST(!result);
  BOOST_TEST(result.input == 1u);
  BOOST_TEST(result.row == 1);
  BOOST_TEST(result.col == 2);
  BOOST_TEST(result.analytic == 1.001 * result.numeric, boost::test_tools::tolerance(1e-8));
}

BOOST_AUTO_TEST_CASE(gradCheckFindsAMissingGradient) {
  const auto cut = [](Tape<double>&, const EigenQ::test::Vars& v) { return 2 * v[0].detach(); };
  BOOST_TEST(!gradCheck(cut, {MatrixXd::Ones(2, 2)}));
  const auto nan = [](Tape<double>&, const EigenQ::test::Vars& v) { return v[0] / 0.0 - v[0] / 0.0; };
  BOOST_TEST(!gradCheck(nan, {MatrixXd::Ones(2, 2)}));
}
