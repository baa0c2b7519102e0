// SPDX-License-Identifier: MPL-2.0
#define BOOST_TEST_MODULE Optimizers8bit
#include "Support.h"

#include <boost/mpl/list.hpp>

#include <cmath>
#include <limits>
#include <memory>
#include <stdexcept>

using namespace EigenQ;
using namespace EigenQ::ad;
using Eigen::Index;
using Eigen::MatrixXf;
using Eigen::VectorXf;
using EigenQ::test::randomMatrix;
using EigenQ::test::sameBits;

namespace {

constexpr Index kBlock = 256;
constexpr float kInf = std::numeric_limits<float>::infinity(), kNaN = std::numeric_limits<float>::quiet_NaN();

/** Leaves \a gradient in the parameter, the way a backward() does. */
void setGrad(Parameter<float>& p, const MatrixXf& gradient) {
  p.zeroGrad();
  Tape<float> tape;
  tape.backward(tape.parameter(p), gradient);
}

// The optimisers once more, as their description reads: one value at a time, and a search that looks at every level.

struct PlainMoment {
  bool isSigned;
  ByteVector codes;
  VectorXf absmax;

  PlainMoment(bool isSignedMap, Index size)
      : isSigned(isSignedMap), codes(ByteVector::Zero(size)), absmax(VectorXf::Zero((size + kBlock - 1) / kBlock)) {}

  VectorXf decoded() const {
    const auto map = dynamicMap(isSigned);
    return VectorXf::NullaryExpr(codes.size(), [&](Index i) { return map[codes[i]] * absmax[i / kBlock]; });
  }

  void encode(const VectorXf& values) {
    for (Index b = 0; b < absmax.size(); ++b)
      absmax[b] = values.segment(b * kBlock, std::min(kBlock, values.size() - b * kBlock)).cwiseAbs().maxCoeff();
    for (Index i = 0; i < values.size(); ++i) codes[i] = code(values[i], absmax[i / kBlock]);
  }

