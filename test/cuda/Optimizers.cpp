// SPDX-License-Identifier: MPL-2.0
// Optimiser steps on the device: 8-bit ones against the host bit for bit, others against their formulas.
#define BOOST_TEST_MODULE cuda_Optimizers
#include "Device.h"

#include <eigen_q/src/FourBit.h>
#include <eigen_q/src/OptimizerKernels.h>
#include <eigen_q/src/RoundedProduct.h>

#include <eigen_q/src/gpu/OptimizerKernels.h>

#include "Samples.h"

using namespace EigenQ;
using namespace EigenQ::test;
using gpu::Context;
using internal::AdamStep;
using internal::LionStep;
using internal::roundedProduct;

namespace {

std::size_t count(Index n) { return static_cast<std::size_t>(n); }

constexpr Index kSizes[] = {1, 7, 8, 255, 256, 257, 1000, 2048, 4099, 100003};

/** Gradients of a step: mostly ordinary, some blocks zero or tiny, now and then a value that is not finite. */
std::vector<float> gradients(Index size, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> gaussian;
  std::vector<float> g(count(size));
  for (std::size_t i = 0; i < g.size(); ++i) {
    g[i] = gaussian(random) * 0.1f;
    if (i / 256 % 5 == 1) g[i] = 0;
    if (i / 256 % 5 == 2) g[i] *= 1e-20f;
    if (i / 256 % 5 == 3) g[i] *= random() % 3 ? 1e-37f : 1.0f;
    if (random() % 997 == 0) g[i] = std::numeric_limits<float>::quiet_NaN();
    if (random() % 997 == 0) g[i] = -INFINITY;
    if (random() % 997 == 0) g[i] = 3e38f;
    if (random() % 97 == 0) g[i] = -0.0f;
  }
  return g;
}

/** A parameter and its moments on both sides, of 8 bits or float. \a shift misaligns them by that many elements. */
struct State {
  Index size, shift;
  bool eightBit;
  std::vector<float> w, m, v, absmax1, absmax2;
  std::vector<std::uint8_t> codes1, codes2;

  State(Index n, Index misaligned, bool bytes) : size(n), shift(misaligned), eightBit(bytes) {
    const std::size_t all = count(n + misaligned),
                      blocks = count(internal::blockCount(n, internal::kOptimizerBlockSize));
    w.resize(all), m.resize(all), v.resize(all), codes1.resize(all), codes2.resize(all);
    absmax1.resize(blocks), absmax2.resize(blocks);
    std::mt19937 random(5);
    std::normal_distribution<float> gaussian;
    for (auto& x : w) x = gaussian(random);
  }
};

struct DeviceState {
  DeviceArray<float> w, m, v, absmax1, absmax2;
  DeviceArray<std::uint8_t> codes1, codes2;

  explicit DeviceState(const State& s)
      : w(s.w), m(s.m), v(s.v), absmax1(s.absmax1), absmax2(s.absmax2), codes1(s.codes1), codes2(s.codes2) {}
};

/** The pointers of a step into either side. */
template <typename Step, typename Side>
void setPointers(Step& step, Side& side, const State& state) {
  step.size = state.size;
  step.parameter = side.w.data() + state.shift;
  if (state.eightBit) {
    step.m = {side.codes1.data() + state.shift, side.absmax1.data(), nullptr};
  } else {
    step.m = {nullptr, nullptr, side.m.data() + state.shift};
  }
  if constexpr (std::is_same_v<Step, AdamStep>) {
    step.v = state.eightBit ? internal::MomentView{side.codes2.data() + state.shift, side.absmax2.data(), nullptr}
                            : internal::MomentView{nullptr, nullptr, side.v.data() + state.shift};
  }
}

void compareStates(const State& host, const DeviceState& device, const std::string& where, Context& context) {
  BOOST_TEST(agree(device.w.toHost(context), host.w, where + ", parameter"));
  BOOST_TEST(agree(device.m.toHost(context), host.m, where + ", m"));
  BOOST_TEST(agree(device.v.toHost(context), host.v, where + ", v"));
  BOOST_TEST(agree(device.codes1.toHost(context), host.codes1, where + ", codes of m"));
  BOOST_TEST(agree(device.codes2.toHost(context), host.codes2, where + ", codes of v"));
  BOOST_TEST(agree(device.absmax1.toHost(context), host.absmax1, where + ", absmax of m"));
  BOOST_TEST(agree(device.absmax2.toHost(context), host.absmax2, where + ", absmax of v"));
}

AdamStep adamStep(int t) {
  AdamStep s;
  s.beta1 = 0.9f, s.beta2 = 0.999f;
  const float unbias2 = std::sqrt(1 - std::pow(s.beta2, static_cast<float>(t)));
  s.rate = 1e-2f * unbias2 / (1 - std::pow(s.beta1, static_cast<float>(t)));
  s.eps = 1e-8f * unbias2;
  s.keep = 0.9999f;
  return s;
}

LionStep lionStep(int) {
  LionStep s;
  s.beta1 = 0.9f, s.beta2 = 0.99f, s.rate = 1e-3f, s.keep = 0.9999f;
  return s;
}

/** Several steps on both sides, from equal states; the device gets a part of the gradients' scale in its own memory. */
template <typename Step, typename Make, typename RunHost, typename RunDevice>
void compareSteps(const char* name, Make make, RunHost runHost, RunDevice runDevice) {
  Context context;
  for (const Index size : kSizes)
    for (const Index shift : {0, 1, 4})
      for (const bool eightBit : {true, false})
        for (const float atDevice : {0.0f, 0.5f}) {
          State host(size, shift, eightBit);
          DeviceState device(host);
          const DeviceState* const result = &device;
          DeviceArray<float> scaleAt(std::vector<float>{atDevice});
          for (int t = 1; t <= 6; ++t) {
            const std::vector<float> g = gradients(size + shift, static_cast<unsigned>(size * 10 + t));
            DeviceArray<float> deviceG(g);
            Step step = make(t);
            step.gradScale = 1.7f;
            step.gradient = deviceG.data() + shift;
            setPointers(step, device, host);
            runDevice(step, {atDevice != 0 ? scaleAt.data() : nullptr, nullptr}, context);
            if (atDevice != 0) step.gradScale = roundedProduct(step.gradScale, atDevice);
            step.gradient = g.data() + shift;
            setPointers(step, host, host);
            runHost(step);
            context.synchronize();  // deviceG goes
          }
          compareStates(host, *result,
                        std::string(name) + " of " + std::to_string(size) + (eightBit ? ", 8 bits" : ", floats") +
                            ", shifted by " + std::to_string(shift) + (atDevice != 0 ? ", scaled on the device" : ""),
                        context);
        }
}

/** Values of a formula computed in \a count elements on both sides. */
struct Plain {
  std::vector<float> w, g, m, v;

