// SPDX-License-Identifier: MPL-2.0
// Regular expressions over valid UTF-8, matched by PCRE2.
#ifndef EIGENQ_TOKENIZER_REGEX_H
#define EIGENQ_TOKENIZER_REGEX_H

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "json_node.h"

namespace EigenQ {
namespace llm {
namespace internal {

/** A part of a text: bytes [begin, end), and whether it is a match or lies between matches. */
struct Span {
  std::size_t begin, end;
  bool isMatch;
};

/** A compiled pattern; immutable, and matched from many threads at once. */
class Regex {
 public:
  /** A pattern in the syntax of Oniguruma, in which tokenizer.json is written. Constructs that mean something else in
   * PCRE2, or nothing, are refused.
   * \param node  the string, for the error */
  static Regex fromOniguruma(const JsonNode& node);

  /** The text \a literal itself; empty text is refused. */
  static Regex fromLiteral(const JsonNode& literal);

  /** A pattern of ours, in PCRE2's syntax. */
  static Regex fromPcre2(const std::string& pattern);

  /** Matches from left to right and what lies between them, covering \a text without gaps. An empty match counts unless
   * it touches the match before it. An empty text is one empty span without a match.
   * \throws FormatError if PCRE2 gives up at its limits */
  std::vector<Span> spans(std::string_view text) const;

 private:
  struct Code;
  Regex(const std::string& pattern, const std::string& file, const std::string& path);

  std::shared_ptr<const Code> m_code;
};

/** \a pattern in PCRE2's syntax, by the meaning that it has in Oniguruma's.
 * \throws FormatError for what cannot be said there or is not known here */
std::string onigurumaToPcre2(const std::string& pattern, const JsonNode& node);

/** Members of a character class in PCRE2's syntax: word characters as Rust's regex library defines them (UTS #18). */
constexpr const char* kWordCharacters = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control})";

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_TOKENIZER_REGEX_H
