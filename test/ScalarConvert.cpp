// SPDX-License-Identifier: MPL-2.0
#define BOOST_TEST_MODULE ScalarConvert
#include <boost/test/unit_test.hpp>

#include <cmath>
#include <limits>
#include <random>

#include <Eigen/Core>

#include <eigen_q/src/RoundedProduct.h>
#include <eigen_q/src/ScalarConvert.h>

using namespace EigenQ;
using namespace EigenQ::internal;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct HalfBits {
  static constexpr int kSigned = 0x8000, kInfinityBits = 0x7c00;
  static float widen(std::uint16_t bits) { return halfToFloat(bits); }
  static std::uint16_t narrow(float v) { return floatToHalf(v); }
  static std::uint16_t narrow(double v) { return doubleToHalf(v); }
  static float eigen(std::uint16_t bits) { return float(Eigen::numext::bit_cast<Eigen::half>(bits)); }
  static std::uint16_t eigen(float v) { return Eigen::numext::bit_cast<std::uint16_t>(Eigen::half(v)); }
};

struct BFloat16Bits {
  static constexpr int kSigned = 0x8000, kInfinityBits = 0x7f80;
  static float widen(std::uint16_t bits) { return bfloat16ToFloat(bits); }
  static std::uint16_t narrow(float v) { return floatToBFloat16(v); }
  static std::uint16_t narrow(double v) { return doubleToBFloat16(v); }
  static float eigen(std::uint16_t bits) { return float(Eigen::numext::bit_cast<Eigen::bfloat16>(bits)); }
  static std::uint16_t eigen(float v) { return Eigen::numext::bit_cast<std::uint16_t>(Eigen::bfloat16(v)); }
};

using Formats = std::tuple<HalfBits, BFloat16Bits>;

}  // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(everyPatternWidensAndComesBack, Format, Formats) {
  for (std::uint32_t i = 0; i < 0x10000; ++i) {
    const auto bits = static_cast<std::uint16_t>(i);
    const float wide = Format::widen(bits);
    if (std::isnan(wide)) {
      BOOST_REQUIRE(std::isnan(Format::eigen(bits)));
      BOOST_REQUIRE(std::isnan(Format::widen(Format::narrow(wide))));
      BOOST_REQUIRE(std::isnan(Format::widen(Format::narrow(static_cast<double>(wide)))));
    } else {
      BOOST_REQUIRE(bitsOf(wide) == bitsOf(Format::eigen(bits)));
      BOOST_REQUIRE(Format::narrow(wide) == bits);
      BOOST_REQUIRE(Format::narrow(static_cast<double>(wide)) == bits);
    }
  }
}

// Between every two neighbours: the midpoint goes to the even one, its neighbours in float and double to the nearer.
BOOST_AUTO_TEST_CASE_TEMPLATE(everyMidpointRoundsToEven, Format, Formats) {
  for (std::uint32_t i = 0; i < std::uint32_t{Format::kInfinityBits}; ++i) {
    const auto lower = static_cast<std::uint16_t>(i), upper = static_cast<std::uint16_t>(i + 1);
    const double low = static_cast<double>(Format::widen(lower));
    const double step = low - (i == 0 ? -static_cast<double>(Format::widen(1))
                                      : static_cast<double>(Format::widen(static_cast<std::uint16_t>(i - 1))));
    const double high = upper == Format::kInfinityBits ? low + step : static_cast<double>(Format::widen(upper));
    const double middle = (low + high) / 2;
    const std::uint16_t even = i % 2 == 0 ? lower : upper;
    for (const double sign : {1.0, -1.0}) {
      const auto signedBits = [&](std::uint16_t b) {
        return static_cast<std::uint16_t>(b | (sign < 0 ? Format::kSigned : 0));
      };
      BOOST_REQUIRE(Format::narrow(sign * middle) == signedBits(even));
      BOOST_REQUIRE(Format::narrow(sign * std::nextafter(middle, 0.0)) == signedBits(lower));
      BOOST_REQUIRE(Format::narrow(sign * std::nextafter(middle, kInfinity)) == signedBits(upper));
      const float middleFloat = static_cast<float>(sign * middle);
      BOOST_REQUIRE(static_cast<double>(middleFloat) == sign * middle);
      BOOST_REQUIRE(Format::narrow(middleFloat) == signedBits(even));
      BOOST_REQUIRE(Format::narrow(std::nextafter(middleFloat, 0.0f)) == signedBits(lower));
      BOOST_REQUIRE(Format::narrow(std::nextafter(middleFloat, static_cast<float>(sign * kInfinity))) ==
                    signedBits(upper));
    }
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(randomFloatsAgreeWithEigen, Format, Formats) {
  std::mt19937 random(7);
  for (int i = 0; i < 1000000; ++i) {
    const float v = floatOf(static_cast<std::uint32_t>(random()));
    if (!std::isnan(v)) BOOST_REQUIRE(Format::narrow(v) == Format::eigen(v));
  }
}

BOOST_AUTO_TEST_CASE(extremes) {
  BOOST_TEST(doubleToHalf(1e300) == 0x7c00);
  BOOST_TEST(doubleToHalf(-1e300) == 0xfc00);
  BOOST_TEST(doubleToHalf(65520.0) == 0x7c00);
  BOOST_TEST(doubleToHalf(std::nextafter(65520.0, 0.0)) == 0x7bff);
  BOOST_TEST(doubleToHalf(1e-300) == 0);
  BOOST_TEST(doubleToHalf(-1e-300) == 0x8000);
  BOOST_TEST(doubleToBFloat16(1e300) == 0x7f80);
  BOOST_TEST(floatToBFloat16(std::numeric_limits<float>::max()) == 0x7f80);
}

BOOST_AUTO_TEST_CASE(scalarsAreReadAndWrittenInTheirType) {
  const std::tuple<ScalarType, double> roundedThird[] = {{ScalarType::kFloat, static_cast<double>(1.0f / 3)},
                                                         {ScalarType::kDouble, 1.0 / 3},
                                                         {ScalarType::kHalf, 0x1.554p-2},
                                                         {ScalarType::kBFloat16, 0x1.56p-2}};
  for (const auto& [scalar, expected] : roundedThird) {
    double storage[2] = {0, 0};
    writeScalar(storage, scalar, 1, 1.0 / 3);
    BOOST_TEST(readScalar(storage, scalar, 1) == expected);
    BOOST_TEST(readScalar(storage, scalar, 0) == 0);
  }
}

#if defined(__x86_64__) && defined(__GNUC__)
// With fused instructions at hand g++ contracts a·b + c by default, which would be one rounding.
__attribute__((target("fma"), noinline)) static float productThenSum(float a, float b, float c) {
  return roundedProduct(a, b) + c;
}

BOOST_AUTO_TEST_CASE(aRoundedProductStaysRounded) {
  if (!__builtin_cpu_supports("fma")) {
    BOOST_TEST_MESSAGE("no FMA on this machine: nothing could contract");
    return;
  }
  const float a = 1 + 0x1p-12f, b = 1 + 0x1p-12f, c = -1;
  BOOST_TEST(std::fma(a, b, c) == 0x1p-11f + 0x1p-24f);
  BOOST_TEST(productThenSum(a, b, c) == 0x1p-11f);
}
#endif
