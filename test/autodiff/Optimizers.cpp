// SPDX-License-Identifier: MPL-2.0
#define BOOST_TEST_MODULE Optimizers
#include "Support.h"

#include <boost/mpl/list.hpp>

#include <cmath>
#include <limits>
#include <memory>
#include <stdexcept>

using namespace EigenQ::ad;
using Eigen::MatrixXd;
using Eigen::Vector2d;
using EigenQ::test::expectClose;
using EigenQ::test::randomMatrix;
using EigenQ::test::sameBits;
namespace tt = boost::test_tools;

namespace {

using Kinds = boost::mpl::list<AdamW<float>, Sgd<float>, Lion<float>>;

/** Leaves \a gradient in the parameter, the way a backward() does. */
template <typename Scalar>
void setGrad(Parameter<Scalar>& p, const Eigen::MatrixX<Scalar>& gradient) {
  p.zeroGrad();
  Tape<Scalar> tape;
  tape.backward(tape.parameter(p), gradient);
}

}  // namespace

BOOST_AUTO_TEST_CASE(sgdByHand) {
  Parameter<double> w(MatrixXd::Constant(1, 1, 2.0));
  Sgd<double> sgd({&w}, {/*learningRate=*/0.1, /*momentum=*/0.5, /*weightDecay=*/0.25});
  setGrad<double>(w, MatrixXd::Constant(1, 1, 3.0));
  sgd.step();  // g = 3 + 0.25·2 = 3.5, b = 3.5, w = 2 - 0.35
  BOOST_TEST(w.value()(0, 0) == 1.65, tt::tolerance(1e-15));
  setGrad<double>(w, MatrixXd::Constant(1, 1, -2.0));
  sgd.step(/*gradScale=*/0.5);  // g = -1 + 0.4125, b = 1.75 - 0.5875 = 1.1625, w = 1.65 - 0.11625
  BOOST_TEST(w.value()(0, 0) == 1.53375, tt::tolerance(1e-15));
}

BOOST_AUTO_TEST_CASE(plainSgd) {
  Parameter<double> w(MatrixXd::Constant(1, 1, 2.0));
  Sgd<double> sgd({&w}, {0.1, 0, 0.5});
  setGrad<double>(w, MatrixXd::Constant(1, 1, 3.0));
  sgd.step();  // 2 - 0.1·(3 + 1)
  BOOST_TEST(w.value()(0, 0) == 1.6, tt::tolerance(1e-15));
}

BOOST_AUTO_TEST_CASE(adamWByHand) {
  Parameter<double> w(MatrixXd::Constant(1, 1, 2.0));
  AdamW<double> adam({&w}, {/*learningRate=*/0.1, /*beta1=*/0.5, /*beta2=*/0.75, /*eps=*/1e-3, /*weightDecay=*/0.2});
  setGrad<double>(w, MatrixXd::Constant(1, 1, 4.0));
  adam.step();
  // decay: 2·0.98 = 1.96. m = 2, v = 4; m̂ = 2/0.5 = 4, v̂ = 4/0.25 = 16; 1.96 - 0.1·4/(4 + 1e-3)
  const double first = 1.96 - 0.4 / 4.001;
  BOOST_TEST(w.value()(0, 0) == first, tt::tolerance(1e-15));
  setGrad<double>(w, MatrixXd::Constant(1, 1, -1.0));
  adam.step();
  // m = 0.5·2 - 0.5 = 0.5, v = 3 + 0.25 = 3.25; m̂ = 0.5/0.75, v̂ = 3.25/0.4375
  BOOST_TEST(w.value()(0, 0) == first * 0.98 - 0.1 * (0.5 / 0.75) / (std::sqrt(3.25 / 0.4375) + 1e-3),
             tt::tolerance(1e-14));
}

BOOST_AUTO_TEST_CASE(lionByHand) {
  Parameter<double> w(MatrixXd::Constant(1, 1, 2.0));
  Lion<double> lion({&w}, {/*learningRate=*/0.125, /*beta1=*/0.5, /*beta2=*/0.75, /*weightDecay=*/0.5});
  setGrad<double>(w, MatrixXd::Constant(1, 1, 3));
  lion.step();  // 2·(1 - 0.0625) - 0.125; m = 0.75
  BOOST_TEST(w.value()(0, 0) == 1.75);
  setGrad<double>(w, MatrixXd::Constant(1, 1, -0.5));
  lion.step();  // the average 0.375 - 0.25 is still positive; m = 0.5625 - 0.125
  BOOST_TEST(w.value()(0, 0) == 1.75 * 0.9375 - 0.125);
  BOOST_TEST(lion.state().momentum[0](0, 0) == 0.4375);
}

