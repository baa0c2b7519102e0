// SPDX-License-Identifier: MPL-2.0
// What a tokenizer.json may not say, each with the place that the error names.
#define BOOST_TEST_MODULE TokenizerRefusals
#include <boost/test/data/monomorphic.hpp>
#include <boost/test/data/test_case.hpp>
#include <boost/test/unit_test.hpp>

#include <fstream>
#include <iterator>
#include <ostream>
#include <random>
#include <string>

#include <nlohmann/json.hpp>

#include <eigen_q/src/Errors.h>
#include <unsupported/eigen_q/Tokenizer>

using EigenQ::FormatError;
using EigenQ::llm::Tokenizer;
using Json = nlohmann::json;

namespace {

/** A small tokenizer.json without a fault. */
Json faultless() {
  return Json::parse(R"({"version": "1.0", "truncation": null, "padding": null,
    "added_tokens": [{"id": 3, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
                      "normalized": false, "special": true}],
    "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
    "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
              "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
              "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}})");
}

struct Fault {
  const char* pointer;  // where the value goes (RFC 6901)
  const char* value;
  const char* key;  // that the error names
  const char* message;
};

std::ostream& operator<<(std::ostream& out, const Fault& fault) { return out << fault.pointer << " = " << fault.value; }

const Fault kFaults[] = {
    {"/version", "\"2.0\"", "version", "expected \"1.0\", found \"2.0\""},
    {"/version", "1", "version", "expected a string"},
    {"/model", "null", "model", "expected an object, found null"},
    {"/model/type", "\"WordPiece\"", "model.type", "expected one of BPE, found \"WordPiece\""},
    {"/model/type", "\"Unigram\"", "model.type", "\"Unigram\""},
    {"/model/dropout", "0.1", "model.dropout", "expected null or 0"},
    {"/model/continuing_subword_prefix", "\"##\"", "model.continuing_subword_prefix", "found \"##\""},
    {"/model/end_of_word_suffix", "\"</w>\"", "model.end_of_word_suffix", "found \"</w>\""},
    {"/model/fuse_unk", "1", "model.fuse_unk", "expected true or false, found 1"},
    {"/model/vocab", "[]", "model.vocab", "expected an object"},
    {"/model/vocab/a", "-1", "model.vocab.a", "expected a whole number"},
    {"/model/vocab/a", "0.5", "model.vocab.a", "found 0.5"},
    {"/model/vocab/a", "2147483647", "model.vocab.a", "found 2147483647"},
    {"/model/vocab/a", "1", "model.vocab.b", "which is that of \"a\""},
    {"/model/merges", "{}", "model.merges", "expected an array"},
    {"/model/merges/0", "\"a c\"", "model.merges[0]", "found \"c\""},
    {"/model/merges/0", "\"b a\"", "model.merges[0]", "found \"ba\""},
    {"/model/merges/0", "\"ab\"", "model.merges[0]", "one space between"},
    {"/model/merges/0", "\"a  b\"", "model.merges[0]", "one space between"},
    {"/model/merges/0", "[\"a\"]", "model.merges[0]", "found 1"},
    {"/model/merges/0", "[\"a\", 1]", "model.merges[0][1]", "expected a string"},
    {"/model/merges/0", "7", "model.merges[0]", "found 7"},
    {"/added_tokens", "null", "added_tokens", "expected an array"},
    {"/added_tokens/0/id", "4", "added_tokens[0].id", "next free one (3), found 4"},
    {"/added_tokens/0/content", "\"a\"", "added_tokens[0].id", "(0), found 3"},
    {"/added_tokens/0/content", "\"\"", "added_tokens[0].content", "expected some text"},
    {"/added_tokens/0/special", "null", "added_tokens[0].special", "expected true or false"},
    {"/normalizer", R"({"type": "Nmt"})", "normalizer.type", "found \"Nmt\""},
    {"/normalizer", R"({"type": "Precompiled"})", "normalizer.type", "found \"Precompiled\""},
    {"/normalizer", R"({"type": "Prepend"})", "normalizer.prepend", "missing"},
    {"/normalizer", R"({"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "BertNormalizer"}]})",
     "normalizer.normalizers[1].type", "found \"BertNormalizer\""},
    {"/normalizer", R"({"type": "Sequence", "normalizers": [null]})", "normalizer.normalizers[0]", "found null"},
    {"/normalizer", R"({"type": "Replace", "pattern": {"String": ""}, "content": ""})", "normalizer.pattern.String",
     "expected some text to look for"},
    {"/normalizer", R"({"type": "Replace", "pattern": {}, "content": ""})", "normalizer.pattern", "\"Regex\""},
    {"/pre_tokenizer", R"({"type": "BertPreTokenizer"})", "pre_tokenizer.type", "found \"BertPreTokenizer\""},
    {"/pre_tokenizer", R"({"type": "UnicodeScripts"})", "pre_tokenizer.type", "found \"UnicodeScripts\""},
    {"/pre_tokenizer", R"({"type": "ByteLevel"})", "pre_tokenizer.add_prefix_space", "missing"},
    {"/pre_tokenizer", R"({"type": "Split", "pattern": {"String": "a"}, "behavior": "isolated"})",
     "pre_tokenizer.behavior", "found \"isolated\""},
    {"/pre_tokenizer", R"({"type": "Metaspace", "replacement": "__"})", "pre_tokenizer.replacement",
     "single character"},
    {"/pre_tokenizer", R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": "last"})",
     "pre_tokenizer.prepend_scheme", "found \"last\""},
    {"/pre_tokenizer",
     R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": "first", "add_prefix_space": false})",
     "pre_tokenizer.add_prefix_space", "expected true"},
    {"/post_processor", R"({"type": "TemplateProcessing", "single": [], "special_tokens": {}})",
     "post_processor.single", "expected the text"},
    {"/post_processor",
     R"({"type": "TemplateProcessing", "special_tokens": {}, "single": [{"Sequence": {"id": "B"}}]})",
     "post_processor.single[0].Sequence.id", "found \"B\""},
    {"/post_processor",
     R"({"type": "TemplateProcessing", "special_tokens": {}, "single": [{"SpecialToken": {"id": "x"}}]})",
     "post_processor.single[0].SpecialToken.id", "one of special_tokens"},
    {"/post_processor", R"({"type": "Sequence", "processors": [
        {"type": "BertProcessing", "cls": ["a", 0], "sep": ["b", 1]}, {"type": "BertProcessing", "cls": ["a", 0], "sep": ["b", 1]}]})",
     "post_processor", "found two"},
    {"/decoder", R"({"type": "WordPiece"})", "decoder.type", "found \"WordPiece\""},
    {"/decoder", R"({"type": "CTC"})", "decoder.type", "found \"CTC\""},
    {"/decoder", R"({"type": "Strip", "content": " ", "start": -1, "stop": 0})", "decoder.start", "found -1"},
};

