// SPDX-License-Identifier: MPL-2.0
// The tokenizer of TinyStories-656K, where it is at hand: $EIGENQ_MODELS, or ../shared/models beside the source tree.
#define BOOST_TEST_MODULE TokenizerRealModel
#include <boost/test/unit_test.hpp>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include <unsupported/eigen_q/Tokenizer>

using EigenQ::llm::Tokenizer;

namespace {

std::string tokenizerPath() {
  const char* models = std::getenv("EIGENQ_MODELS");
  return std::string(models != nullptr ? models : EIGENQ_MODELS_DIR) + "/tinystories-656k/tokenizer.json";
}

boost::test_tools::assertion_result modelIsHere(boost::unit_test::test_unit_id) {
  boost::test_tools::assertion_result here(std::filesystem::exists(tokenizerPath()));
  here.message() << "no " << tokenizerPath();
  return here;
}

}  // namespace

BOOST_AUTO_TEST_CASE(knownSentence, *boost::unit_test::precondition(modelIsHere)) {
  const Tokenizer tokenizer = Tokenizer::fromFile(tokenizerPath());
  const std::string text = "Once upon a time, there was a little girl named Lily.";
  const std::vector<int> ids = tokenizer.encode(text);
  const std::vector<int> recorded = {1, 80, 147, 201, 282, 215, 286, 598, 629, 10};
  BOOST_TEST(ids == recorded, boost::test_tools::per_element());
  BOOST_TEST(tokenizer.decode(ids) == text);
  BOOST_TEST(tokenizer.vocabularySize() == 2048);
  BOOST_TEST(tokenizer.specialIds() == (std::vector<int>{0, 1, 2}), boost::test_tools::per_element());
  BOOST_TEST(tokenizer.tokenToId("<|end_story|>").value() == 2);
}
