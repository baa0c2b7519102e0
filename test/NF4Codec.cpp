// SPDX-License-Identifier: MPL-2.0
#define BOOST_TEST_MODULE NF4Codec
#include <boost/test/unit_test.hpp>

#include <cmath>
#include <limits>

#include <eigen_q/src/NF4Codec.h>
#include <eigen_q/src/ScalarConvert.h>

using namespace EigenQ::internal;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The decimal literals of bitsandbytes' kernel, rounded straight to float by the suffix.
constexpr float kThresholds[] = {
    -0.8480964004993439f,  -0.6106329262256622f,   -0.4599952697753906f, -0.33967943489551544f, -0.23460740596055984f,
    -0.13791173323988914f, -0.045525018125772476f, 0.03979014977812767f, 0.1202552504837513f,   0.2035212516784668f,
    0.2920137718319893f,   0.3893125355243683f,    0.5016634166240692f,  0.6427869200706482f,   0.8614784178118011f};
constexpr float kLevels[] = {-1.0f,
                             -0.6961928009986877f,
                             -0.5250730514526367f,
                             -0.39491748809814453f,
                             -0.28444138169288635f,
                             -0.18477343022823334f,
                             -0.09105003625154495f,
                             0.0f,
                             0.07958029955625534f,
                             0.16093020141124725f,
                             0.24611230194568634f,
                             0.33791524171829224f,
                             0.44070982933044434f,
                             0.5626170039176941f,
                             0.7229568362236023f,
                             1.0f};

}  // namespace

BOOST_AUTO_TEST_CASE(levelsAreThePublishedOnes) {
  for (int code = 0; code < 16; ++code) BOOST_TEST(bitsOf(kNF4Table[code]) == bitsOf(kLevels[code]));
}

BOOST_AUTO_TEST_CASE(aThresholdTakesTheLowerCodeAndTheNextFloatTheUpper) {
  for (int i = 0; i < 15; ++i) {
    BOOST_TEST_CONTEXT("threshold " << i) {
      BOOST_TEST(encodeNF4(std::nextafter(kThresholds[i], -kInfinity)) == i);
      BOOST_TEST(encodeNF4(kThresholds[i]) == i);
      BOOST_TEST(encodeNF4(std::nextafter(kThresholds[i], kInfinity)) == i + 1);
    }
  }
}

BOOST_AUTO_TEST_CASE(everyLevelEncodesToItself) {
  for (int code = 0; code < 16; ++code) BOOST_TEST(encodeNF4(kNF4Table[code]) == code);
  BOOST_TEST(encodeNF4(-0.0f) == 7);
}

BOOST_AUTO_TEST_CASE(thresholdsLieWithinAnUlpOfTheMidpoints) {
  int beside = 0;
  for (int i = 0; i < 15; ++i) {
    const float midpoint = (kNF4Table[i] + kNF4Table[i + 1]) * 0.5f;
    beside += midpoint != kThresholds[i];
    BOOST_TEST(std::nextafter(midpoint, -kInfinity) <= kThresholds[i]);
    BOOST_TEST(std::nextafter(midpoint, kInfinity) >= kThresholds[i]);
  }
  BOOST_TEST(beside == 4);
}

BOOST_AUTO_TEST_CASE(whatIsNoQuotient) {
  BOOST_TEST(encodeNF4(std::numeric_limits<float>::quiet_NaN()) == 0);
  BOOST_TEST(encodeNF4(-kInfinity) == 0);
  BOOST_TEST(encodeNF4(kInfinity) == 15);
}

BOOST_AUTO_TEST_CASE(theFirstCodeOfAPairIsTheHighNibble) {
  const std::uint8_t packed[] = {packPair(0x1, 0x2), packPair(0xf, 0x0)};
  BOOST_TEST(packed[0] == 0x12);
  BOOST_TEST(codeAt(packed, 0) == 0x1);
  BOOST_TEST(codeAt(packed, 1) == 0x2);
  BOOST_TEST(codeAt(packed, 2) == 0xf);
  BOOST_TEST(codeAt(packed, 3) == 0x0);
}

BOOST_AUTO_TEST_CASE(blockSizes) {
  for (EigenQ::Index n = -1; n <= 8200; ++n) {
    const bool valid = n == 32 || n == 64 || n == 128 || n == 256 || n == 512 || n == 1024 || n == 2048 || n == 4096;
    BOOST_REQUIRE(isBlockSize(n) == valid);
    if (valid) BOOST_TEST((EigenQ::Index{1} << blockShift(n)) == n);
  }
  BOOST_TEST(blockCount(0, 64) == 0);
  BOOST_TEST(blockCount(64, 64) == 1);
  BOOST_TEST(blockCount(65, 64) == 2);
  BOOST_TEST(packedSize(0) == 0);
  BOOST_TEST(packedSize(5) == 3);
}