  explicit Plain(Index n) : w(count(n)), g(count(n)), m(count(n)), v(count(n)) {
    std::mt19937 random(static_cast<unsigned>(n));
    std::normal_distribution<float> gaussian;
    for (std::size_t i = 0; i < w.size(); ++i) {
      w[i] = gaussian(random), g[i] = gaussian(random) * 0.1f;
      m[i] = gaussian(random) * 0.1f, v[i] = std::fabs(gaussian(random)) * 0.01f;
    }
  }
};

}  // namespace

BOOST_AUTO_TEST_CASE(adamHasTheBitsOfTheHost, *needsDevice()) {
  compareSteps<AdamStep>("adam", adamStep, internal::runAdam, gpu::internal::runAdam);
}

BOOST_AUTO_TEST_CASE(lionHasTheBitsOfTheHost, *needsDevice()) {
  compareSteps<LionStep>("lion", lionStep, internal::runLion, gpu::internal::runLion);
}

BOOST_AUTO_TEST_CASE(sgdFollowsItsFormula, *needsDevice()) {
  Context context;
  for (const Index n : kSizes)
    for (const bool hasMomentum : {false, true}) {
      Plain p(n);
      DeviceArray<float> w(p.w), g(p.g), b(p.m);
      gpu::internal::SgdStep s;
      s.size = n, s.parameter = w.data(), s.gradient = g.data(), s.momentumBuffer = hasMomentum ? b.data() : nullptr;
      s.gradScale = 0.3f, s.rate = 0.07f, s.momentum = 0.9f, s.decay = 0.013f;
      gpu::internal::runSgd(s, {}, context);
      for (std::size_t i = 0; i < p.w.size(); ++i) {
        float step = roundedProduct(s.gradScale, p.g[i]) + roundedProduct(s.decay, p.w[i]);
        if (hasMomentum) p.m[i] = step = roundedProduct(s.momentum, p.m[i]) + step;
        p.w[i] -= roundedProduct(s.rate, step);
      }
      BOOST_TEST(agree(w.toHost(context), p.w, "sgd of " + std::to_string(n) + ", parameter"));
      BOOST_TEST(agree(b.toHost(context), p.m, "sgd of " + std::to_string(n) + ", momentum"));
    }
}

