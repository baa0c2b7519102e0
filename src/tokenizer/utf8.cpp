// SPDX-License-Identifier: MPL-2.0
#include "utf8.h"

namespace EigenQ {
namespace llm {
namespace internal {
namespace {

unsigned byteAt(std::string_view bytes, std::size_t i) { return static_cast<unsigned char>(bytes[i]); }

/** The bytes that may follow a lead byte, from Table 3-7 of the Unicode standard. Length 0: not a lead byte. */
struct LeadByte {
  std::size_t length;
  unsigned lowestSecond, highestSecond;
};

LeadByte leadByte(unsigned byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte < 0xC2) return {0, 0, 0};
  if (byte < 0xE0) return {2, 0x80, 0xBF};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};  // the rest would be surrogates
  if (byte < 0xF0) return {3, 0x80, 0xBF};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte < 0xF4) return {4, 0x80, 0xBF};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

}  // namespace

Utf8Prefix utf8Prefix(std::string_view bytes) {
  const LeadByte lead = leadByte(byteAt(bytes, 0));
  if (lead.length == 0) return {Utf8Prefix::kMalformed, 1};
  for (std::size_t i = 1; i < lead.length; ++i) {
    if (i == bytes.size()) return {Utf8Prefix::kUnfinished, i};
    const unsigned lowest = i == 1 ? lead.lowestSecond : 0x80, highest = i == 1 ? lead.highestSecond : 0xBF;
    if (byteAt(bytes, i) < lowest || byteAt(bytes, i) > highest) return {Utf8Prefix::kMalformed, i};
  }
  return {Utf8Prefix::kCharacter, lead.length};
}

std::size_t findMalformed(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    if (byteAt(text, at) < 0x80) {
      ++at;
      continue;
    }
    const Utf8Prefix prefix = utf8Prefix(text.substr(at));
    if (prefix.kind != Utf8Prefix::kCharacter) return at;
    at += prefix.length;
  }
  return std::string_view::npos;
}

char32_t firstCodePoint(std::string_view text) {
  const std::size_t length = utf8Length(text[0]);
  if (length == 1) return byteAt(text, 0);
  char32_t codePoint = byteAt(text, 0) & (0x7Fu >> length);
  for (std::size_t i = 1; i < length; ++i) codePoint = codePoint << 6 | (byteAt(text, i) & 0x3F);
  return codePoint;
}

std::string_view lastCharacter(std::string_view text) {
  std::size_t at = text.size() - 1;
  while ((byteAt(text, at) & 0xC0) == 0x80) --at;
  return text.substr(at);
}

void appendUtf8(std::string& text, char32_t codePoint) {
  const auto trail = [&](int shift) { text.push_back(static_cast<char>(0x80 | (codePoint >> shift & 0x3F))); };
  if (codePoint < 0x80) {
    text.push_back(static_cast<char>(codePoint));
  } else if (codePoint < 0x800) {
    text.push_back(static_cast<char>(0xC0 | codePoint >> 6));
    trail(0);
  } else if (codePoint < 0x10000) {
    text.push_back(static_cast<char>(0xE0 | codePoint >> 12));
    trail(6);
    trail(0);
  } else {
    text.push_back(static_cast<char>(0xF0 | codePoint >> 18));
    trail(12);
    trail(6);
    trail(0);
  }
}

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ
