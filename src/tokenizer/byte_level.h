// SPDX-License-Identifier: MPL-2.0
// GPT-2's alphabet: one printable character for each byte.
#ifndef EIGENQ_TOKENIZER_BYTE_LEVEL_H
#define EIGENQ_TOKENIZER_BYTE_LEVEL_H

#include <array>
#include <optional>
#include <string>
#include <string_view>

namespace EigenQ {
namespace llm {
namespace internal {

/** Bytes that print in Latin-1 stand for themselves, the others for the characters from U+0100 on, in order:
 * 0x20 is U+0120 "Ġ", 0x0A is U+010A "Ċ". Source: Radford et al., GPT-2, encoder.py. */
const std::array<std::string, 256>& byteLevelAlphabet();

/** The byte for which a character stands, or nothing. */
std::optional<unsigned char> byteLevelByte(char32_t codePoint);

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_TOKENIZER_BYTE_LEVEL_H
