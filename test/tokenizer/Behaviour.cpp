// SPDX-License-Identifier: MPL-2.0
// What recordings do not show: streams, time, threads.
#define BOOST_TEST_MODULE TokenizerBehaviour
#include <boost/test/unit_test.hpp>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include <unsupported/eigen_q/Tokenizer>

using EigenQ::llm::StreamDecoder;
using EigenQ::llm::Tokenizer;
using Ids = std::vector<int>;

namespace {

Tokenizer family(const std::string& name) {
  return Tokenizer::fromFile(EIGENQ_TEST_DATA_DIR "/tokenizer/" + name + ".json");
}

std::vector<std::string> pieces(const Tokenizer& tokenizer, const Ids& ids) {
  StreamDecoder decoder(tokenizer);
  std::vector<std::string> given;
  for (const int id : ids) given.push_back(decoder.push(id));
  given.push_back(decoder.finish());
  return given;
}

Ids idsOf(const Tokenizer& tokenizer, const std::vector<std::string>& tokens) {
  Ids ids;
  for (const std::string& token : tokens) ids.push_back(tokenizer.tokenToId(token).value());
  return ids;
}

/** Seconds that \a tokenizer takes for \a text. */
double seconds(const Tokenizer& tokenizer, const std::string& text) {
  const auto start = std::chrono::steady_clock::now();
  BOOST_TEST(tokenizer.encode(text).size() > 0u);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

BOOST_AUTO_TEST_CASE(charactersComeWhenTheyAreWhole) {
  const Tokenizer llama = family("llama2");
  const auto euro = idsOf(llama, {"▁a", "<0xE2>", "<0x82>", "<0xAC>", "<0x41>", "b"});
  BOOST_TEST(pieces(llama, euro) == (std::vector<std::string>{"a", "", "", "€", "A", "b", ""}),
             boost::test_tools::per_element());
  const Tokenizer gpt = family("gpt2");
  BOOST_TEST(
      pieces(gpt, idsOf(gpt, {"â", "Ĥ", "¬", "Ġ", "a"})) == (std::vector<std::string>{"", "", "€", " ", "a", ""}),
      boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(brokenCharactersAreReplacedAsSoonAsTheyAreKnownToBeBroken) {
  const Tokenizer llama = family("llama2");
  BOOST_TEST(pieces(llama, idsOf(llama, {"<0xE2>", "<0x82>", "a", "<0xC3>"})) ==
                 (std::vector<std::string>{"", "", "\uFFFDa", "", "\uFFFD"}),
             boost::test_tools::per_element());
  // A whole text is judged as Hugging Face's library does it: byte by byte.
  BOOST_TEST(llama.decode(idsOf(llama, {"<0xE2>", "<0x82>", "a"})) == "\uFFFD\uFFFDa");
}

BOOST_AUTO_TEST_CASE(aStreamBeginsAnewAfterFinish) {
  const Tokenizer llama = family("llama2");
  StreamDecoder decoder(llama);
  const int a = llama.tokenToId("▁a").value();
  BOOST_TEST(decoder.push(a) == "a");  // the space that begins a text
  BOOST_TEST(decoder.push(a) == " a");
  BOOST_TEST(decoder.finish() == "");
  BOOST_TEST(decoder.push(a) == "a");
}

BOOST_AUTO_TEST_CASE(specialTokensAreLeftOutOnRequest) {
  const Tokenizer llama = family("llama2");
  const int begin = llama.tokenToId("<s>").value(), a = llama.tokenToId("a").value();
  BOOST_TEST(llama.isSpecial(begin));
  BOOST_TEST(!llama.isSpecial(a));
  BOOST_TEST(llama.decode({begin, a}) == "a");
  BOOST_TEST(llama.decode({begin, a}, false) == "<s>a");
  BOOST_TEST(StreamDecoder(llama, false).push(begin) == "<s>");
}

BOOST_AUTO_TEST_CASE(idsWithoutTokensAddNothing) {
  const Tokenizer llama = family("llama2");
  BOOST_TEST(llama.decode({-1, llama.vocabularySize(), 1 << 30}) == "");
  BOOST_TEST(!llama.idToToken(llama.vocabularySize()).has_value());
  BOOST_TEST(!llama.tokenToId("no such token").has_value());
  for (int id = 0; id < llama.vocabularySize(); ++id)
    BOOST_TEST(llama.tokenToId(llama.idToToken(id).value()).value() == id);
}

// Quadratic time would make the longer text a thousand times slower, not thirty-odd: the bound leaves room for a busy
// machine. One word without spaces, a run of spaces, and a run of combining marks that normalisation has to sort.
BOOST_AUTO_TEST_CASE(timeIsNotQuadratic) {
  const auto repeat = [](const std::string& part, int times) {
    std::string text;
    for (int i = 0; i < times; ++i) text += part;
    return text;
  };
  for (const char* name : {"llama2", "qwen2", "gpt2"}) {
    const Tokenizer tokenizer = family(name);
    for (const char* part : {"thequickbrown", "         ", "\u0301\u0323\u0301", "<|en", "<|e", "日本語"}) {
      BOOST_TEST_CONTEXT(name << ": " << part) {
        const double few = seconds(tokenizer, repeat(part, 500)), many = seconds(tokenizer, repeat(part, 16000));
        BOOST_TEST(many < 0.02 + 32 * 8 * few);
      }
    }
  }
}

BOOST_AUTO_TEST_CASE(threadsShareATokenizer) {
  const Tokenizer tokenizer = family("llama3");
  const std::string text = "Once upon a time, there was a 12345 日本語 <|end|> café.\n";
  const Ids expected = tokenizer.encode(text);
  std::vector<int> same(4, 0);
  std::vector<std::thread> threads;
  for (int& count : same)
    threads.emplace_back([&tokenizer, &text, &expected, &count] {
      for (int i = 0; i < 200; ++i) count += tokenizer.encode(text) == expected;
    });
  for (std::thread& thread : threads) thread.join();
  for (const int count : same) BOOST_TEST(count == 200);
}
