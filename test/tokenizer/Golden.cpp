// SPDX-License-Identifier: MPL-2.0
// Every family of tokenizers against Hugging Face's library: what test/golden/tokenizer/record.py recorded.
#define BOOST_TEST_MODULE TokenizerGolden
#include <boost/test/data/monomorphic.hpp>
#include <boost/test/data/test_case.hpp>
#include <boost/test/unit_test.hpp>

#include <fstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <unsupported/eigen_q/Tokenizer>

using EigenQ::llm::StreamDecoder;
using EigenQ::llm::Tokenizer;
using Json = nlohmann::json;
using Ids = std::vector<int>;

namespace {

const std::string kFolder = EIGENQ_TEST_DATA_DIR "/tokenizer/";

Json readJson(const std::string& name) {
  std::ifstream file(kFolder + name);
  BOOST_TEST_REQUIRE(file.is_open(), name);
  return Json::parse(file);
}

std::string streamed(const Tokenizer& tokenizer, const Ids& ids) {
  StreamDecoder decoder(tokenizer);
  std::string text;
  for (const int id : ids) text += decoder.push(id);
  return text + decoder.finish();
}

constexpr const char* kFamilies[] = {"gpt2",    "roberta",   "llama3", "qwen2",     "o200k",
                                     "smollm",  "falcon",    "llama2", "few_bytes", "few_bytes_fused",
                                     "mistral", "metaspace", "words"};

}  // namespace

BOOST_DATA_TEST_CASE(textsHaveTheRecordedIds, boost::unit_test::data::make(kFamilies), family) {
  const Tokenizer tokenizer = Tokenizer::fromFile(kFolder + family + ".json");
  const Json texts = readJson("texts.json"), cases = readJson(std::string(family) + ".cases.json").at("texts");
  BOOST_TEST_REQUIRE(texts.size() == cases.size());
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const auto text = texts[i].get<std::string>();
    BOOST_TEST_CONTEXT("text " << i << ": " << texts[i]) {
      const Ids ids = cases[i].at("ids").get<Ids>();
      BOOST_TEST(tokenizer.encode(text) == ids, boost::test_tools::per_element());
      BOOST_TEST(tokenizer.encode(text, false) == cases[i].at("plain").get<Ids>(), boost::test_tools::per_element());
      BOOST_TEST(tokenizer.decode(ids) == cases[i].at("decoded").get<std::string>());
      BOOST_TEST(tokenizer.decode(ids, false) == cases[i].at("withSpecial").get<std::string>());
      BOOST_TEST(streamed(tokenizer, ids) == cases[i].at("decoded").get<std::string>());
    }
  }
}

BOOST_DATA_TEST_CASE(idsInNoOrderHaveTheRecordedText, boost::unit_test::data::make(kFamilies), family) {
  const Tokenizer tokenizer = Tokenizer::fromFile(kFolder + family + ".json");
  std::size_t wellFormed = 0;
  const Json cases = readJson(std::string(family) + ".cases.json").at("decode");
  for (const Json& c : cases) {
    BOOST_TEST_CONTEXT("ids " << c.at("ids")) {
      const Ids ids = c.at("ids").get<Ids>();
      const auto expected = c.at("decoded").get<std::string>();
      BOOST_TEST(tokenizer.decode(ids) == expected);
      if (expected.find("\uFFFD") != std::string::npos) continue;  // a stream may give away parts of a malformed run
      ++wellFormed;
      BOOST_TEST(streamed(tokenizer, ids) == expected);
    }
  }
  BOOST_TEST(wellFormed > 0u);
}
