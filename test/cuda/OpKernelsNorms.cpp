// SPDX-License-Identifier: MPL-2.0
// RMSNorm, LayerNorm and rotary embedding on the device, within the bounds of float arithmetic; several in one launch
// to the bit.
#define BOOST_TEST_MODULE cuda_OpKernelsNorms
#include "Device.h"

#include <unsupported/eigen_q/Autodiff>

#include "OnTape.h"
#include "OpOperands.h"

using namespace EigenQ;
using namespace EigenQ::test;
using namespace EigenQ::gpu::internal;
using Eigen::ArrayXXd;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using gpu::Context;

namespace {

constexpr double kEps = 1e-5;

/** Roundings of one term in a sum over a column: a thread's own terms, and the tree over at most 512 threads. */
Index roundingsOf(Index rows) { return rows / 512 + 64; }

/** What a norm makes of a column, and how far float arithmetic may be from it. */
struct NormColumn {
  double center = 0, inverse, centerError = 0, inverseError;

  NormColumn(const VectorXd& x, bool centered) {
    const double dim = static_cast<double>(x.size()), gamma = gammaFloat(roundingsOf(x.size()) + 4);
    if (centered) {
      center = x.mean();
      centerError = gamma * x.cwiseAbs().mean();
    }
    const double variance = (x.array() - center).square().sum() / dim;
    inverse = 1 / std::sqrt(variance + kEps);
    // What the center is off adds its square to the variance.
    inverseError = inverse * (0.5 * (gamma * variance + centerError * centerError) * inverse * inverse + 5 * kUnit);
  }
};

void checkNormForward(const Setting& setting, bool centered, Context& context) {
  const OpMatrix x = setting.matrix(gaussian(setting.rows, setting.cols, 1, 2).array() + 0.7, 1);
  const OpMatrix gain(setting.scalar, gaussian(setting.rows, 1, 2)), bias(setting.scalar, gaussian(setting.rows, 1, 3));
  OpMatrix y = setting.random(4);
  OpMatrix inverse(ScalarType::kFloat, MatrixXd::Zero(1, setting.cols)),
      center = OpMatrix(ScalarType::kFloat, MatrixXd::Zero(1, setting.cols));
  const MatrixXd v = x.values(), g = gain.values();
  MatrixXd error(v.rows(), v.cols()), inverses(1, v.cols()), inverseErrors(1, v.cols()), centers(1, v.cols()),
      centerErrors(1, v.cols());
  for (Index t = 0; t < v.cols(); ++t) {
    const NormColumn n(v.col(t), centered);
    const ArrayXXd deviation = (v.col(t).array() - n.center).abs(), weight = g.array().abs();
    error.col(t) = weight * (deviation * (n.inverseError + 3 * kUnit * n.inverse) +
                             n.inverse * (n.centerError + kUnit * deviation));
    inverses(t) = n.inverse, inverseErrors(t) = n.inverseError;
    centers(t) = n.center, centerErrors(t) = n.centerError;
  }
  const OnTape tape({v, g, bias.values()}, MatrixXd::Zero(v.rows(), v.cols()), [&](const auto& i) {
    return centered ? ad::layerNorm<double>(i[0], i[1], i[2], kEps) : ad::rmsNorm<double>(i[0], i[1], kEps);
  });
  error += kUnit * tape.y.cwiseAbs();
  Norm op;
  op.x = x.in();
  op.gain = gain.in();
  if (centered) op.bias = bias.in();
  op.eps = kEps;
  op.y = y.out();
  op.inverse = static_cast<float*>(inverse.out().data);
  if (centered) op.center = static_cast<float*>(center.out().data);
  std::vector<Outcome> outcomes = {{"y", &y, tape.y, error}, {"inverse", &inverse, inverses, inverseErrors}};
  if (centered) outcomes.push_back({"center", &center, centers, centerErrors});
  checkOp((centered ? "layerNorm " : "rmsNorm ") + setting.name(), outcomes, false, context,
          [&](bool) { normForward(op, context); });
}

/** The pullback of one token with inverse and center as saved. */
struct NormPullback {
  ArrayXXd dx, dxError, toGain, toGainMagnitude;