BOOST_AUTO_TEST_CASE(gradScaleIsAScaledGradient) {
  Parameter<double> a(randomMatrix(3, 2, 1)), b(randomMatrix(3, 2, 1));
  AdamW<double> first({&a}), second({&b});
  setGrad<double>(a, randomMatrix(3, 2, 2));
  setGrad<double>(b, 0.25 * randomMatrix(3, 2, 2));
  first.step(0.25);
  second.step();
  BOOST_TEST(sameBits<double>(a.value(), b.value()));
}

BOOST_AUTO_TEST_CASE(aParameterWithoutGradientStaysAsItIs) {
  Parameter<double> used(MatrixXd::Ones(2, 2)), unused(MatrixXd::Ones(2, 2)), frozen(MatrixXd::Ones(1, 1), "", false);
  AdamW<double> adam({&used, &unused, &frozen});
  setGrad<double>(used, MatrixXd::Ones(2, 2));
  adam.step();
  BOOST_TEST((used.value().array() < 1).all());
  BOOST_TEST((unused.value().array() == 1).all());  // not even decay
  BOOST_TEST(frozen.value()(0, 0) == 1);
  BOOST_TEST(adam.state().steps[0] == 1);
  BOOST_TEST(adam.state().steps[1] == 0);
  adam.zeroGrad();
  const MatrixXd before = used.value();
  adam.step();
  BOOST_TEST(sameBits<double>(used.value(), before));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(aRestoredRunContinuesToTheBit, Optimizer, Kinds) {
  const auto make = [](Parameter<float>& p) {
    if constexpr (std::is_same_v<Optimizer, Sgd<float>>)
      return std::make_unique<Optimizer>(std::vector<Parameter<float>*>{&p}, SgdOptions{0.1, 0.9, 0.01});
    else
      return std::make_unique<Optimizer>(std::vector<Parameter<float>*>{&p});
  };
  const auto gradient = [](std::uint64_t step) { return randomMatrix<float>(3, 4, step); };
  Parameter<float> straight(randomMatrix<float>(3, 4, 100)), restarted(randomMatrix<float>(3, 4, 100));
  auto optimizer = make(straight), saved = make(restarted);
  for (std::uint64_t step = 0; step < 6; ++step) {
    setGrad<float>(straight, gradient(step));
    optimizer->step();
    setGrad<float>(restarted, gradient(step));
    saved->step();
    auto fresh = make(restarted);
    fresh->setState(saved->state());
    saved = std::move(fresh);
  }
  BOOST_TEST(sameBits<float>(straight.value(), restarted.value()));
}

BOOST_AUTO_TEST_CASE(stateThatDoesNotFitIsRefused) {
  Parameter<double> p(MatrixXd::Ones(2, 3), "p");
  AdamW<double> adam({&p});
  auto state = adam.state();
  state.secondMoment[0].resize(3, 2);
  BOOST_CHECK_EXCEPTION(adam.setState(state), std::invalid_argument, [](const auto& e) {
    return std::string(e.what()) == "AdamW: secondMoment: parameter 0 'p': expected 2x3, found 3x2";
  });
  state = adam.state();
  state.steps.clear();
  BOOST_CHECK_THROW(adam.setState(state), std::invalid_argument);
  Sgd<double> sgd({&p}, {0.1, 0.9, 0});
  BOOST_CHECK_THROW(sgd.setState({}), std::invalid_argument);
  Lion<double> lion({&p});
  BOOST_CHECK_THROW(lion.setState({}), std::invalid_argument);
}

BOOST_AUTO_TEST_CASE(impossibleOptionsAreRefused) {
  Parameter<double> p(MatrixXd::Ones(1, 1));
  BOOST_CHECK_THROW(Sgd<double>({&p}, {-1, 0, 0}), std::invalid_argument);
  BOOST_CHECK_THROW(AdamW<double>({&p}, {1e-3, 1.0}), std::invalid_argument);
  BOOST_CHECK_THROW(Lion<double>({&p}, {1e-3, 0.9, 0.99, -1}), std::invalid_argument);
  BOOST_CHECK_THROW(AdamW<double>({nullptr}), std::invalid_argument);
  BOOST_CHECK_THROW(AdamW<double>({&p, &p}), std::invalid_argument);
}

BOOST_AUTO_TEST_CASE(oneNormOverAllParameters) {
  Parameter<double> a(MatrixXd::Ones(1, 2)), b(MatrixXd::Ones(1, 1)), unreached(MatrixXd::Ones(1, 1));
  const std::vector<Parameter<double>*> all{&a, &b, &unreached};
  const auto reset = [&] {
    setGrad<double>(a, (MatrixXd(1, 2) << 1, -2).finished());
    setGrad<double>(b, MatrixXd::Constant(1, 1, 2));
  };
  reset();
  BOOST_TEST(clipGradNorm(all, 10) == 3);
  BOOST_TEST(a.grad()(0, 1) == -2);
  BOOST_TEST(clipGradNorm(all, 1.5) == 3);
  const double factor = 1.5 / (3 + 1e-6);
  BOOST_TEST(a.grad()(0, 0) == factor, tt::tolerance(1e-15));
  BOOST_TEST(a.grad()(0, 1) == -2 * factor, tt::tolerance(1e-15));
  BOOST_TEST(b.grad()(0, 0) == 2 * factor, tt::tolerance(1e-15));
  reset();
  b.mutableGrad()(0, 0) = std::numeric_limits<double>::infinity();
  BOOST_TEST(std::isinf(clipGradNorm(all, 1)));
  BOOST_TEST(a.grad()(0, 0) == 1);
  BOOST_CHECK_THROW(clipGradNorm(all, -1), std::invalid_argument);
}

BOOST_AUTO_TEST_CASE(stepsOfGradientsThatAreNotFiniteCountAndChangeNothing) {
  Parameter<double> p(MatrixXd::Ones(2, 1)), other(MatrixXd::Ones(2, 1)), unreached(MatrixXd::Ones(1, 1));
  AdamW<double> adam({&p, &unreached}), control({&other});
  setGrad<double>(p, Vector2d(1, std::numeric_limits<double>::quiet_NaN()));
  adam.stepIfFinite(clipGradNorm(adam.parameters(), 1));
  BOOST_TEST((p.value() == MatrixXd::Ones(2, 1)));
  BOOST_TEST(adam.state().firstMoment[0].isZero(0));
  BOOST_TEST(adam.state().steps[0] == 1);
  BOOST_TEST(adam.state().steps[1] == 0);
  AdamW<double>::State second = control.state();
  second.steps = {1};
  control.setState(second);
  for (Parameter<double>* one : {&p, &other}) setGrad<double>(*one, Vector2d(0.25, -0.5));
  adam.stepIfFinite(clipGradNorm(adam.parameters(), 1), 2.0);
  control.step(2.0);
  BOOST_TEST((p.value() == other.value()));
  BOOST_TEST((p.value() != MatrixXd::Ones(2, 1)));
}

BOOST_AUTO_TEST_CASE(schedules) {
  const Schedule constant = Schedule::constant(2, 4);
  for (int step : {0, 1, 2, 3}) BOOST_TEST(constant(step) == 2 * (step + 1) / 4.0);
  BOOST_TEST(constant(4) == 2);
  BOOST_TEST(constant(1000) == 2);

  const Schedule linear = Schedule::linear(1, 12, 2, 0.5);
  BOOST_TEST(linear(0) == 0.5);
  BOOST_TEST(linear(2) == 1);
  BOOST_TEST(linear(7) == 0.75);
  BOOST_TEST(linear(12) == 0.5);
  BOOST_TEST(linear(50) == 0.5);

  const Schedule cosine = Schedule::cosine(1, 12, 0);
  BOOST_TEST(cosine(0) == 1);
  BOOST_TEST(cosine(4) == 0.75, tt::tolerance(1e-15));  // (1 + cos 60°)/2
  BOOST_TEST(cosine(6) == 0.5, tt::tolerance(1e-15));
  BOOST_TEST(cosine(12) == 0);
  BOOST_CHECK_THROW(Schedule::cosine(1, 5, 6), std::invalid_argument);
  BOOST_CHECK_THROW(Schedule::constant(1, -1), std::invalid_argument);
}