 private:
  std::uint8_t code(float value, float scale) const {
    const auto map = dynamicMap(isSigned);
    const float v = value / scale;
    int nearest = 0;
    for (int j = 0; j < 255; ++j) {
      const float midpoint = (map[j] + map[j + 1]) * 0.5f;
      nearest += v > midpoint || (v == midpoint && j % 2 == 1);
    }
    if (isSigned && std::signbit(map[nearest]) != std::signbit(value)) nearest += value > 0 ? 1 : -1;
    return static_cast<std::uint8_t>(nearest);
  }
};

float flushed(float v) { return std::fabs(v) < std::numeric_limits<float>::min() ? std::copysign(0.0f, v) : v; }

void plainAdam(VectorXf& w, const VectorXf& gradient, float gradScale, PlainMoment& first, PlainMoment& second,
               const AdamWOptions& o, int t) {
  const auto beta1 = static_cast<float>(o.beta1), beta2 = static_cast<float>(o.beta2),
             rate = static_cast<float>(o.learningRate);
  const float c1 = 1 - static_cast<float>(std::pow(static_cast<double>(beta1), t));
  const float c2 = std::sqrt(1 - static_cast<float>(std::pow(static_cast<double>(beta2), t)));
  VectorXf m = first.decoded(), v = second.decoded();
  for (Index i = 0; i < w.size(); ++i) {
    const float g = gradScale * gradient[i];
    const float oldM = beta1 * m[i], oldV = beta2 * v[i], part = (1 - beta2) * g;
    m[i] = flushed(std::fma(1 - beta1, g, oldM));
    v[i] = flushed(std::fma(part, g, oldV));
    if (!std::isfinite(m[i]) || !std::isfinite(v[i])) {
      m[i] = v[i] = 0;
      continue;
    }
    const float denominator = std::sqrt(v[i]) + static_cast<float>(o.eps) * c2;
    w[i] = std::fma(-(rate * c2 / c1), m[i] / denominator, w[i]);
    w[i] *= std::fma(-rate, static_cast<float>(o.weightDecay), 1.0f);
  }
  first.encode(m);
  second.encode(v);
}

void plainLion(VectorXf& w, const VectorXf& gradient, float gradScale, PlainMoment& momentum, const LionOptions& o) {
  const auto beta1 = static_cast<float>(o.beta1), beta2 = static_cast<float>(o.beta2),
             rate = static_cast<float>(o.learningRate);
  VectorXf m = momentum.decoded();
  for (Index i = 0; i < w.size(); ++i) {
    const float g = gradScale * gradient[i];
    const float stepM = beta1 * m[i], keptM = beta2 * m[i];
    const float direction = std::fma(1 - beta1, g, stepM);
    m[i] = flushed(std::fma(1 - beta2, g, keptM));
    if (!std::isfinite(m[i])) {
      m[i] = 0;
      continue;
    }
    w[i] *= std::fma(-rate, static_cast<float>(o.weightDecay), 1.0f);
    if (direction != 0) w[i] -= direction > 0 ? rate : -rate;
  }
  momentum.encode(m);
}

/** Gradients of every kind: ordinary ones over many magnitudes, a block of zeros, and what must not spoil its block. */
VectorXf gradientOf(Index size, std::uint64_t step) {
  VectorXf g = randomMatrix<float>(size, 1, 10 + step);
  for (Index i = 0; i < size; i += 3) g[i] *= std::ldexp(1.0f, -static_cast<int>(i % 41));
  if (size > 3 * kBlock) g.segment(kBlock, kBlock).setZero();
  const float special[] = {kNaN, kInf, -kInf, 1e30f, -0.0f, 1e-40f, -1e-30f, 0.0f};
  for (Index i = 0; i < 8 && 7 * i < size; ++i)
    if (step % 2 == 1) g[7 * i] = special[i];
  return g;
}

template <typename A, typename B>
void expectSameBits(const char* what, const A& found, const B& expected) {
  BOOST_TEST_REQUIRE(found.size() == expected.size());
  for (Index i = 0; i < found.size(); ++i)
    if (std::memcmp(&found.data()[i], &expected.data()[i], sizeof found.data()[0]) != 0) {
      BOOST_ERROR(what << "[" << i << "]: found " << +found.data()[i] << ", expected " << +expected.data()[i]);
      return;
    }
}

void expectMoment(const char* what, const Moment8bit& found, const PlainMoment& expected) {
  BOOST_TEST_CONTEXT(what) {
    BOOST_TEST(found.values.size() == 0);
    expectSameBits("absmax", found.absmax, expected.absmax);
    expectSameBits("codes", found.codes, expected.codes);
  }
}

constexpr Index kSizes[] = {1, 255, 256, 257, 4096, 5003};

}  // namespace

BOOST_AUTO_TEST_CASE(adamIsItsDescription) {
  const AdamWOptions o{/*learningRate=*/1e-2, /*beta1=*/0.9, /*beta2=*/0.95, /*eps=*/1e-8, /*weightDecay=*/0.1};
  for (Index size : kSizes) {
    Parameter<float> p(randomMatrix<float>(size, 1, 1));
    AdamW8bit optimizer({&p}, o, /*min8bitSize=*/0);
    VectorXf w = p.value();
    PlainMoment m(true, size), v(false, size);
    for (int t = 1; t <= 5; ++t) {
      const VectorXf g = gradientOf(size, static_cast<std::uint64_t>(t));
      setGrad(p, g);
      optimizer.step(0.5f);
      plainAdam(w, g, 0.5f, m, v, o, t);
    }
    BOOST_TEST_CONTEXT("size " << size) {
      expectSameBits("parameter", VectorXf(p.value()), w);
      expectMoment("m", optimizer.state().firstMoment[0], m);
      expectMoment("v", optimizer.state().secondMoment[0], v);
    }
    BOOST_TEST(p.value().allFinite());
  }
}

BOOST_AUTO_TEST_CASE(lionIsItsDescription) {
  const LionOptions o{/*learningRate=*/1e-2, /*beta1=*/0.9, /*beta2=*/0.95, /*weightDecay=*/0.1};
  for (Index size : kSizes) {
    Parameter<float> p(randomMatrix<float>(size, 1, 1));
    Lion8bit optimizer({&p}, o, /*min8bitSize=*/0);
    VectorXf w = p.value();
    PlainMoment m(true, size);
    for (std::uint64_t t = 1; t <= 5; ++t) {
      const VectorXf g = gradientOf(size, t);
      setGrad(p, g);
      optimizer.step(2);
      plainLion(w, g, 2, m, o);
    }
    BOOST_TEST_CONTEXT("size " << size) {
      expectSameBits("parameter", VectorXf(p.value()), w);
      expectMoment("m", optimizer.state().momentum[0], m);
    }
    BOOST_TEST(p.value().allFinite());
  }
}

