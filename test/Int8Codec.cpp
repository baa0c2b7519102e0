// SPDX-License-Identifier: MPL-2.0
#define BOOST_TEST_MODULE Int8Codec
#include <boost/test/unit_test.hpp>

#include <cfloat>
#include <cmath>
#include <limits>

#include <eigen_q/src/Int8Codec.h>
#include <eigen_q/src/ScalarConvert.h>

using namespace EigenQ::internal;

BOOST_AUTO_TEST_CASE(tiesGoToEven) {
  for (int code = -126; code < 126; ++code) {
    const float tie = static_cast<float>(code) + 0.5f;
    const int even = code % 2 == 0 ? code : code + 1;
    BOOST_TEST(encodeInt8(tie, 1) == even);
    BOOST_TEST(encodeInt8(std::nextafter(tie, -1000.0f), 1) == code);
    BOOST_TEST(encodeInt8(std::nextafter(tie, 1000.0f), 1) == code + 1);
  }
}

// In bfloat16 arithmetic 19 of the 128 mantissas give 127.5 and wrap to -128.
BOOST_AUTO_TEST_CASE(theLargestMagnitudeIs127AndNever128) {
  for (std::uint32_t bits = bitsOf(1.0f); bits < bitsOf(2.0f); bits += 127) {
    const float absmax = floatOf(bits), scale = int8Scale(absmax);
    BOOST_REQUIRE(encodeInt8(absmax, scale) == 127);
    BOOST_REQUIRE(encodeInt8(-absmax, scale) == -127);
  }
  for (const float beyond : {200.0f, 1e30f, std::numeric_limits<float>::infinity()}) {
    BOOST_TEST(encodeInt8(beyond, 1) == 127);
    BOOST_TEST(encodeInt8(-beyond, 1) == -127);
  }
}

BOOST_AUTO_TEST_CASE(theScaleIsFiniteForEveryAbsmax) {
  BOOST_TEST(int8Scale(0) == 0);
  BOOST_TEST(encodeInt8(0, int8Scale(0)) == 0);
  for (float absmax = FLT_TRUE_MIN; absmax < FLT_MAX / 2; absmax *= 1.5f)
    BOOST_REQUIRE(std::isfinite(int8Scale(absmax)));
  BOOST_TEST(std::isfinite(int8Scale(kInt8SmallestAbsmax)));
  BOOST_TEST(encodeInt8(kInt8SmallestAbsmax, int8Scale(kInt8SmallestAbsmax)) == 127);
  BOOST_TEST(int8Scale(FLT_MAX) > 0);
}

BOOST_AUTO_TEST_CASE(nanAndInfinityTakeCodeZero) {
  const float infinity = std::numeric_limits<float>::infinity();
  BOOST_TEST(encodeInt8(std::numeric_limits<float>::quiet_NaN(), 1) == 0);
  BOOST_TEST(encodeInt8(infinity, int8Scale(infinity)) == 0);
  BOOST_TEST(encodeInt8(1, int8Scale(infinity)) == 0);
}

BOOST_AUTO_TEST_CASE(decodingRoundsTwice) {
  for (int code = -127; code <= 127; ++code) {
    const float absmax = 0.7368421f;
    const volatile float product = static_cast<float>(code) * absmax;
    BOOST_TEST(bitsOf(decodeInt8(static_cast<std::int8_t>(code), absmax)) == bitsOf(product * floatOf(0x3c010204u)));
  }
}

BOOST_AUTO_TEST_CASE(theErrorIsHalfAStep) {
  const float absmax = 3.3f, scale = int8Scale(absmax);
  for (float v = -absmax; v <= absmax; v += 0.00137f) {
    const float error = std::fabs(v - decodeInt8(encodeInt8(v, scale), absmax));
    BOOST_REQUIRE(error <= absmax / 254 + 4 * FLT_EPSILON * absmax);
  }
}
