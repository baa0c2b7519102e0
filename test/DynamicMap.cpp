// SPDX-License-Identifier: MPL-2.0
#define BOOST_TEST_MODULE DynamicMap
#include <boost/test/unit_test.hpp>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include <eigen_q/src/DynamicMap.h>
#include <eigen_q/src/ScalarConvert.h>
#include <src/cpu/moment_map.h>

using namespace EigenQ::internal;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/** zlib's CRC-32 of the little-endian floats. */
std::uint32_t crc32(const ByteCodeTable& table) {
  std::uint32_t crc = 0xffffffffu;
  for (const float level : table) {
    for (int byte = 0; byte < 4; ++byte) {
      crc ^= bitsOf(level) >> 8 * byte & 0xff;
      for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
  }
  return ~crc;
}

/** #{j : v > mⱼ, or v = mⱼ with j odd}, as the rule is stated. */
int countedCode(float v, const ByteCodeTable& table) {
  int code = 0;
  for (std::size_t j = 0; j + 1 < table.size(); ++j) {
    const float midpoint = (table[j] + table[j + 1]) * 0.5f;
    code += v > midpoint || (v == midpoint && j % 2 == 1);
  }
  return code;
}

}  // namespace

BOOST_AUTO_TEST_CASE(mapsAreTheOriginalsToTheBit) {
  BOOST_TEST(crc32(signedDynamicMap()) == 0x1b137aebu);
  BOOST_TEST(crc32(unsignedDynamicMap()) == 0xe871278fu);
}

BOOST_AUTO_TEST_CASE(theSignedMapIsSymmetricButForOne) {
  const ByteCodeTable& map = signedDynamicMap();
  BOOST_TEST(map[127] == 0.0f);
  BOOST_TEST(map[255] == 1.0f);
  BOOST_TEST(bitsOf(map[0]) == bitsOf(-0.99296874f));
  for (std::size_t i = 0; i < 127; ++i) BOOST_TEST(map[254 - i] == -map[i]);
}

BOOST_AUTO_TEST_CASE(midpointsAndTheirNeighboursFollowTheRule) {
  for (const ByteCodeTable* map : {&signedDynamicMap(), &unsignedDynamicMap()}) {
    const ByteThresholds thresholds = byteThresholds(map->data());
    for (std::size_t j = 0; j < 255; ++j) {
      const float midpoint = ((*map)[j] + (*map)[j + 1]) * 0.5f;
      for (const float v : {std::nextafter(midpoint, -kInfinity), midpoint, std::nextafter(midpoint, kInfinity)})
        BOOST_TEST(int(encodeByte(v, thresholds.data())) == countedCode(v, *map));
      BOOST_TEST(encodeByte(midpoint, thresholds.data()) % 2 == 0);
    }
  }
}

BOOST_AUTO_TEST_CASE(randomValuesFollowTheRule) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 0.4f);
  const ByteThresholds thresholds = byteThresholds(signedDynamicMap().data());
  for (int i = 0; i < 20000; ++i) {
    const float v = normal(random);
    BOOST_REQUIRE(int(encodeByte(v, thresholds.data())) == countedCode(v, signedDynamicMap()));
  }
}

// Codes rise with v: where both searches agree next to every threshold, they agree everywhere, unless one is wrong in
// between, which the edges of the buckets and the random values would show.
BOOST_AUTO_TEST_CASE(bucketsFindTheCodesOfTheSearch) {
  std::mt19937 random(2);
  for (const bool isSigned : {true, false}) {
    const MomentMap map = isSigned ? signedMomentMap() : unsignedMomentMap();
    const ByteThresholds thresholds = byteThresholds(map.levels);
    std::vector<float> values(thresholds.begin(), thresholds.end());
    for (std::uint32_t bits = 0; bits <= bitsOf(1.0f); bits += 1u << 15) values.push_back(floatOf(bits));
    for (int i = 0; i < 100000; ++i) values.push_back(std::ldexp(float(random()) * 0x1p-32f, -int(random() % 30)));
    for (const float value : values) {
      for (const float v : {std::nextafter(value, -kInfinity), value, std::nextafter(value, kInfinity)}) {
        for (const float w : {v, -v}) {
          if (std::fabs(w) <= 1) BOOST_REQUIRE(int(map.encode(w)) == int(encodeByte(w, thresholds.data())));
        }
      }
    }
  }
}

BOOST_AUTO_TEST_CASE(whatIsNoQuotient) {
  const ByteThresholds thresholds = byteThresholds(signedDynamicMap().data());
  BOOST_TEST(encodeByte(std::numeric_limits<float>::quiet_NaN(), thresholds.data()) == 0);
  BOOST_TEST(encodeByte(-kInfinity, thresholds.data()) == 0);
  BOOST_TEST(encodeByte(kInfinity, thresholds.data()) == 255);
  BOOST_TEST(encodeByte(0.0f, thresholds.data()) == 127);
  BOOST_TEST(encodeByte(-0.0f, thresholds.data()) == 127);
}

BOOST_AUTO_TEST_CASE(repeatedLevelsKeepTheSearchSorted) {
  ByteCodeTable table{};  // a table of few levels, padded with zeros as create_linear_map does
  for (std::size_t i = 0; i < 8; ++i) {
    table[i] = -1 + static_cast<float>(i) * 0.125f;
    table[255 - i] = 1 - static_cast<float>(i) * 0.125f;
  }
  const ByteThresholds thresholds = byteThresholds(table.data());
  BOOST_TEST(std::is_sorted(thresholds.begin(), thresholds.end()));
  for (const float v : {-1.0f, -0.3f, -0.05f, 0.0f, 0.05f, 0.3f, 1.0f}) {
    const float decoded = table[encodeByte(v, thresholds.data())];
    for (const float level : table) BOOST_TEST(std::fabs(decoded - v) <= std::fabs(level - v));
  }
}
