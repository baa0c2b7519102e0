// SPDX-License-Identifier: MPL-2.0
// Tokens that are looked for in the text before anything else happens to it: <s>, <|endoftext|>, a user's own.
#ifndef EIGENQ_TOKENIZER_ADDED_TOKENS_H
#define EIGENQ_TOKENIZER_ADDED_TOKENS_H

#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "json_node.h"
#include "normalizer.h"
#include "pieces.h"
#include "regex.h"
#include "token_trie.h"
#include "vocabulary.h"

namespace EigenQ {
namespace llm {
namespace internal {

class AddedTokens {
 public:
  /** \param node  the member "added_tokens" of a tokenizer.json
   *  \param model  the model's vocabulary, in which some of them may be as well */
  AddedTokens(const JsonNode& node, const Vocabulary& model, const Normalizer& normalizer);

  /** Cuts \a text at added tokens, normalises what lies between them, and cuts that at those tokens that are looked for
   * in normalised text. */
  Pieces extract(std::string_view text, const Normalizer& normalizer) const;

  const Vocabulary& vocabulary() const { return m_vocabulary; }
  bool isSpecial(int id) const { return m_special.count(id) != 0; }
  std::vector<int> specialIds() const;

 private:
  struct Token {
    int id;
    bool singleWord, stripLeft, stripRight, normalized, special;
  };
  struct Part {
    std::size_t begin, end;
    int token;  // an id, or kNoToken
  };

  static Token readToken(const JsonNode& node);
  void requireId(const JsonNode& node, int id, int expected) const;
  int nextId(const Vocabulary& model) const;
  std::vector<Part> split(std::string_view text, const TokenTrie& trie) const;
  bool standsAlone(std::string_view text, std::size_t begin, std::size_t end) const;

  Vocabulary m_vocabulary;
  std::vector<Token> m_tokens;
  std::unordered_set<int> m_special;
  TokenTrie m_raw, m_normalized;  // to positions in m_tokens
  Regex m_wordCharacter;
};

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_TOKENIZER_ADDED_TOKENS_H