  NormPullback(const ArrayXXd& x, const ArrayXXd& gain, const ArrayXXd& dy, double r, double c, bool centered) {
    const double dim = static_cast<double>(x.size()), gamma = gammaFloat(roundingsOf(x.size()) + 8);
    const ArrayXXd deviation = x - c, h = gain * dy;
    const double meanH = centered ? h.mean() : 0, meanHError = centered ? gamma * h.abs().mean() : 0;
    const double projection = r * r * (h * deviation).sum() / dim;
    const double projectionError = gamma * r * r * (h * deviation).abs().sum() / dim;
    dx = r * (h - meanH - projection * deviation);
    dxError = r * (meanHError + deviation.abs() * projectionError +
                   5 * kUnit * (h.abs() + std::abs(meanH) + std::abs(projection) * deviation.abs()));
    toGain = r * dy * deviation;
    toGainMagnitude = toGain.abs();
  }
};

void checkNormBackward(const Setting& setting, bool centered, Context& context) {
  const OpMatrix x = setting.matrix(gaussian(setting.rows, setting.cols, 1, 2).array() + 0.7, 1);
  const OpMatrix gain(setting.scalar, gaussian(setting.rows, 1, 2)), dy = setting.random(3);
  OpMatrix dx = setting.random(4), dgain(setting.scalar, gaussian(setting.rows, 1, 5)),
           dbias(setting.scalar, gaussian(setting.rows, 1, 6));
  const MatrixXd v = x.values(), g = gain.values(), d = dy.values();
  MatrixXd inverses(1, v.cols()), centers(1, v.cols());
  for (Index t = 0; t < v.cols(); ++t) {
    const NormColumn n(v.col(t), centered);
    inverses(t) = n.inverse, centers(t) = n.center;
  }
  const OpMatrix inverse(ScalarType::kFloat, inverses), center(ScalarType::kFloat, centers);
  inverses = inverse.values(), centers = center.values();
  MatrixXd exact(v.rows(), v.cols()), error = exact, toGain = MatrixXd::Zero(v.rows(), 1), toGainError = toGain;
  for (Index t = 0; t < v.cols(); ++t) {
    const NormPullback n(v.col(t).array(), g.array(), d.col(t).array(), inverses(t), centers(t), centered);
    exact.col(t) = n.dx, error.col(t) = n.dxError;
    toGain += n.toGain.matrix(), toGainError += n.toGainMagnitude.matrix();
  }
  const double gamma = gammaFloat(std::max<Index>(32, setting.cols / 128 + 1) + 132);
  NormBackward op;
  op.x = x.in(), op.gain = gain.in(), op.dy = dy.in();
  op.inverse = static_cast<const float*>(inverse.in().data);
  op.center = centered ? static_cast<const float*>(center.in().data) : nullptr;
  op.dx = dx.out(), op.dgain = dgain.out();
  std::vector<Outcome> outcomes = {{"dx", &dx, exact, error}, {"dgain", &dgain, toGain, gamma * toGainError}};
  if (centered) {
    op.dbias = dbias.out();
    outcomes.push_back({"dbias", &dbias, d.rowwise().sum(), gamma * d.cwiseAbs().rowwise().sum()});
  }
  const std::string name = (centered ? "layerNorm " : "rmsNorm ") + setting.name();
  const auto run = [&](const NormBackward& which, bool accumulate) {
    NormBackward asked = which;
    asked.accumulateX = asked.accumulateGain = asked.accumulateBias = accumulate;
    normBackward(asked, context);
  };
  checkOp(name, outcomes, true, context, [&](bool accumulate) { run(op, accumulate); });
  NormBackward onlyX = op, onlyGain = op;
  onlyX.dgain = onlyX.dbias = {};
  onlyGain.dx = onlyGain.dbias = {};
  checkOp(name + " alone", {outcomes[0]}, true, context, [&](bool accumulate) { run(onlyX, accumulate); });
  checkOp(name + " alone", {outcomes[1]}, true, context, [&](bool accumulate) { run(onlyGain, accumulate); });
}

}  // namespace

// Packs that threads hold, one (4096 halves) or two (8192), or as they come (8192 floats), and more columns than blocks
// find room for at once.
BOOST_AUTO_TEST_CASE(norms, *needsDevice()) {
  Context context;
  forEachSetting({{5, 0}, {1, 3}, {7, 5}, {64, 17}, {333, 7}, {1000, 70}, {32, 9000}, {4096, 2}, {8192, 2}},
                 [&](const Setting& setting) {
                   for (const bool centered : {false, true}) {
                     if (setting.cols > 0) checkNormForward(setting, centered, context);
                     checkNormBackward(setting, centered, context);  // without tokens, too: the gain's gradient is 0
                   }
                 });
}

// Sum and norm in one launch are those of two, to the bit; the sum may take the place of an addend.
BOOST_AUTO_TEST_CASE(sumsWithTheirNorms, *needsDevice()) {
  Context context;
  forEachSetting({{5, 0}, {7, 5}, {64, 17}, {333, 7}, {32, 9000}, {4096, 3}, {8192, 2}}, [&](const Setting& setting) {
    const OpMatrix a = setting.random(1), b = setting.random(2), gain(setting.scalar, gaussian(setting.rows, 1, 3));
    OpMatrix inPlace = setting.random(1), sum = setting.random(4), y = setting.random(5), ofTwo = setting.random(5);
    DeviceArray<float> inverse(std::vector<float>(static_cast<std::size_t>(setting.cols)));
    AddNorm op;
    op.a = a.in(), op.b = b.in(), op.gain = gain.in();
    op.eps = kEps;
    op.sum = sum.out(), op.y = y.out();
    const MatrixXd exact = a.values() + b.values();
    checkOp("addNorm " + setting.name(), {{"sum", &sum, exact, kUnit * exact.cwiseAbs()}}, false, context,
            [&](bool) { addNorm(op, context); });
    Norm norm;
    norm.x = sum.in(), norm.gain = gain.in();
    norm.eps = kEps;
    norm.y = ofTwo.out();
    norm.inverse = inverse.data();
    normForward(norm, context);
    BOOST_TEST((y.download(context) == ofTwo.download(context)), "addNorm " << setting.name() << ": y is another");
    y.uploadNaN();
    op.a = inPlace.in(), op.sum = inPlace.out();
    addNorm(op, context);
    BOOST_TEST((y.download(context) == ofTwo.download(context)), "addNorm " << setting.name() << " in place");
    BOOST_TEST((inPlace.valuesOf(inPlace.download(context)) == sum.valuesOf(sum.download(context))));
  });
}

BOOST_AUTO_TEST_CASE(normPullbacksAreTheTapes) {
  const MatrixXd x = gaussian(9, 4, 1), gain = gaussian(9, 1, 2), bias = gaussian(9, 1, 3), g = gaussian(9, 4, 4);
  for (const bool centered : {false, true}) {
    const OnTape tape({x, gain, bias}, g, [&](const auto& i) {
      return centered ? ad::layerNorm<double>(i[0], i[1], i[2], kEps) : ad::rmsNorm<double>(i[0], i[1], kEps);
    });
    for (Index t = 0; t < 4; ++t) {
      const NormColumn c(x.col(t), centered);
      const NormPullback n(x.col(t).array(), gain.array(), g.col(t).array(), c.inverse, c.center, centered);
      BOOST_TEST((n.dx.matrix() - tape.gradients[0].col(t)).cwiseAbs().maxCoeff() < 1e-13);
    }
  }
}

namespace {

std::vector<float> afterGap(const Eigen::MatrixXf& table, std::ptrdiff_t gap) {
  std::vector<float> values(static_cast<std::size_t>(gap + table.size()));
  std::copy_n(table.data(), table.size(), values.begin() + gap);
  return values;
}

void checkRope(const Setting& setting, Index headDim, bool adjacent, bool inverse, Context& context) {
  const Index half = headDim / 2, heads = setting.rows / headDim, positions = 50;
  const ad::RopeTable<float> table(std::max<Index>(headDim, 2), positions);
  // Tables that are aligned to a float let no pack of pairs through.
  const std::ptrdiff_t lead = adjacent && inverse ? 1 : 0;
  const DeviceArray<float> cos(afterGap(table.cos(), lead)), sin(afterGap(table.sin(), lead));
  std::vector<std::int32_t> at;
  for (Index t = 0; t < setting.cols; ++t) at.push_back(static_cast<std::int32_t>(t * 17 % positions));
  if (setting.cols > 4) at[3] = 50, at[4] = -1;  // out of range
  const OpMatrix x = setting.random(1);
  OpMatrix y = setting.random(2);
  const MatrixXd v = x.values(), c = table.cos().cast<double>(), s = table.sin().cast<double>() * (inverse ? -1 : 1);
  MatrixXd exact(v.rows(), v.cols()), error = exact;
  for (Index t = 0; t < v.cols(); ++t)
    for (Index h = 0; h < heads; ++h)
      for (Index i = 0; i < half; ++i) {
        const Index p = at[static_cast<std::size_t>(t)];
        const Index first = h * headDim + (adjacent ? 2 * i : i), second = first + (adjacent ? 1 : half);
        const bool known = p >= 0 && p < positions;
        const double a = v(first, t), b = v(second, t), co = known ? c(i, p) : NAN, si = known ? s(i, p) : NAN;
        exact(first, t) = a * co - b * si;
        exact(second, t) = b * co + a * si;
        error(first, t) = 3 * kUnit * (std::abs(a * co) + std::abs(b * si));
        error(second, t) = 3 * kUnit * (std::abs(b * co) + std::abs(a * si));
      }
  DeviceArray<std::int32_t> devicePositions(at);
  Rope op;
  op.x = x.in(), op.y = y.out();
  op.headDim = headDim;
  op.cos = cos.data() + lead, op.sin = sin.data() + lead;
  op.maxPositions = positions;
  op.positions = devicePositions.data();
  op.adjacent = adjacent, op.inverse = inverse;
  const std::string name = "rope " + setting.name() + ", heads of " + std::to_string(headDim) +
                           (adjacent ? ", neighbours" : "") + (inverse ? ", back" : "");
  checkOp(name, {{"y", &y, exact, error}}, true, context, [&](bool accumulate) {
    op.accumulate = accumulate;
    rope(op, context);
  });
  OpMatrix inPlace = setting.random(1);
  op.accumulate = false;
  op.x = inPlace.in(), op.y = inPlace.out();
  rope(op, context);
  checkValues(inPlace.valuesOf(inPlace.download(context)), exact, error, setting.scalar, name + " in place");
}

}  // namespace

