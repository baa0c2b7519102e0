// SPDX-License-Identifier: MPL-2.0
// The elementwise ops of the tape on the device against the host's ops in double, within the bounds of float
// arithmetic.
#define BOOST_TEST_MODULE cuda_OpKernels
#include "Device.h"

#include <unsupported/eigen_q/Autodiff>

#include "OpOperands.h"
#include "OnTape.h"

using namespace EigenQ;
using namespace EigenQ::test;
using namespace EigenQ::gpu::internal;
using Eigen::ArrayXXd;
using Eigen::MatrixXd;
using gpu::Context;

namespace {

/** Empty, odd, multiples of a pack, and beyond a block of threads. */
template <typename F>
void forEachShape(F f) {
  forEachSetting({{0, 3}, {5, 0}, {1, 1}, {7, 5}, {16, 3}, {64, 17}, {300, 11}, {333, 7}, {1024, 9}}, f);
}

ArrayXXd logistic(const ArrayXXd& x) { return 1 / (1 + (-x).exp()); }

/** \param error  of the slope a'(x) */
void checkActivation(Activation activation, const char* name, const Setting& setting, const OpMatrix& saved,
                     const OpMatrix& dy, const MatrixXd& exact, const ArrayXXd& error, Context& context) {
  OpMatrix dx = setting.random(3);
  const MatrixXd bound = error * dy.values().array().abs() + kUnit * exact.array().abs();
  checkOp(std::string(name) + " " + setting.name(), {{"dx", &dx, exact, bound}}, true, context, [&](bool accumulate) {
    activationBackward({activation, saved.in(), dy.in(), dx.out(), accumulate}, context);
  });
}

}  // namespace

BOOST_AUTO_TEST_CASE(activationsPullBack, *needsDevice()) {
  Context context;
  forEachShape([&](const Setting& setting) {
    const OpMatrix x = setting.random(1, 3), dy = setting.random(2);
    const ArrayXXd v = x.values(), sigma = logistic(v);
    const ArrayXXd zero = ArrayXXd::Zero(v.rows(), v.cols());
    const auto gradient = [&](auto op) { return OnTape({x.values()}, dy.values(), op).gradients[0]; };
    checkActivation(Activation::kNone, "none", setting, x, dy, dy.values(), zero, context);
    checkActivation(Activation::kRelu, "relu", setting, x, dy, gradient([](const auto& i) { return ad::relu(i[0]); }),
                    zero, context);
    // σ has 6 roundings, 1 - σ an absolute error of as many times σ ≤ 1; then a product and a sum.
    checkActivation(Activation::kSilu, "silu", setting, x, dy, gradient([](const auto& i) { return ad::silu(i[0]); }),
                    16 * kUnit * sigma * (1 + v.abs()), context);
    // Φ by erfc of an argument with 2 roundings; φ by exp of one with 2; the errors of arguments times derivatives.
    // The tape's own 1 + erf cancels in double.
    const ArrayXXd phi = (-v.square() / 2).exp() * 0.3989422804014327;
    const ArrayXXd cumulative = v.unaryExpr([](double t) { return 0.5 * std::erfc(-t / std::sqrt(2.0)); });
    checkActivation(Activation::kGelu, "gelu", setting, x, dy, gradient([](const auto& i) { return ad::gelu(i[0]); }),
                    (kErfcError + 2 * kUnit) * cumulative +
                        v.abs() * phi * (kUnit * (2 + v.square() + 4) + kExpError + 2 * kUnit) + 0x1p-52,
                    context);
    // tanh saves its result, which is rounded: the tape's formula on what the device has.
    const OpMatrix y = setting.matrix(v.tanh().matrix(), 1);
    const ArrayXXd slope = 1 - y.values().array().square();
    checkActivation(Activation::kTanh, "tanh", setting, y, dy, slope * dy.values().array(), kUnit * slope.abs(),
                    context);
  });
}

BOOST_AUTO_TEST_CASE(reluSelectsWhereAProductWouldBeNaN, *needsDevice()) {
  Context context;
  MatrixXd saved(4, 1), dy(4, 1), exact(4, 1);
  saved << 0, 0, 2, 2;
  dy << INFINITY, NAN, 3, NAN;
  exact << 0, 0, 3, NAN;
  const OpMatrix y(ScalarType::kFloat, saved), g(ScalarType::kFloat, dy);
  OpMatrix dx(ScalarType::kFloat, MatrixXd::Zero(4, 1));
  checkOp("relu", {{"dx", &dx, exact, MatrixXd::Zero(4, 1)}}, false, context, [&](bool) {
    activationBackward({Activation::kRelu, y.in(), g.in(), dx.out(), false}, context);
  });
}

