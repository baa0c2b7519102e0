// SPDX-License-Identifier: MPL-2.0
#include "added_tokens.h"

#include <algorithm>

#include "unicode.h"
#include "utf8.h"

namespace EigenQ {
namespace llm {
namespace internal {

AddedTokens::Token AddedTokens::readToken(const JsonNode& node) {
  return {node.at("id").asIndex(),    node.at("single_word").asBool(), node.at("lstrip").asBool(),
          node.at("rstrip").asBool(), node.at("normalized").asBool(),  node.at("special").asBool()};
}

AddedTokens::AddedTokens(const JsonNode& node, const Vocabulary& model, const Normalizer& normalizer)
    : m_wordCharacter(Regex::fromPcre2(std::string("[") + kWordCharacters + "]")) {
  for (const JsonNode& element : node.elements()) {
    const Token token = readToken(element);
    const std::string& content = element.at("content").asString();
    if (content.empty()) element.at("content").expected("some text");
    const int known = model.find(content);
    requireId(element.at("id"), token.id, known == kNoToken ? nextId(model) : known);
    if (known == kNoToken && model.token(token.id) != nullptr)
      element.at("id").expected("an id that is not that of \"" + *model.token(token.id) + "\"");
    if (!m_vocabulary.insert(content, token.id))
      element.at("content").expected("a token that has not been added before");
    m_tokens.push_back(token);
    if (token.special) m_special.insert(token.id);
  }
  // Equal normalised contents: special tokens come first.
  for (const bool special : {true, false}) {
    for (std::size_t i = 0; i < m_tokens.size(); ++i) {
      if (m_tokens[i].special != special) continue;
      const std::string& content = *m_vocabulary.token(m_tokens[i].id);
      const std::string sought = m_tokens[i].normalized ? normalizer(content) : content;
      if (sought.empty()) node.elements()[i].fail("normalised, nothing is left of \"" + content + "\" to look for");
      (m_tokens[i].normalized ? m_normalized : m_raw).insert(sought, static_cast<int>(i));
    }
  }
}

/** Hugging Face's library numbers added tokens itself, after the vocabulary, whatever the file says. A file that says
 * something else means other ids than that library gives. */
void AddedTokens::requireId(const JsonNode& node, int id, int expected) const {
  if (id != expected)
    node.expected("the id that this token has in the vocabulary, or the next free one (" + std::to_string(expected) +
                  ")");
}

int AddedTokens::nextId(const Vocabulary& model) const {
  return std::max(m_vocabulary.largestId() + 1, static_cast<int>(model.size()));
}

std::vector<int> AddedTokens::specialIds() const {
  std::vector<int> ids(m_special.begin(), m_special.end());
  std::sort(ids.begin(), ids.end());
  return ids;
}

bool AddedTokens::standsAlone(std::string_view text, std::size_t begin, std::size_t end) const {
  const auto isWord = [this](std::string_view character) { return m_wordCharacter.spans(character)[0].isMatch; };
  if (begin != 0 && isWord(lastCharacter(text.substr(0, begin)))) return false;
  return end == text.size() || !isWord(text.substr(end, utf8Length(text[end])));
}

std::vector<AddedTokens::Part> AddedTokens::split(std::string_view text, const TokenTrie& trie) const {
  if (trie.empty()) return {{0, text.size(), kNoToken}};
  std::vector<Part> parts;
  std::size_t covered = 0;
  for (std::size_t at = 0; at < text.size();) {
    const TokenTrie::Match match = trie.longest(text.substr(at));
    if (match.value < 0) {
      ++at;
      continue;
    }
    const Token& token = m_tokens[static_cast<std::size_t>(match.value)];
    std::size_t begin = at, end = at + match.length;
    at = end;  // even where the match does not count, the next is looked for behind it
    if (token.singleWord && !standsAlone(text, begin, end)) continue;
    if (token.stripLeft) begin = std::max(covered, begin - trailingWhitespace(text.substr(0, begin)));
    if (token.stripRight) end += leadingWhitespace(text.substr(end));
    if (covered < begin) parts.push_back({covered, begin, kNoToken});
    parts.push_back({begin, end, token.id});
    covered = end;
  }
  if (covered != text.size()) parts.push_back({covered, text.size(), kNoToken});
  return parts;
}

Pieces AddedTokens::extract(std::string_view text, const Normalizer& normalizer) const {
  Pieces result;
  for (const Part& raw : split(text, m_raw)) {
    if (raw.token != kNoToken) {
      result.pieces.push_back({0, 0, raw.token, false});
      continue;
    }
    const std::string normalized = normalizer(std::string(text.substr(raw.begin, raw.end - raw.begin)));
    const std::size_t offset = result.text.size();
    for (const Part& part : split(normalized, m_normalized))
      if (part.begin != part.end)
        result.pieces.push_back(
            {offset + part.begin, part.end - part.begin, part.token, raw.begin == 0 && part.begin == 0});
    result.text += normalized;
  }
  return result;
}

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ
