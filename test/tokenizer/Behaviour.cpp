// SPDX-License-Identifier: MPL-2.0
// What recordings do not show: streams, time, threads.
#define BOOST_TEST_MODULE TokenizerBehaviour
#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <ctime>
#include <random>
#include <stdexcept>
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

std::vector<std::string> pieces(const Tokenizer& tokenizer, const Ids& ids, const std::vector<std::string>& stop = {}) {
  StreamDecoder decoder(tokenizer);
  decoder.stopAt(stop);
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

/** A text that ends before the first of some strings that becomes whole, byte by byte. */
struct StoppedText {
  std::string text;
  bool stopped = false;

  StoppedText(const std::string& whole, const std::vector<std::string>& strings) {
    for (const char byte : whole) {
      text += byte;
      std::size_t longest = 0;
      for (const std::string& s : strings)
        if (s.size() <= text.size() && text.substr(text.size() - s.size()) == s) longest = std::max(longest, s.size());
      stopped = longest > 0;
      if (!stopped) continue;
      text.resize(text.size() - longest);
      return;
    }
  }

  /** All but what may still become a stop string. */
  std::string certain(const std::vector<std::string>& strings) const {
    if (stopped) return text;
    for (std::size_t begin = 0; begin < text.size(); ++begin)
      for (const std::string& s : strings)
        if (s.compare(0, text.size() - begin, text, begin) == 0) return text.substr(0, begin);
    return text;
  }
};

/** Seconds of the processor's time that \a tokenizer takes for \a text: other processes have no part in them. */
double seconds(const Tokenizer& tokenizer, const std::string& text) {
  const std::clock_t start = std::clock();
  BOOST_TEST(tokenizer.encode(text).size() > 0u);
  return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
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

BOOST_AUTO_TEST_CASE(stopStringsBeginAndEndInsideTokens) {
  const Tokenizer gpt = family("gpt2");
  using Pieces = std::vector<std::string>;
  const auto found = [&](const std::vector<std::string>& tokens, const std::vector<std::string>& stop) {
    return pieces(gpt, idsOf(gpt, tokens), stop);
  };
  BOOST_TEST(found({"Ġthe", "nt", "on"}, {"en"}) == (Pieces{" th", "", "", ""}));
  BOOST_TEST(found({"Ġthe", "ta"}, {"en"}) == (Pieces{" th", "eta", ""}));
  BOOST_TEST(found({"Ġthe"}, {"en"}) == (Pieces{" th", "e"}));  // the end gives back
  BOOST_TEST(found({"Ġthe", "Ġthe", "nt"}, {" then"}) == (Pieces{"", " the", "", ""}));
  BOOST_TEST(found({"he", "nt"}, {"hent", "en"}) == (Pieces{"", "h", ""}));     // whole first, though it begins later
  BOOST_TEST(found({"he", "nt"}, {"n", "hen", "en"}) == (Pieces{"", "", ""}));  // whole together: the longest
  BOOST_TEST(found({"ta", "ta", "nt"}, {"tan"}) == (Pieces{"", "ta", "", ""}));
  BOOST_TEST(found({"â", "Ĥ", "¬", "a"}, {"€!"}) == (Pieces{"", "", "", "€a", ""}));  // characters, whole or not at all
  BOOST_TEST(found({"a", "â", "Ĥ", "¬", "a"}, {"€"}) == (Pieces{"a", "", "", "", "", ""}));
  BOOST_TEST(found({"a", "â"}, {"\uFFFD"}) == (Pieces{"a", "", ""}));
}

BOOST_AUTO_TEST_CASE(stopStringsDoNotDependOnTheBordersOfTokens) {
  const Tokenizer gpt = family("gpt2");
  const Ids ids = idsOf(gpt, {"a", "t", "n", "ta", "nt"});
  std::mt19937 random(1);
  const auto below = [&random](std::size_t n) { return random() % n; };
  int stops = 0;
  for (int trial = 0; trial < 500; ++trial) {
    std::vector<std::string> strings(1 + below(3));
    for (std::string& s : strings)
      for (std::size_t n = 2 + below(5); n > 0; --n) s += "atn"[below(3)];
    StreamDecoder decoder(gpt);
    decoder.stopAt(strings);
    std::string pushed, given;
    for (int i = 0; i < 20; ++i) {
      const int id = ids[below(ids.size())];
      pushed += gpt.decode({id});
      given += decoder.push(id);
      const StoppedText expected(pushed, strings);
      BOOST_REQUIRE_EQUAL(given, expected.certain(strings));
      BOOST_REQUIRE_EQUAL(decoder.stopped(), expected.stopped);
    }
    stops += decoder.stopped();
    BOOST_REQUIRE_EQUAL(given + decoder.finish(), StoppedText(pushed, strings).text);
  }
  BOOST_TEST(stops > 100);
  BOOST_TEST(stops < 400);
}

BOOST_AUTO_TEST_CASE(stopStringsAreLookedForFromWhereTheyAreGiven) {
  const Tokenizer gpt = family("gpt2");
  const Ids ids = idsOf(gpt, {"ta", "nt", "a"});
  StreamDecoder decoder(gpt);
  BOOST_TEST(decoder.push(ids[0]) == "ta");
  decoder.stopAt({"tan"});  // its beginning is the prompt's
  BOOST_TEST(decoder.push(ids[1]) == "n");
  decoder.stopAt({"zz"});  // what was held back is text
  BOOST_TEST(decoder.push(ids[2]) == "ta");
  decoder.stopAt({"a"});
  BOOST_TEST(decoder.push(ids[2]) == "");
  BOOST_TEST(decoder.stopped());
  BOOST_TEST(decoder.finish() == "");
  BOOST_TEST(!decoder.stopped());
  BOOST_TEST(decoder.push(ids[2]) == "a");  // another text
}

BOOST_AUTO_TEST_CASE(specialTokensStopATextThatLeavesThemOut) {
  const Tokenizer llama = family("llama2");
  const Ids ids = idsOf(llama, {"a", "<|end|>", "a"});
  using Pieces = std::vector<std::string>;
  BOOST_TEST(pieces(llama, ids) == (Pieces{"a", "", "a", ""}));
  BOOST_TEST(pieces(llama, ids, {"<|end|>"}) == (Pieces{"a", "", "", ""}));
  BOOST_TEST(pieces(llama, ids, {"<|end|>", "ab"}) == (Pieces{"", "", "", "a"}));
  BOOST_TEST(pieces(llama, idsOf(llama, {"a", "<0x3C>", "<0x7C>", "e", "n", "d", "<0x7C>", "<0x3E>", "a"}),
                    {"<|end|>"}) == (Pieces{"a", "", "", "", "", "", "", "", "", ""}));  // in other tokens
  StreamDecoder withSpecial(llama, false);
  withSpecial.stopAt({"a<|end|>a"});
  for (const int id : ids) BOOST_TEST(withSpecial.push(id) == "");
  BOOST_TEST(withSpecial.stopped());
}

BOOST_AUTO_TEST_CASE(stopStringsThatAreNoneAreRefused) {
  const Tokenizer llama = family("llama2");
  StreamDecoder decoder(llama);
  decoder.stopAt({"a"});
  const auto says = [](const char* text) {
    return [text](const std::invalid_argument& e) { return std::string(e.what()).find(text) != std::string::npos; };
  };
  BOOST_CHECK_EXCEPTION(decoder.stopAt({"b", ""}), std::invalid_argument, says("found none"));
  BOOST_CHECK_EXCEPTION(decoder.stopAt({"b\xE2\x82"}), std::invalid_argument, says("expected UTF-8"));
  BOOST_CHECK_EXCEPTION(decoder.stopAt({"<|end|>\n"}), std::invalid_argument, says("expected <|end|> alone"));
  BOOST_TEST(decoder.push(llama.tokenToId("a").value()) == "");  // those given before
  BOOST_TEST(decoder.stopped());
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