BOOST_AUTO_TEST_CASE(swigluForwardAndBackward, *needsDevice()) {
  Context context;
  forEachShape([&](const Setting& setting) {
    const OpMatrix gate = setting.random(1, 3), up = setting.random(2), dy = setting.random(3);
    OpMatrix y = setting.random(4), dgate = setting.random(5), dup = setting.random(6);
    const OnTape tape({gate.values(), up.values()}, dy.values(), [](const auto& i) { return ad::swiglu(i[0], i[1]); });
    const std::string name = "swiglu " + setting.name();
    checkOp(name, {{"y", &y, tape.y, 10 * kUnit * tape.y.cwiseAbs()}}, false, context,
            [&](bool) { swigluForward(gate.in(), up.in(), y.out(), context); });
    const ArrayXXd x = gate.values(), u = up.values(), g = dy.values();
    const MatrixXd gateError = 20 * kUnit * (g * u).abs() * logistic(x) * (1 + x.abs());
    const Outcome toGate = {"dgate", &dgate, tape.gradients[0], gateError};
    const Outcome toUp = {"dup", &dup, tape.gradients[1], 10 * kUnit * tape.gradients[1].cwiseAbs()};
    checkOp(name, {toGate, toUp}, true, context, [&](bool add) {
      swigluBackward({gate.in(), up.in(), dy.in(), dgate.out(), dup.out(), add, add}, context);
    });
    checkOp(name + " alone", {toGate}, true, context, [&](bool add) {
      swigluBackward({gate.in(), up.in(), dy.in(), dgate.out(), {}, add, !add}, context);
    });
    checkOp(name + " alone", {toUp}, true, context, [&](bool add) {
      swigluBackward({gate.in(), up.in(), dy.in(), {}, dup.out(), !add, add}, context);
    });
  });
}

BOOST_AUTO_TEST_CASE(productsAndFactors, *needsDevice()) {
  Context context;
  forEachShape([&](const Setting& setting) {
    const OpMatrix a = setting.random(1), b = setting.random(2);
    OpMatrix y = setting.random(3);
    const MatrixXd product = a.values().cwiseProduct(b.values());
    checkOp("product " + setting.name(), {{"y", &y, product, kUnit * product.cwiseAbs()}}, true, context,
            [&](bool accumulate) { cwiseProduct(a.in(), b.in(), y.out(), accumulate, context); });
    // The factor may be of another scalar type than the matrices.
    for (const ScalarType scalar : kDeviceScalars) {
      const OpMatrix factor(scalar, MatrixXd::Constant(1, 1, -1.37));
      const float alpha = 0.3f;
      const double f = static_cast<double>(alpha) * factor.values()(0, 0);
      const MatrixXd scaled = f * a.values(), all = MatrixXd::Constant(setting.rows, setting.cols, f);
      const std::string name = setting.name() + " by " + nameOf(scalar);
      checkOp("scaleBy " + name, {{"y", &y, scaled, 3 * kUnit * scaled.cwiseAbs()}}, true, context,
              [&](bool accumulate) { scaleBy(a.in(), factor.in(), alpha, y.out(), accumulate, context); });
      checkOp("broadcast " + name, {{"y", &y, all, kUnit * all.cwiseAbs()}}, true, context,
              [&](bool accumulate) { broadcast(factor.in(), alpha, y.out(), accumulate, context); });
    }
  });
}

namespace {

/** The 24 upper bits of the k-th word of the stream keep the k-th entry if they reach ⌊2²⁴p⌋. */
MatrixXd masked(MatrixXd x, double p, const ad::RandomStream& stream) {
  for (Index k = 0; k < x.size(); ++k) {
    const std::uint32_t word = stream(static_cast<std::uint64_t>(k) / 4)[static_cast<std::size_t>(k % 4)];
    x.data()[k] *= (word >> 8) >= static_cast<std::uint32_t>(p * 0x1p24) ? 1 / (1 - p) : 0;
  }
  return x;
}

}  // namespace

BOOST_AUTO_TEST_CASE(theMaskIsTheTapes) {
  ad::Tape<double> tape;
  tape.setSeed(77);
  const MatrixXd x = gaussian(9, 11, 1);
  const auto v = tape.variable(x);
  for (const std::uint64_t stream : {0, 1})
    BOOST_TEST((ad::dropout(v, 0.3).value() - masked(x, 0.3, {77, stream})).cwiseAbs().maxCoeff() < 1e-15);
}

BOOST_AUTO_TEST_CASE(dropoutDrawsTheHostsMask, *needsDevice()) {
  Context context;
  const std::uint64_t seed = 0x123456789abcdefull, stream = 0x9876543210ull;
  forEachShape([&](const Setting& setting) {
    const OpMatrix x = setting.random(1);
    OpMatrix y = setting.random(2);
    for (const double p : {0.0, 0.1, 0.5, 0.999}) {
      const MatrixXd exact = masked(x.values(), p, {seed, stream});
      checkOp("dropout " + std::to_string(p) + " " + setting.name(), {{"y", &y, exact, 2 * kUnit * exact.cwiseAbs()}},
              true, context, [&](bool accumulate) {
                dropout({x.in(), y.out(), p, seed, stream, accumulate}, context);
              });
    }
  });
}

BOOST_AUTO_TEST_CASE(opsInPlace, *needsDevice()) {
  Context context;
  forEachShape([&](const Setting& setting) {
    OpMatrix x = setting.random(1);
    const OpMatrix factor(ScalarType::kFloat, MatrixXd::Constant(1, 1, 2.5));
    scaleBy(x.in(), factor.in(), 1, x.out(), false, context);
    const MatrixXd scaled = 2.5 * x.values();
    checkValues(x.valuesOf(x.download(context)), scaled, 2 * kUnit * scaled.cwiseAbs(), setting.scalar,
                "scaleBy in place " + setting.name());
    OpMatrix y = setting.random(2);
    x.upload();
    dropout({x.in(), y.out(), 0.5, 1, 2, false}, context);
    dropout({x.in(), x.out(), 0.5, 1, 2, false}, context);
    BOOST_TEST((x.valuesOf(x.download(context)) == y.valuesOf(y.download(context))),
               "dropout in place " << setting.name());
  });
}