BOOST_AUTO_TEST_CASE(adamWFollowsItsFormula, *needsDevice()) {
  Context context;
  for (const Index n : kSizes) {
    Plain p(n);
    DeviceArray<float> w(p.w), g(p.g), m(p.m), v(p.v);
    gpu::internal::AdamWStep s;
    s.size = n, s.parameter = w.data(), s.gradient = g.data(), s.m = m.data(), s.v = v.data();
    s.gradScale = 0.3f, s.beta1 = 0.9f, s.beta2 = 0.999f, s.eps = 1e-8f;
    const internal::StepRates r = {0.01f, 0.99f, 1.7f};
    DeviceArray<float> onDevice(std::vector<float>{r.rate, r.keep, r.correction});
    // Rates with the step, and on the device in their stead.
    gpu::internal::StepInputs inputs;
    if (n % 2 == 0)
      s.rate = r.rate, s.keep = r.keep, s.unbias2 = r.correction;
    else
      inputs.rates = reinterpret_cast<const internal::StepRates*>(onDevice.data());
    gpu::internal::runAdamW(s, inputs, context);
    for (std::size_t i = 0; i < p.w.size(); ++i) {
      const float gi = roundedProduct(s.gradScale, p.g[i]);
      p.m[i] = roundedProduct(s.beta1, p.m[i]) + roundedProduct(1 - s.beta1, gi);
      p.v[i] = roundedProduct(s.beta2, p.v[i]) + roundedProduct(1 - s.beta2, roundedProduct(gi, gi));
      const float denominator = roundedProduct(std::sqrt(p.v[i]), r.correction) + s.eps;
      p.w[i] = roundedProduct(r.keep, p.w[i]) - roundedProduct(r.rate, p.m[i]) / denominator;
    }
    BOOST_TEST(agree(w.toHost(context), p.w, "adamW of " + std::to_string(n) + ", parameter"));
    BOOST_TEST(agree(m.toHost(context), p.m, "adamW of " + std::to_string(n) + ", m"));
    BOOST_TEST(agree(v.toHost(context), p.v, "adamW of " + std::to_string(n) + ", v"));
  }
}

BOOST_AUTO_TEST_CASE(plainLionFollowsItsFormula, *needsDevice()) {
  Context context;
  for (const Index n : kSizes) {
    Plain p(n);
    p.g[0] = p.m[0] = 0;  // the sign of zero is zero
    DeviceArray<float> w(p.w), g(p.g), m(p.m);
    LionStep s = lionStep(1);
    s.size = n, s.parameter = w.data(), s.gradient = g.data(), s.m.values = m.data(), s.gradScale = 0.3f;
    gpu::internal::runPlainLion(s, {}, context);
    for (std::size_t i = 0; i < p.w.size(); ++i) {
      const float gi = roundedProduct(s.gradScale, p.g[i]);
      const float d = roundedProduct(s.beta1, p.m[i]) + roundedProduct(1 - s.beta1, gi);
      p.w[i] = roundedProduct(s.keep, p.w[i]) - roundedProduct(s.rate, static_cast<float>((d > 0) - (d < 0)));
      p.m[i] = roundedProduct(s.beta2, p.m[i]) + roundedProduct(1 - s.beta2, gi);
    }
    BOOST_TEST(agree(w.toHost(context), p.w, "lion of " + std::to_string(n) + ", parameter"));
    BOOST_TEST(agree(m.toHost(context), p.m, "lion of " + std::to_string(n) + ", m"));
  }
}

/** Each side errs by at most γₙ of the sum in double; squares of floats are exact there. */
BOOST_AUTO_TEST_CASE(normsClipTheGradients, *needsDevice()) {
  Context context;
  for (const Index n : {Index{0}, Index{1}, Index{256}, Index{8193}, Index{1000003}}) {
    const Plain p(n);
    DeviceArray<float> g(p.g), scale(1);
    DeviceArray<double> sum(std::vector<double>{2.5}), again(std::vector<double>{2.5}), norm(1);
    gpu::internal::addSumOfSquares(g.data(), n, sum.data(), context);
    gpu::internal::addSumOfSquares(g.data(), n, again.data(), context);
    long double exact = 2.5L;
    for (const float v : p.g) exact += static_cast<long double>(v) * v;
    const double found = sum.toHost(context)[0];
    const double bound = static_cast<double>(n + 2) * 0x1p-53 * static_cast<double>(exact);
    BOOST_TEST(std::fabs(found - static_cast<double>(exact)) <= bound, n << " squares: " << found);
    BOOST_TEST(again.toHost(context)[0] == found);
    for (const double maxNorm : {0.0, 0.1, 1e6}) {
      gpu::internal::clipFactor(sum.data(), maxNorm, scale.data(), norm.data(), context);
      const double factor = maxNorm / (std::sqrt(found) + 1e-6);
      BOOST_TEST(norm.toHost(context)[0] == std::sqrt(found));
      BOOST_TEST(scale.toHost(context)[0] == (factor < 1 ? static_cast<float>(factor) : 1.0f));
    }
  }
}

BOOST_AUTO_TEST_CASE(aNormThatIsNotFiniteClipsNothing, *needsDevice()) {
  Context context;
  for (const float bad : {INFINITY, std::numeric_limits<float>::quiet_NaN()}) {
    DeviceArray<float> g(std::vector<float>{1, bad, 2}), scale(1);
    DeviceArray<double> sum(std::vector<double>{0});
    gpu::internal::addSumOfSquares(g.data(), 3, sum.data(), context);
    gpu::internal::clipFactor(sum.data(), 0.1, scale.data(), nullptr, context);
    BOOST_TEST(scale.toHost(context)[0] == 1);
  }
}