/** Patterns that mean something else in PCRE2 or nothing at all. */
const char* const kForeignPatterns[] = {
    "a{2}?", "a{1,2}+",    "a{,2}",   "{",       "[a[bc]]",     "[a&&b]",   "[[:alpha:]]", "[]a]",
    "[a",    "(?<name>a)", "(?i)a",   "(?x: a)", "(*ACCEPT)",   "\\bword",  "\\h",         "\\R",
    "\\X",   "\\1",        "\\K",     "\\G",     "\\p{Alpha1}", "\\pL",     "\\p{Letter}", "\\p{Any}",
    "[\\W]", "\\x{}",      "\\xe9",   "\\u12",   "a\\",         "(",        ")",           "*",
    "[z-a]", "\\Ca",       "\\Qa\\E", "\\p{",    "(?",          "\\o{101}", "\\cA",        "(?#c)",
};

std::string failure(const std::string& json, std::string* key = nullptr) {
  try {
    Tokenizer::fromJson(json, "the file");
  } catch (const FormatError& e) {
    if (key != nullptr) *key = e.key();
    return e.what();
  }
  return "";
}

std::string readFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

}  // namespace

BOOST_AUTO_TEST_CASE(theFaultlessFileIsTaken) {
  BOOST_TEST(failure(faultless().dump()) == "");
  BOOST_TEST(Tokenizer::fromJson(faultless().dump()).encode("ab<s>").size() == 2u);
}

BOOST_DATA_TEST_CASE(faultsAreNamed, boost::unit_test::data::make(kFaults), fault) {
  Json document = faultless();
  document[Json::json_pointer(fault.pointer)] = Json::parse(fault.value);
  std::string key;
  const std::string what = failure(document.dump(), &key);
  BOOST_TEST(key == fault.key);
  BOOST_TEST(what.find("the file: ") == 0u);
  BOOST_TEST(what.find(fault.message) != std::string::npos, what);
}

