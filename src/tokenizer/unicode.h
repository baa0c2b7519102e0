// SPDX-License-Identifier: MPL-2.0
// Properties and mappings of characters; the tables are utf8proc's.
#ifndef EIGENQ_TOKENIZER_UNICODE_H
#define EIGENQ_TOKENIZER_UNICODE_H

#include <string>
#include <string_view>

namespace EigenQ {
namespace llm {
namespace internal {

enum class NormalForm { kNFC, kNFD, kNFKC, kNFKD };

/** Unicode normalisation (UAX #15) of valid UTF-8, in time n log n. */
std::string normalize(std::string_view text, NormalForm form);

/** Lower case of every character by itself, in no language: a final sigma is no exception. */
std::string toLower(std::string_view text);

/** The property White_Space. */
bool isWhitespace(char32_t codePoint);
/** The general categories N. */
bool isNumeric(char32_t codePoint);
/** The general categories P, and the ASCII characters that C's ispunct takes. */
bool isPunctuation(char32_t codePoint);

/** Bytes of white space at the beginning and at the end of valid UTF-8. */
std::size_t leadingWhitespace(std::string_view text);
std::size_t trailingWhitespace(std::string_view text);

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_TOKENIZER_UNICODE_H
