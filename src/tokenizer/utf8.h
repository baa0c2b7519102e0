// SPDX-License-Identifier: MPL-2.0
// UTF-8 as RFC 3629 defines it: no surrogates, no overlong forms, nothing above U+10FFFF.
#ifndef EIGENQ_TOKENIZER_UTF8_H
#define EIGENQ_TOKENIZER_UTF8_H

#include <cstddef>
#include <string>
#include <string_view>

namespace EigenQ {
namespace llm {
namespace internal {

constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

/** What stands at the beginning of some bytes. */
struct Utf8Prefix {
  enum Kind { kCharacter, kUnfinished, kMalformed } kind;
  /** Bytes of the character, or of the maximal subpart: those that one U+FFFD replaces (Unicode, section 3.9). */
  std::size_t length;
};

/** \param bytes  not empty */
Utf8Prefix utf8Prefix(std::string_view bytes);

/** The offset of the first byte that is no UTF-8, or npos. */
std::size_t findMalformed(std::string_view text);

/** Bytes of the character that begins with \a lead, in valid UTF-8. */
inline std::size_t utf8Length(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

/** The first character of valid UTF-8. \param text  not empty */
char32_t firstCodePoint(std::string_view text);

/** The last character of valid UTF-8. \param text  not empty */
std::string_view lastCharacter(std::string_view text);

void appendUtf8(std::string& text, char32_t codePoint);

/** Calls f(character, offset) for every character of valid UTF-8, as a view of its bytes. */
template <typename F>
void forEachCharacter(std::string_view text, F&& f) {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = utf8Length(text[at]);
    f(text.substr(at, length), at);
    at += length;
  }
}

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_TOKENIZER_UTF8_H