BOOST_AUTO_TEST_CASE(everyKernelGivesTheSameBits) {
  const Index size = 3 * kBlock + 17;
  const VectorXf g = gradientOf(size, 1), start = randomMatrix<float>(size, 1, 2);
  struct Result {
    VectorXf w, absmax1, absmax2;
    ByteVector codes1, codes2;
  };
  const auto run = [&](const EigenQ::internal::OptimizerLowering& row, bool floats) {
    Result r{start, VectorXf::Zero(4), VectorXf::Zero(4), ByteVector::Zero(size), ByteVector::Zero(size)};
    VectorXf m = VectorXf::Zero(size), v = m;
    EigenQ::internal::AdamStep adam;
    EigenQ::internal::LionStep lion;
    adam.size = lion.size = size;
    adam.parameter = lion.parameter = r.w.data();
    adam.gradient = lion.gradient = g.data();
    adam.beta1 = lion.beta1 = 0.9f;
    adam.beta2 = lion.beta2 = 0.99f;
    adam.rate = lion.rate = 0.01f;
    adam.eps = 1e-8f;
    adam.keep = lion.keep = 0.999f;
    adam.m = lion.m = floats ? EigenQ::internal::MomentView{nullptr, nullptr, m.data()}
                             : EigenQ::internal::MomentView{r.codes1.data(), r.absmax1.data(), nullptr};
    adam.v = floats ? EigenQ::internal::MomentView{nullptr, nullptr, v.data()}
                    : EigenQ::internal::MomentView{r.codes2.data(), r.absmax2.data(), nullptr};
    for (int step = 0; step < 3; ++step) {
      row.adam(adam);
      row.lion(lion);
    }
    return r;
  };
  int compared = 0;
  const auto table = EigenQ::internal::hostOptimizers();
  for (const auto& row : table) {
    if (const char* why = row.refuse()) {
      BOOST_TEST_MESSAGE(row.name << ": " << why);
      continue;
    }
    for (bool floats : {false, true}) {
      const Result found = run(row, floats), expected = run(table.end()[-1], floats);
      BOOST_TEST_CONTEXT(row.name << (floats ? ", float moments" : ", 8-bit moments")) {
        expectSameBits("parameter", found.w, expected.w);
        expectSameBits("absmax of m", found.absmax1, expected.absmax1);
        expectSameBits("absmax of v", found.absmax2, expected.absmax2);
        expectSameBits("codes of m", found.codes1, expected.codes1);
        expectSameBits("codes of v", found.codes2, expected.codes2);
      }
    }
    ++compared;
  }
  BOOST_TEST(compared >= 1);
}

BOOST_AUTO_TEST_CASE(signsSurviveTheCodes) {
  Parameter<float> p(MatrixXf::Zero(2 * kBlock, 1));
  AdamW8bit optimizer({&p}, {/*learningRate=*/1e-2, /*beta1=*/0.5}, 0);
  VectorXf g = VectorXf::Zero(2 * kBlock);
  g[0] = 1;
  g[1] = -1e-9f;
  g[2] = 1e-9f;
  setGrad(p, g);
  optimizer.step();
  const ByteVector& codes = optimizer.state().firstMoment[0].codes;
  BOOST_TEST(codes[0] == 255);
  BOOST_TEST(codes[1] == 126);  // the level below zero, not zero
  BOOST_TEST(codes[2] == 127);  // zero
  // A block of zeros has no quotient.
  BOOST_TEST((codes.tail(kBlock).array() == 255).all());
  BOOST_TEST((optimizer.state().secondMoment[0].codes.tail(kBlock).array() == 0).all());
  BOOST_TEST(optimizer.state().firstMoment[0].absmax[1] == 0);
  BOOST_TEST((p.value().bottomRows(kBlock).array() == 0).all());
}

