// SPDX-License-Identifier: MPL-2.0
// linear8bit on a tape of the device against the op of the host.
#define BOOST_TEST_MODULE DeviceLinear8bit
#include <boost/test/unit_test.hpp>

#include "AutodiffSupport.h"

using namespace EigenQ;
using namespace EigenQ::test;

namespace {

/** in×tokens; feature 5 holds an outlier. */
MatrixXf activations(Index features, Index tokens) {
  MatrixXf x = randomMatrix<float>(features, tokens, 7);
  x(5, tokens / 2) = -30;
  return x;
}

struct Options {
  float threshold = 0;
  bool viaDense = true;
  bool noIgemmlt = false;
  bool withBias = true;

  template <typename State>
  void set(State& state) const {
    state.threshold = threshold;
    state.memoryEfficientBackward = viaDense;
    state.forceNoIgemmlt = noIgemmlt;
  }
  std::string name() const {
    return "threshold " + std::to_string(threshold) + (viaDense ? "" : ", integer gradient") +
           (noIgemmlt ? ", no integer product" : "") + (withBias ? ", bias" : "");
  }
};

struct Result {
  MatrixXf y, dx, dw, db;
  MatrixXf dwTwice;
};

/** Two backward passes over one forward pass. */
template <typename Scalar, typename Place, typename State>
Result run(const Options& options, Index outputs, Index features, Index tokens) {
  ad::Parameter<float, Place> weight(randomMatrix<float>(outputs, features, 1), "w"),
      bias(randomMatrix<float>(outputs, 1, 2), "b");
  State state;
  options.set(state);
  ad::Tape<Scalar, Place> tape;
  const auto x = tape.variable(Eigen::MatrixX<Scalar>(activations(features, tokens).cast<Scalar>()));
  const auto y = options.withBias ? ad::linear8bit(weight, x, state, bias) : ad::linear8bit(weight, x, state);
  const Eigen::MatrixX<Scalar> seed = randomMatrix<float>(outputs, tokens, 3).cast<Scalar>();
  const auto host = [](const auto& m) -> MatrixXf {
    if constexpr (std::is_same_v<Place, Host>)
      return m.template cast<float>();
    else
      return m.toHost().template cast<float>();
  };
  Result r;
  tape.backward(y, seed);
  r.y = host(y.value());
  r.dx = host(x.grad());
  r.dw = host(weight.grad());
  r.db = host(bias.grad());
  tape.backward(y, seed);
  r.dwTwice = host(weight.grad());
  return r;
}

template <typename Scalar>
void compare(const Options& options, Index outputs, Index features, Index tokens, double tolerance) {
  const Result expected = run<float, Host, MatmulLtState>(options, outputs, features, tokens);
  const Result found = run<Scalar, Device, gpu::MatmulLtState>(options, outputs, features, tokens);
  const std::string what = std::to_string(outputs) + "x" + std::to_string(features) + ", " + std::to_string(tokens) +
                           " tokens, " + options.name();
  expectNear(what + ": value", found.y, expected.y, tolerance);
  expectNear(what + ": dx", found.dx, expected.dx, tolerance);
  expectNear(what + ": dw", found.dw, expected.dw, tolerance);
  expectNear(what + ": dw, added to", found.dwTwice, expected.dwTwice, tolerance);
  expectNear(what + ": db", found.db, expected.db, tolerance);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(linear8bit, *needsDevice())

// Codes and integer sums are the same: what differs is the order of float sums of at most 66 terms.
BOOST_AUTO_TEST_CASE(valueAndGradientsAreTheHosts) {
  for (const float threshold : {0.0f, 6.0f}) {
    for (const bool viaDense : {true, false}) {
      for (const bool withBias : {true, false}) {
        const Options options{threshold, viaDense, false, withBias};
        compare<float>(options, 6, 40, 9, kOpTolerance);
        compare<float>(options, 33, 66, 20, kOpTolerance);
        compare<float>(options, 16, 48, 1, kOpTolerance);
      }
    }
  }
  compare<float>({6, true, true, true}, 6, 40, 9, kOpTolerance);
}

// Weights, activations and results rounded to 16 bits: a few roundings of 2⁻⁸, and codes that are a step of 1/127 apart
// where the rounding crosses its middle; both of sums whose terms have random signs, relative to the largest entry.
BOOST_AUTO_TEST_CASE(sixteenBitTapesOverFloatWeights) {
  for (const float threshold : {0.0f, 6.0f})
    compare<Eigen::bfloat16>({threshold, true, false, true}, 33, 66, 20, 8.0 / 256);
}

BOOST_AUTO_TEST_CASE(codesAreThoseOfTheValueAsItIs) {
  ad::Parameter<float, Device> weight(randomMatrix<float>(3, 8, 1));
  const MatrixXf x = randomMatrix<float>(8, 2, 2);
  gpu::MatmulLtState state;
  ad::Tape<float, Device> tape;
  const auto forward = [&] {
    tape.clear();
    return ad::linear8bit(weight, tape.constant(x), state).value().toHost();
  };
  const MatrixXf first = forward();
  weight.mutableValue() = 2.0f * weight.value();
  expectNear("the new value", forward(), 2 * first, 1e-5);
}

// A later forward pass through the same state leaves the outliers of an earlier one alone.
BOOST_AUTO_TEST_CASE(eachPullbackHasItsOwnOutliers) {
  const auto gradient = [](auto place) {
    using Place = decltype(place);
    using State = std::conditional_t<std::is_same_v<Place, Host>, MatmulLtState, gpu::MatmulLtState>;
    ad::Parameter<float, Place> weight(randomMatrix<float>(6, 40, 1));
    State state;
    state.threshold = 6;
    ad::Tape<float, Place> tape;
    MatrixXf other = randomMatrix<float>(40, 9, 11);
    other(17, 3) = 50;
    const auto first = ad::linear8bit(weight, tape.constant(activations(40, 9)), state);
    const auto second = ad::linear8bit(weight, tape.constant(other), state);
    tape.backward(ad::sum(ad::cwiseProduct(first, first) + second));
    return Place::toHost(weight.grad());
  };
  const MatrixXf expected = gradient(Host()), found = gradient(Device());
  expectNear("dw", found, expected, kOpTolerance);
}

BOOST_AUTO_TEST_CASE(aSecondStepAsksForNoMemory) {
  ad::Parameter<float, Device> weight(randomMatrix<float>(33, 66, 1));
  gpu::MatmulLtState state;
  state.threshold = 6;
  ad::Tape<float, Device> tape;
  const MatrixXf x = activations(66, 20);
  std::size_t reserved = 0;
  for (int step = 0; step < 3; ++step) {
    tape.clear();
    weight.zeroGrad();
    tape.backward(ad::sum(ad::linear8bit(weight, tape.constant(x), state)));
    weight.mutableValue();  // a step of an optimiser: codes are made again
    if (step > 0) BOOST_TEST(tape.bytesReserved() == reserved);
    reserved = tape.bytesReserved();
  }
}

BOOST_AUTO_TEST_SUITE_END()
