// SPDX-License-Identifier: MPL-2.0
#include "pre_tokenizer.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>

#include "byte_level.h"
#include "component.h"
#include "metaspace.h"
#include "regex.h"
#include "replacement.h"
#include "unicode.h"
#include "utf8.h"

namespace EigenQ {
namespace llm {
namespace internal {
namespace {

using Step = PreTokenizer::Step;
using Spans = std::vector<Span>;

// GPT-2's words: contractions, then letters, numbers and the rest with a space before them, then white space.
constexpr const char* kByteLevelWords =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+)";

/** What becomes of a match: a delimiter between words. Spelled as in the file. */
enum Behavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

Behavior readBehavior(const JsonNode& node) {
  return static_cast<Behavior>(
      node.choice("behavior", {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"}));
}

/** Joins a match to the span before it, unless that is a match as well. */
Spans mergeWithPrevious(const Spans& spans) {
  Spans words;
  bool afterMatch = false;
  for (const Span& span : spans) {
    if (span.isMatch && !afterMatch && !words.empty()) {
      words.back().end = span.end;
    } else {
      words.push_back(span);
    }
    afterMatch = span.isMatch;
  }
  return words;
}

Spans mergeWithNext(const Spans& spans) {
  Spans words;
  bool beforeMatch = false;
  for (auto span = spans.rbegin(); span != spans.rend(); ++span) {
    if (span->isMatch && !beforeMatch && !words.empty()) {
      words.back().begin = span->begin;
    } else {
      words.push_back(*span);
    }
    beforeMatch = span->isMatch;
  }
  std::reverse(words.begin(), words.end());
  return words;
}

Spans joinNeighbours(const Spans& spans) {
  Spans words;
  for (const Span& span : spans) {
    if (!words.empty() && words.back().isMatch == span.isMatch) {
      words.back().end = span.end;
    } else {
      words.push_back(span);
    }
  }
  return words;
}

Spans applyBehavior(Spans spans, Behavior behavior) {
  switch (behavior) {
    case kRemoved:
      spans.erase(std::remove_if(spans.begin(), spans.end(), [](const Span& span) { return span.isMatch; }),
                  spans.end());
      return spans;
    case kIsolated:
      return spans;
    case kMergedWithPrevious:
      return mergeWithPrevious(spans);
    case kMergedWithNext:
      return mergeWithNext(spans);
    case kContiguous:
      return joinNeighbours(spans);
  }
  return spans;
}

/** Every character for which \a isDelimiter holds is a match of its own. */
template <typename IsDelimiter>
Spans characterSpans(std::string_view text, IsDelimiter isDelimiter) {
  Spans spans;
  forEachCharacter(text, [&](std::string_view character, std::size_t at) {
    const bool delimiter = isDelimiter(firstCodePoint(character));
    if (delimiter || spans.empty() || spans.back().isMatch) {
      spans.push_back({at, at + character.size(), delimiter});
    } else {
      spans.back().end += character.size();
    }
  });
  return spans;
}

template <typename IsDelimiter>
Step splitAtCharacters(IsDelimiter isDelimiter, Behavior behavior) {
  return {[=](Pieces& pieces) {
    pieces.split([=](std::string_view text) { return applyBehavior(characterSpans(text, isDelimiter), behavior); });
  }};
}

Step splitAtMatches(Regex pattern, Behavior behavior, bool invert) {
  return {[=, pattern = std::move(pattern)](Pieces& pieces) {
    pieces.split([&](std::string_view text) {
      Spans spans = pattern.spans(text);
      if (invert)
        for (Span& span : spans) span.isMatch = !span.isMatch;
      return applyBehavior(std::move(spans), behavior);
    });
  }};
}

Step readSplit(const JsonNode& node) {
  return splitAtMatches(readPattern(node.at("pattern")), readBehavior(node), node.boolOr("invert", false));
}

void prependSpace(Pieces& pieces) {
  pieces.rewrite([](std::string& out, std::string_view text, bool) {
    if (text.substr(0, 1) != " ") out += ' ';
    out += text;
  });
}

void toByteLevel(Pieces& pieces) {
  pieces.rewrite([&alphabet = byteLevelAlphabet()](std::string& out, std::string_view text, bool) {
    for (const char byte : text) out += alphabet[static_cast<unsigned char>(byte)];
  });
}

Step readByteLevel(const JsonNode& node) {
  const bool addPrefixSpace = node.at("add_prefix_space").asBool(), useRegex = node.boolOr("use_regex", true);
  const Step words = splitAtMatches(Regex::fromPcre2(kByteLevelWords), kIsolated, false);
  return {[=](Pieces& pieces) {
    if (addPrefixSpace) prependSpace(pieces);
    if (useRegex) words.run(pieces);
    toByteLevel(pieces);
  }};
}

Step readMetaspace(const JsonNode& node) {
  const Metaspace metaspace = Metaspace::read(node);
  const char32_t mark = firstCodePoint(metaspace.mark);
  const Step words = splitAtCharacters([mark](char32_t c) { return c == mark; }, kMergedWithNext);
  const auto run = [=](Pieces& pieces) {
    pieces.rewrite([&](std::string& out, std::string_view text, bool atStart) {
      const bool marked = text.substr(0, 1) == " " || text.substr(0, metaspace.mark.size()) == metaspace.mark;
      if (!marked && metaspace.prepends(atStart)) out += metaspace.mark;
      for (const char c : text) c == ' ' ? out += metaspace.mark : out += c;
    });
    if (metaspace.split) words.run(pieces);
  };
  return {run, metaspace.scheme == Metaspace::kFirst};
}

Step readWhitespace(const JsonNode&) {
  const std::string word = kWordCharacters;
  return splitAtMatches(Regex::fromPcre2("[" + word + "]+|[^" + word + "\\p{White_Space}]+"), kRemoved,
                        /*invert=*/true);
}

Step readWhitespaceSplit(const JsonNode&) { return splitAtCharacters(isWhitespace, kRemoved); }

Step readDigits(const JsonNode& node) {
  return splitAtCharacters(isNumeric, node.boolOr("individual_digits", false) ? kIsolated : kContiguous);
}

Step readPunctuation(const JsonNode& node) {
  return splitAtCharacters(isPunctuation, node.has("behavior") ? readBehavior(node) : kIsolated);
}

constexpr ComponentType<Step> kPreTokenizers[] = {
    {"ByteLevel", readByteLevel},     {"Split", readSplit},   {"Metaspace", readMetaspace},
    {"Whitespace", readWhitespace},   {"Digits", readDigits}, {"WhitespaceSplit", readWhitespaceSplit},
    {"Punctuation", readPunctuation},
};

}  // namespace

PreTokenizer PreTokenizer::read(const JsonNode& node) {
  PreTokenizer preTokenizer;
  readComponents(node, "pretokenizers", kPreTokenizers, preTokenizer.m_steps);
  return preTokenizer;
}

void PreTokenizer::operator()(Pieces& pieces) const {
  for (const Step& step : m_steps) step.run(pieces);
}

bool PreTokenizer::mindsTheStart() const {
  return std::any_of(m_steps.begin(), m_steps.end(), [](const Step& step) { return step.mindsTheStart; });
}

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ
