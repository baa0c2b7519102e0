// SPDX-License-Identifier: MPL-2.0
// softmax and cross-entropy on the device, within the bounds of float arithmetic.
#define BOOST_TEST_MODULE cuda_OpKernelsColumns
#include "Device.h"

#include <unsupported/eigen_q/Autodiff>

#include "OnTape.h"
#include "OpOperands.h"

using namespace EigenQ;
using namespace EigenQ::test;
using namespace EigenQ::gpu::internal;
using Eigen::ArrayXXd;
using Eigen::MatrixXd;
using gpu::Context;

namespace {

template <typename F>
void forEachShape(F f) {
  forEachSetting({{0, 3}, {5, 0}, {1, 3}, {7, 5}, {64, 17}, {333, 7}, {1000, 70}, {4096, 2}, {32000, 3}}, f);
}

/** Roundings of one term in a sum over a column: a thread's own terms, and the tree over at most 512 threads. */
Index roundingsOf(Index rows) { return rows / 512 + 64; }

Eigen::RowVectorXd logSumExps(const MatrixXd& x) {
  Eigen::RowVectorXd lse(x.cols());
  for (Index j = 0; j < x.cols(); ++j) {
    const double top = x.col(j).maxCoeff();
    lse(j) = top + std::log((x.col(j).array() - top).exp().sum());
  }
  return lse;
}

/** Relative error of Σ exp(x - top): each addition may rescale by an exponential, whose arguments add up to the range.
 */
double sumError(const MatrixXd& x, Index j) {
  const double range = x.col(j).maxCoeff() - x.col(j).minCoeff();
  return kUnit * (2 * range + 8 * static_cast<double>(roundingsOf(x.rows())));
}
double lseError(const MatrixXd& x, Index j, double lse) {
  return sumError(x, j) + 4 * kUnit * (std::abs(lse) + x.col(j).cwiseAbs().maxCoeff());
}

DeviceArray<float> zeros(Index size) { return DeviceArray<float>(std::vector<float>(static_cast<std::size_t>(size))); }

}  // namespace

BOOST_AUTO_TEST_CASE(softmaxForwardAndLog, *needsDevice()) {
  Context context;
  forEachShape([&](const Setting& setting) {
    if (setting.rows == 0) return;
    OpMatrix x = setting.random(1, 4), y = setting.random(2);
    const MatrixXd v = x.values();
    const Eigen::RowVectorXd lse = logSumExps(v);
    MatrixXd p(v.rows(), v.cols()), log = p, pError = p, logError = p;
    for (Index j = 0; j < v.cols(); ++j) {
      log.col(j) = v.col(j).array() - lse(j);
      p.col(j) = log.col(j).array().exp();
      const double range = v.col(j).maxCoeff() - v.col(j).minCoeff();
      pError.col(j) = (sumError(v, j) + kExpError + kUnit * (range + 2)) * p.col(j);
      logError.col(j) = lseError(v, j, lse(j)) + 2 * kUnit * log.col(j).array().abs();
    }
    checkOp("softmax " + setting.name(), {{"y", &y, p, pError}}, false, context,
            [&](bool) { softmaxForward(x.in(), y.out(), context); });
    checkOp("logSoftmax " + setting.name(), {{"y", &y, log, logError}}, false, context,
            [&](bool) { logSoftmaxForward(x.in(), y.out(), context); });
    x.upload();
    softmaxForward(x.in(), x.out(), context);
    checkValues(x.valuesOf(x.download(context)), p, pError, setting.scalar, "softmax in place " + setting.name());
  });
}

BOOST_AUTO_TEST_CASE(softmaxOfInfinitiesAndNaN, *needsDevice()) {
  Context context;
  MatrixXd x(5, 4), p = MatrixXd::Zero(5, 4);
  x.col(0) << -INFINITY, -INFINITY, 2, -INFINITY, 2;
  p.col(0) << 0, 0, 0.5, 0, 0.5;
  x.col(1) << 1e4, -1e4, 0, 0, 0;
  p(0, 1) = 1;
  x.col(2) << 0, NAN, 0, 0, 0;
  p.col(2).setConstant(NAN);
  x.col(3) << NAN, 1, INFINITY, 0, 0;
  p.col(3).setConstant(NAN);
  for (const ScalarType scalar : kDeviceScalars) {
    const OpMatrix in(scalar, x);
    OpMatrix y(scalar, p);
    checkOp(std::string("softmax ") + nameOf(scalar), {{"y", &y, p, 16 * kUnit * p}}, false, context,
            [&](bool) { softmaxForward(in.in(), y.out(), context); });
  }
}

BOOST_AUTO_TEST_CASE(softmaxPullsBack, *needsDevice()) {
  Context context;
  forEachShape([&](const Setting& setting) {
    const OpMatrix y = setting.random(1), dy = setting.random(2);
    OpMatrix dx = setting.random(3);
    const MatrixXd p = y.values(), g = dy.values();
    MatrixXd exact(p.rows(), p.cols()), log = exact, error = exact, logError = exact;
    const double gamma = gammaFloat(roundingsOf(p.rows()));
    for (Index j = 0; j < p.cols(); ++j) {
      const auto pj = p.col(j).array(), gj = g.col(j).array();
      const double dot = (pj * gj).sum(), dotError = gamma * (pj * gj).abs().sum();
      exact.col(j) = pj * (gj - dot);
      error.col(j) = pj.abs() * dotError + 3 * kUnit * pj.abs() * (gj.abs() + std::abs(dot));
      log.col(j) = gj - pj.exp() * gj.sum();
      logError.col(j) = pj.exp() * (gamma * gj.abs().sum() + (kExpError + kUnit) * std::abs(gj.sum())) +
                        2 * kUnit * log.col(j).array().abs();
    }
    checkOp("softmaxBackward " + setting.name(), {{"dx", &dx, exact, error}}, true, context,
            [&](bool accumulate) { softmaxBackward(y.in(), dy.in(), dx.out(), accumulate, context); });
    checkOp("logSoftmaxBackward " + setting.name(), {{"dx", &dx, log, logError}}, true, context,
            [&](bool accumulate) { logSoftmaxBackward(y.in(), dy.in(), dx.out(), accumulate, context); });
  });
}

BOOST_AUTO_TEST_CASE(softmaxPullbacksAreTheTapes) {
  const MatrixXd x = gaussian(9, 4, 1), g = gaussian(9, 4, 2);
  const OnTape plain({x}, g, [](const auto& v) { return ad::softmax(v[0]); });
  const OnTape log({x}, g, [](const auto& v) { return ad::logSoftmax(v[0]); });
  for (Index j = 0; j < 4; ++j) {
    const auto p = plain.y.col(j).array();
    BOOST_TEST(
        (plain.gradients[0].col(j).array() - p * (g.col(j).array() - p.matrix().dot(g.col(j)))).abs().maxCoeff() <
        1e-14);
    BOOST_TEST((log.gradients[0].col(j).array() - (g.col(j).array() - log.y.col(j).array().exp() * g.col(j).sum()))
                   .abs()
                   .maxCoeff() < 1e-14);
  }
}

namespace {

constexpr std::int32_t kIgnored = -100;

/** Every third token is ignored, or all of them. */
std::vector<std::int32_t> targetsOf(Index tokens, Index classes, bool allIgnored) {
  std::vector<std::int32_t> targets;
  for (Index t = 0; t < tokens; ++t)
    targets.push_back(allIgnored || t % 3 == 1 ? kIgnored
                                               : static_cast<std::int32_t>((t * 7919 + classes - 1) % classes));
  return targets;
}

void checkCrossEntropy(const Setting& setting, bool mean, bool allIgnored, Context& context) {
  const OpMatrix logits = setting.random(1, 3);
  const MatrixXd x = logits.values();
  const std::vector<std::int32_t> targets = targetsOf(setting.cols, setting.rows, allIgnored);
  const Eigen::VectorXi ids = Eigen::Map<const Eigen::VectorXi>(targets.data(), setting.cols);
  const OpMatrix dloss(setting.scalar, MatrixXd::Constant(1, 1, 0.77));
  const OnTape tape({x}, dloss.values(), [&](const auto& v) {
    return ad::crossEntropy(v[0], ids, kIgnored, mean ? ad::Reduction::Mean : ad::Reduction::Sum);
  });
  const Index counted = ad::countedTargets(ids, kIgnored);
  const float weight = mean && counted > 0 ? 1.0f / static_cast<float>(counted) : 1.0f;
  const double g = dloss.values()(0, 0) * static_cast<double>(weight);

  Eigen::RowVectorXd lse = logSumExps(x);
  MatrixXd lseErrors(1, x.cols()), lossError = MatrixXd::Zero(1, 1), error(x.rows(), x.cols());
  for (Index j = 0; j < x.cols(); ++j) {
    const bool isCounted = targets[static_cast<std::size_t>(j)] != kIgnored;
    lseErrors(j) = isCounted ? lseError(x, j, lse(j)) : 0;
    if (!isCounted) lse(j) = 0;
    // The saved log-sum-exp is rounded; so are its difference from the logit and the exponential.
    const ArrayXXd p = (x.col(j).array() - lse(j)).exp();
    error.col(j) = std::abs(g) *
                   (p * (kUnit * (2 * std::abs(lse(j)) + x.col(j).array().abs()) + kExpError + 4 * kUnit) + 3 * kUnit);
    if (!isCounted) error.col(j).setZero();
    if (isCounted)
      lossError(0, 0) += static_cast<double>(weight) * (lseErrors(j) + kUnit * std::abs(lse(j) - x(ids(j), j)));
  }
  lossError += 3 * kUnit * tape.y.cwiseAbs();

  DeviceArray<std::int32_t> deviceTargets(targets);
  OpMatrix savedLse(ScalarType::kFloat, lse), savedWeight(ScalarType::kFloat, MatrixXd::Constant(1, 1, weight));
  OpMatrix loss(setting.scalar, MatrixXd::Zero(1, 1));
  CrossEntropy forward;
  forward.logits = logits.in();
  forward.targets = deviceTargets.data();
  forward.ignoreIndex = kIgnored;
  forward.mean = mean;
  forward.lse = static_cast<float*>(savedLse.out().data);
  forward.weight = static_cast<float*>(savedWeight.out().data);
  forward.loss = loss.out();
  const std::string name =
      "crossEntropy " + setting.name() + (mean ? ", mean" : ", sum") + (allIgnored ? " of none" : "");
  checkOp(name,
          {{"loss", &loss, tape.y, lossError},
           {"lse", &savedLse, lse, lseErrors},
           {"weight", &savedWeight, MatrixXd::Constant(1, 1, static_cast<double>(weight)), MatrixXd::Zero(1, 1)}},
          false, context, [&](bool) { crossEntropyForward(forward, context); });

  savedLse.upload(), savedWeight.upload();  // exact, but for their rounding
  OpMatrix dlogits = setting.random(4), inPlace = setting.random(1, 3);
  CrossEntropyBackward backward;
  backward.logits = logits.in();
  backward.targets = deviceTargets.data();
  backward.ignoreIndex = kIgnored;
  backward.lse = forward.lse;
  backward.weight = forward.weight;
  backward.dloss = dloss.in();
  backward.dlogits = dlogits.out();
  checkOp(name, {{"dlogits", &dlogits, tape.gradients[0], error}}, true, context, [&](bool accumulate) {
    backward.accumulate = accumulate;
    crossEntropyBackward(backward, context);
  });
  backward.accumulate = false;
  backward.logits = inPlace.in();
  backward.dlogits = inPlace.out();
  crossEntropyBackward(backward, context);
  checkValues(inPlace.valuesOf(inPlace.download(context)), tape.gradients[0], error, setting.scalar,
              name + " in place");
}

}  // namespace

BOOST_AUTO_TEST_CASE(crossEntropyForwardAndBackward, *needsDevice()) {
  Context context;
  forEachSetting({{1, 5}, {7, 0}, {7, 1}, {7, 40}, {320, 33}, {32000, 5}}, [&](const Setting& setting) {
    for (const bool mean : {true, false})
      for (const bool allIgnored : {false, true}) checkCrossEntropy(setting, mean, allIgnored, context);
  });
}

BOOST_AUTO_TEST_CASE(manyTokensShareOneLoss, *needsDevice()) {
  Context context;
  checkCrossEntropy({ScalarType::kFloat, Columns::kPacked, 3, 5000}, true, false, context);
}

BOOST_AUTO_TEST_CASE(targetsOutOfRangeMakeNaN, *needsDevice()) {
  Context context;
  const OpMatrix logits(ScalarType::kFloat, gaussian(7, 3, 1)), dloss(ScalarType::kFloat, MatrixXd::Ones(1, 1));
  OpMatrix dlogits(ScalarType::kFloat, gaussian(7, 3, 2)), loss(ScalarType::kFloat, MatrixXd::Zero(1, 1));
  for (const std::int32_t wrong : {7, -1, 1 << 30}) {
    DeviceArray<std::int32_t> targets(std::vector<std::int32_t>{1, wrong, kIgnored});
    DeviceArray<float> lse = zeros(3), weight = zeros(1);
    crossEntropyForward({logits.in(), targets.data(), kIgnored, true, lse.data(), weight.data(), loss.out()}, context);
    crossEntropyBackward({logits.in(), targets.data(), kIgnored, lse.data(), weight.data(), dloss.in(), dlogits.out()},
                         context);
    BOOST_TEST(std::isnan(loss.valuesOf(loss.download(context))(0, 0)));
    const MatrixXd d = dlogits.valuesOf(dlogits.download(context));
    BOOST_TEST(d.col(0).allFinite());
    BOOST_TEST(d.col(1).array().isNaN().all());
    BOOST_TEST((d.col(2).array() == 0).all());
  }
}