namespace {
using Kinds = boost::mpl::list<AdamW8bit, Adam8bit, Lion8bit>;

template <typename Optimizer>
std::unique_ptr<Optimizer> make(Parameter<float>& p, Parameter<float>& small) {
  return std::make_unique<Optimizer>(std::vector<Parameter<float>*>{&p, &small});
}
}  // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(badGradientsTouchNothing, Optimizer, Kinds) {
  for (float bad : {kNaN, kInf, -kInf}) {
    Parameter<float> large(MatrixXf::Ones(64, 80)), small(MatrixXf::Ones(2, 3));
    const auto optimizer = make<Optimizer>(large, small);
    for (int step = 0; step < 3; ++step) {
      MatrixXf g = MatrixXf::Ones(64, 80), h = MatrixXf::Ones(2, 3);
      g(5, 7) = h(1, 1) = bad;
      setGrad(large, g);
      setGrad(small, h);
      optimizer->step();
    }
    BOOST_TEST(large.value()(5, 7) == 1);
    BOOST_TEST(small.value()(1, 1) == 1);
    BOOST_TEST((large.value().array() < 1).count() == large.size() - 1);
    BOOST_TEST((small.value().array() < 1).count() == small.size() - 1);
    BOOST_TEST((large.value().allFinite() && small.value().allFinite()));
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(aRestoredRunContinuesToTheBit, Optimizer, Kinds) {
  const MatrixXf start = randomMatrix<float>(67, 71, 100), few = randomMatrix<float>(3, 4, 101);
  Parameter<float> straight(start), straightFew(few), restarted(start), restartedFew(few);
  const auto optimizer = make<Optimizer>(straight, straightFew);
  auto saved = make<Optimizer>(restarted, restartedFew);
  for (std::uint64_t step = 0; step < 6; ++step) {
    const MatrixXf g = randomMatrix<float>(67, 71, step), h = randomMatrix<float>(3, 4, step);
    setGrad(straight, g);
    setGrad(straightFew, h);
    optimizer->step();
    setGrad(restarted, g);
    setGrad(restartedFew, h);
    saved->step();
    auto fresh = make<Optimizer>(restarted, restartedFew);
    fresh->setState(saved->state());
    saved = std::move(fresh);
  }
  BOOST_TEST(sameBits<float>(straight.value(), restarted.value()));
  BOOST_TEST(sameBits<float>(straightFew.value(), restartedFew.value()));
}

BOOST_AUTO_TEST_CASE(smallParametersKeepFloatMoments) {
  Parameter<float> below(randomMatrix<float>(4095, 1, 1)), at(randomMatrix<float>(64, 64, 1)), same(below.value());
  AdamW8bit optimizer({&below, &at});
  BOOST_TEST(optimizer.state().firstMoment[0].values.size() == 4095);
  BOOST_TEST(optimizer.state().firstMoment[0].codes.size() == 0);
  BOOST_TEST(optimizer.state().secondMoment[1].codes.size() == 4096);
  BOOST_TEST(optimizer.state().secondMoment[1].absmax.size() == 16);
  BOOST_TEST(optimizer.state().secondMoment[1].values.size() == 0);
  BOOST_TEST(optimizer.stateBytes() == 2 * (4 * 4095 + 4096 + 4 * 16));

  AdamW<float> reference({&same});
  for (std::uint64_t step = 0; step < 20; ++step) {
    const MatrixXf g = randomMatrix<float>(4095, 1, step);
    setGrad(below, g);
    setGrad(same, g);
    optimizer.step();
    reference.step();
  }
  // Only the decay of the step itself differs, lr²·decay = 1e-8 a step, and roundings: 4·2⁻²⁴ a step.
  BOOST_TEST((below.value() - same.value()).cwiseAbs().maxCoeff() < 20 * (1e-8f + 0x1p-22f));
}

BOOST_AUTO_TEST_CASE(resultsDoNotDependOnThreads) {
  const MatrixXf start = randomMatrix<float>(300, 211, 1);  // several chunks, the last partial
  const auto run = [&](int threads) {
    setMaxThreads(threads);
    Parameter<float> p(start);
    AdamW8bit optimizer({&p});
    for (std::uint64_t step = 0; step < 3; ++step) {
      setGrad(p, randomMatrix<float>(300, 211, step));
      optimizer.step();
    }
    return p.value();
  };
  const MatrixXf one = run(1), four = run(4);
  setMaxThreads(0);
  BOOST_TEST(sameBits<float>(one, four));
}

BOOST_AUTO_TEST_CASE(eightBitsTrainLikeFloat) {
  // min ‖W X - Y‖²/n through the common interface; Y is made by a W that is found again.
  const MatrixXf x = randomMatrix<float>(64, 256, 1), y = randomMatrix<float>(80, 64, 2) * x;
  const auto lossAfter = [&](Parameter<float>& w, Optimizer<float>& optimizer, int steps) {
    const Schedule schedule = Schedule::linear(optimizer.learningRate(), steps);
    Tape<float> tape;
    double loss = 0;
    for (int step = 0; step < steps; ++step) {
      optimizer.setLearningRate(schedule(step));
      tape.clear();
      optimizer.zeroGrad();
      const auto error = linear(w, tape.constant(x)) - tape.constant(y);
      const auto meanSquare = mean(cwiseProduct(error, error));
      tape.backward(meanSquare);
      optimizer.step();
      loss = static_cast<double>(meanSquare.item());
    }
    return loss;
  };
  const MatrixXf zero = MatrixXf::Zero(80, 64);
  Parameter<float> a(zero), b(zero), c(zero), d(zero);
  AdamW<float> adam({&a}, {/*learningRate=*/0.02});
  AdamW8bit adam8({&b}, {/*learningRate=*/0.02});
  Lion<float> lion({&c}, {/*learningRate=*/0.03});
  Lion8bit lion8({&d}, {/*learningRate=*/0.03});
  BOOST_TEST(adam8.state().firstMoment[0].codes.size() == 80 * 64);
  const double before = static_cast<double>(y.squaredNorm()) / static_cast<double>(y.size());
  const double floatLoss = lossAfter(a, adam, 200), codedLoss = lossAfter(b, adam8, 200);
  const double floatLion = lossAfter(c, lion, 200), codedLion = lossAfter(d, lion8, 200);
  BOOST_TEST_MESSAGE("AdamW " << floatLoss << ", 8-bit " << codedLoss << "; Lion " << floatLion << ", 8-bit "
                              << codedLion << "; before " << before);
  BOOST_TEST(floatLoss < 1e-2 * before);
  BOOST_TEST(codedLoss < 1.1 * floatLoss + 1e-4 * before);
  BOOST_TEST(floatLion < 1e-2 * before);
  BOOST_TEST(codedLion < 1.1 * floatLion + 1e-4 * before);
}

BOOST_AUTO_TEST_CASE(stateThatDoesNotFitIsRefused) {
  Parameter<float> p(MatrixXf::Ones(64, 65), "p");
  AdamW8bit adam({&p});
  auto state = adam.state();
  state.secondMoment[0].absmax.resize(16);
  BOOST_CHECK_EXCEPTION(adam.setState(state), std::invalid_argument, [](const auto& e) {
    return std::string(e.what()) == "AdamW8bit: secondMoment: parameter 0 'p': absmax: expected 17 values, found 16";
  });
  state = adam.state();
  state.firstMoment[0].absmax[3] = kNaN;
  BOOST_CHECK_THROW(adam.setState(state), std::invalid_argument);
  state = adam.state();
  state.firstMoment[0].codes.resize(0);
  BOOST_CHECK_THROW(adam.setState(state), std::invalid_argument);
  state = adam.state();
  state.steps.push_back(0);
  BOOST_CHECK_THROW(adam.setState(state), std::invalid_argument);
  Lion8bit lion({&p});
  BOOST_CHECK_THROW(lion.setState({}), std::invalid_argument);
}

BOOST_AUTO_TEST_CASE(impossibleOptionsAreRefused) {
  Parameter<float> p(MatrixXf::Ones(1, 1));
  BOOST_CHECK_THROW(AdamW8bit({&p}, {-1}), std::invalid_argument);
  BOOST_CHECK_THROW(Adam8bit({&p}, {1e-3, 0.9, 1 - 1e-12}), std::invalid_argument);  // 1 in float
  BOOST_CHECK_THROW(Lion8bit({&p}, {1e-3, -0.1}), std::invalid_argument);
}