BOOST_AUTO_TEST_CASE(ropeTurnsAndTurnsBack, *needsDevice()) {
  Context context;
  for (const Index headDim : {2, 6, 24, 64, 128})  // 24: packs of pairs of floats, not of halves
    forEachSetting({{3 * headDim, 0}, {headDim, 1}, {3 * headDim, 9}, {4 * headDim, 70}}, [&](const Setting& setting) {
      for (const bool adjacent : {false, true})
        for (const bool inverse : {false, true}) checkRope(setting, headDim, adjacent, inverse, context);
    });
}

// Queries turned and keys turned into their cache in one launch are those of three, to the bit.
BOOST_AUTO_TEST_CASE(ropeIntoTheCache, *needsDevice()) {
  Context context;
  const Index sequences = 2, capacity = 9;
  for (const Index headDim : {2, 6, 64, 80})
    forEachSetting({{headDim, 2}, {3 * headDim, 23}}, [&](const Setting& setting) {
      const ad::RopeTable<float> table(headDim, capacity);
      const DeviceArray<float> cos(afterGap(table.cos(), 0)), sin(afterGap(table.sin(), 0));
      std::vector<std::int32_t> at;  // the second sequence outgrows its part of the cache
      for (Index t = 0; t < setting.cols; ++t) at.push_back(static_cast<std::int32_t>(t < 5 ? t : t - 5));
      const std::vector<std::int32_t> starts = {0, static_cast<std::int32_t>(std::min<Index>(5, setting.cols)),
                                                static_cast<std::int32_t>(setting.cols)};
      const DeviceArray<std::int32_t> positions(at), offsets(starts);
      const Setting ofCache{setting.scalar, setting.columns, setting.rows, sequences * capacity};
      const OpMatrix q = setting.random(1), k = setting.random(2), v = setting.random(3);
      const OpMatrix keys = ofCache.random(4), values = ofCache.random(5), y = setting.random(6);
      const OpMatrix keysOfThree = ofCache.random(4), valuesOfThree = ofCache.random(5), yOfThree = setting.random(6);
      const OpMatrix turned = setting.random(7);
      for (const bool adjacent : {false, true}) {
        Rope turn;
        turn.x = q.in(), turn.y = y.out();
        turn.headDim = headDim;
        turn.cos = cos.data(), turn.sin = sin.data();
        turn.maxPositions = capacity;
        turn.positions = positions.data();
        turn.adjacent = adjacent;
        CacheAppend append;
        append.k = k.in(), append.v = v.in();
        append.keys = keys.out(), append.values = values.out();
        append.sequences = sequences, append.capacity = capacity;
        append.positions = positions.data(), append.offsets = offsets.data();
        ropeAppend(turn, append, context);
        turn.y = yOfThree.out();
        rope(turn, context);
        turn.x = k.in(), turn.y = turned.out();
        rope(turn, context);
        append.k = turned.in();
        append.keys = keysOfThree.out(), append.values = valuesOfThree.out();
        appendToCache(append, context);
        const std::string name = setting.name() + ", heads of " + std::to_string(headDim);
        BOOST_TEST((y.download(context) == yOfThree.download(context)), "queries " << name);
        BOOST_TEST((keys.download(context) == keysOfThree.download(context)), "keys " << name);
        BOOST_TEST((values.download(context) == valuesOfThree.download(context)), "values " << name);
      }
    });
}

BOOST_AUTO_TEST_CASE(ropeIsTheTapes) {
  const ad::RopeTable<double> table(4, 9);
  const MatrixXd x = gaussian(8, 3, 1);
  const OnTape tape({x}, MatrixXd::Zero(8, 3),
                    [&](const auto& v) { return ad::rope(v[0], table, Eigen::Vector3i(5, 0, 8)); });
  const double c = table.cos()(1, 5), s = table.sin()(1, 5);
  BOOST_TEST(std::abs(tape.y(5, 0) - (x(5, 0) * c - x(7, 0) * s)) < 1e-14);
  BOOST_TEST(std::abs(tape.y(7, 0) - (x(7, 0) * c + x(5, 0) * s)) < 1e-14);
}