BOOST_DATA_TEST_CASE(foreignPatternsAreRefused, boost::unit_test::data::make(kForeignPatterns), pattern) {
  Json document = faultless();
  document["pre_tokenizer"] = {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}};
  std::string key;
  BOOST_TEST(failure(document.dump(), &key).find("expected a regular expression") != std::string::npos);
  BOOST_TEST(key == "pre_tokenizer.pattern.Regex");
}

BOOST_AUTO_TEST_CASE(whatIsNoJsonIsRefused) {
  const std::string good = faultless().dump();
  for (const std::string& bad :
       {std::string(), good.substr(0, good.size() / 2), good + "}", std::string("\xFF"), std::string("[]"),
        std::string("{\"version\":\"1.0\",\"version\":\"1.0\"}"), std::string(100000, '[')})
    BOOST_TEST(failure(bad).find("the file: ") == 0u);
  BOOST_CHECK_THROW(Tokenizer::fromFile("/no/such/tokenizer.json"), FormatError);
}

BOOST_AUTO_TEST_CASE(sequencesDoNotNestForever) {
  Json nested = {{"type", "NFC"}};
  for (int i = 0; i < 100; ++i) nested = {{"type", "Sequence"}, {"normalizers", Json::array({std::move(nested)})}};
  Json document = faultless();
  document["normalizer"] = nested;
  BOOST_TEST(failure(document.dump()).find("nested more than 16 deep") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(normalisersDoNotFillTheMemory) {
  const Json replace = {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", std::string(50, 'a')}};
  Json document = faultless();
  document["normalizer"] = {{"type", "Sequence"},
                            {"normalizers", Json::array({replace, replace, replace, replace, replace})}};
  const Tokenizer tokenizer = Tokenizer::fromJson(document.dump());
  BOOST_CHECK_EXCEPTION(tokenizer.encode(std::string(1000, 'a')), FormatError,
                        [](const FormatError& e) { return e.key() == "normalizer"; });
}

BOOST_AUTO_TEST_CASE(textsThatAreNoUtf8AreRefused) {
  const Tokenizer tokenizer = Tokenizer::fromJson(faultless().dump());
  for (const char* text : {"a\x80", "a\xC3", "a\xC0\x80", "a\xED\xA0\x80", "a\xF5\x80\x80\x80", "a\xE2\x82"})
    BOOST_CHECK_EXCEPTION(tokenizer.encode(text), FormatError,
                          [](const FormatError& e) { return e.key() == "byte 1"; });
}

BOOST_AUTO_TEST_CASE(anUnknownTokenIsMissedWhenItIsNeeded) {
  Json document = faultless();
  document["model"]["unk_token"] = "<unk>";
  const Tokenizer tokenizer = Tokenizer::fromJson(document.dump());
  BOOST_TEST(tokenizer.encode("ab").size() == 1u);
  BOOST_CHECK_EXCEPTION(tokenizer.encode("x"), FormatError,
                        [](const FormatError& e) { return e.key() == "model.unk_token"; });
}

/** Damages real files in seeded ways: whatever comes of it is a tokenizer that works or a FormatError. */
BOOST_AUTO_TEST_CASE(damagedFilesAreRefusedOrWork) {
  std::mt19937 random(4);
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
  int refused = 0, taken = 0;
  for (const char* name : {"llama3", "mistral", "words"}) {
    const std::string original = readFile(std::string(EIGENQ_TEST_DATA_DIR "/tokenizer/") + name + ".json");
    // The vocabulary is long and dull: most damage goes to what is before it.
    const std::size_t head = original.find("\"vocab\"");
    BOOST_TEST_REQUIRE(head != std::string::npos);
    for (int trial = 0; trial < 700; ++trial) {
      std::string damaged = original;
      for (std::size_t n = 1 + below(3); n > 0; --n) {
        const std::size_t at = below(below(4) == 0 ? damaged.size() : std::min(head, damaged.size()));
        switch (below(4)) {
          case 0:
            damaged[at] = static_cast<char>(below(256));
            break;
          case 1:
            damaged.erase(at, 1 + below(8));
            break;
          case 2:
            damaged.insert(at, damaged.substr(below(damaged.size()), below(20)));
            break;
          default:
            damaged[at] = "0123456789{}[]\",:tfn\\"[below(20)];
            break;
        }
      }
      try {
        const Tokenizer tokenizer = Tokenizer::fromJson(damaged);
        tokenizer.decode(tokenizer.encode(u8"A caf\u00e9, 123 \u65e5\u672c  x\n\n<s>"));
        ++taken;
      } catch (const FormatError&) {
        ++refused;
      }
    }
  }
  BOOST_TEST(refused > 500);
  BOOST_TEST(taken > 50);
}
