// SPDX-License-Identifier: MPL-2.0
#define BOOST_TEST_MODULE FP4Codec
#include <boost/test/unit_test.hpp>

#include <cfloat>
#include <cmath>
#include <limits>

#include <eigen_q/src/FP4Codec.h>
#include <eigen_q/src/ScalarConvert.h>

using namespace EigenQ::internal;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kThresholds[] = {0.00260417f, 0.0859375f, 0.20833333f, 0.29166667f, 0.4166667f, 0.583333f, 0.8333333f};
constexpr int kCodesByMagnitude[] = {0, 1, 6, 7, 4, 5, 2, 3};

}  // namespace

BOOST_AUTO_TEST_CASE(levelsAreTwelfths) {
  const float twelfths[] = {0, 0.0625f, 8, 12, 4, 6, 2, 3};
  for (int code = 0; code < 8; ++code) {
    BOOST_TEST(bitsOf(kFP4Table[code]) == bitsOf(twelfths[code] / 12));
    BOOST_TEST(bitsOf(kFP4Table[code | 8]) == bitsOf(-twelfths[code] / 12));
  }
}

BOOST_AUTO_TEST_CASE(aThresholdTakesTheSmallerMagnitudeOnBothSides) {
  for (int i = 0; i < 7; ++i) {
    const float t = kThresholds[i], above = std::nextafter(t, kInfinity), below = std::nextafter(t, 0.0f);
    const int smaller = kCodesByMagnitude[i], larger = kCodesByMagnitude[i + 1];
    BOOST_TEST_CONTEXT("threshold " << i) {
      BOOST_TEST(encodeFP4(below) == smaller);
      BOOST_TEST(encodeFP4(t) == smaller);
      BOOST_TEST(encodeFP4(above) == larger);
      BOOST_TEST(encodeFP4(-below) == (smaller | 8));
      BOOST_TEST(encodeFP4(-t) == (smaller | 8));
      BOOST_TEST(encodeFP4(-above) == (larger | 8));
    }
  }
}

BOOST_AUTO_TEST_CASE(everyLevelEncodesToItself) {
  for (int code = 0; code < 16; ++code)
    if (code != 8) BOOST_TEST(encodeFP4(kFP4Table[code]) == code);
}

BOOST_AUTO_TEST_CASE(theTwoZeros) {
  BOOST_TEST(encodeFP4(0.0f) == 0);
  BOOST_TEST(encodeFP4(-0.0f) == 0);
  BOOST_TEST(encodeFP4(1e-3f) == 0);
  BOOST_TEST(encodeFP4(-1e-3f) == 8);
  BOOST_TEST(encodeFP4(-FLT_MIN) == 8);
  BOOST_TEST(encodeFP4(-FLT_MIN / 2) == 0);  // CUDA's comparison flushes it
}

BOOST_AUTO_TEST_CASE(whatIsNoQuotient) {
  BOOST_TEST(encodeFP4(std::numeric_limits<float>::quiet_NaN()) == 0);
  BOOST_TEST(encodeFP4(kInfinity) == 3);
  BOOST_TEST(encodeFP4(-kInfinity) == 11);
}
