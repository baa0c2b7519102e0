// SPDX-License-Identifier: MPL-2.0
// Valid files, damaged at random: each must be read or refused in words. A short form of scripts/fuzz.
#define BOOST_TEST_MODULE Mutations
#include <boost/test/unit_test.hpp>

#include <random>

#include "fuzz/Readers.h"
#include "fuzz/Seeds.h"

using namespace EigenQ;

namespace {

constexpr unsigned kSeed = 20240229;
constexpr int kMutations = 20'000;

class Mutator {
 public:
  /** One to four changes: bytes changed, dropped, repeated, cut off, numbers grown. */
  std::string operator()(std::string text) {
    for (int changes = 1 + below(4); changes > 0 && !text.empty(); --changes) change(text);
    return text;
  }

 private:
  int below(std::size_t n) { return static_cast<int>(m_random() % n); }

  void change(std::string& text) {
    const auto at = static_cast<std::size_t>(below(text.size()));
    const auto length = std::min(text.size() - at, static_cast<std::size_t>(1 + below(16)));
    switch (below(6)) {
      case 0:
        text[at] = static_cast<char>(below(256));
        break;
      case 1:
        text[at] = "{}[]\",:0129-.eE\\u \0\xff"[below(20)];
        break;
      case 2:
        text.erase(at, length);
        break;
      case 3:
        text.insert(at, text, static_cast<std::size_t>(below(text.size())), length);
        break;
      case 4:
        text.resize(at);
        break;
      default:
        text.insert(at, below(2) == 0 ? "0" : "18446744073709551615");
    }
  }

  std::mt19937 m_random{kSeed};
};

/** Reads mutations of the seeds, and the seeds themselves, which must be right. */
template <typename Read>
void mutate(const std::vector<std::string>& seeds, Read&& read) {
  Mutator mutator;
  int accepted = 0;
  for (const std::string& seed : seeds) BOOST_TEST(read(fuzz::bytesOf(seed)));
  for (int i = 0; i < kMutations; ++i)
    accepted += read(fuzz::bytesOf(mutator(seeds[static_cast<std::size_t>(i) % seeds.size()])));
  BOOST_TEST_MESSAGE(accepted << " of " << kMutations << " mutations are valid still");
  BOOST_TEST(accepted > 0);           // changes inside the data and the names
  BOOST_TEST(accepted < kMutations);  // and elsewhere
}

}  // namespace

BOOST_AUTO_TEST_CASE(safetensorsFiles) { mutate(fuzz::safetensorsSeeds(), fuzz::readSafetensors); }
BOOST_AUTO_TEST_CASE(shardIndexes) { mutate(fuzz::indexSeeds(), fuzz::readShardIndex); }
BOOST_AUTO_TEST_CASE(quantisedWeights) { mutate(fuzz::quantisedSeeds(), fuzz::readQuantised); }
