// SPDX-License-Identifier: MPL-2.0
#include "decoder_steps.h"

#include <algorithm>
#include <optional>

#include "byte_level.h"
#include "utf8.h"

namespace EigenQ {
namespace llm {
namespace internal {
namespace {

/** Passes on the characters that \a bytes begins with, U+FFFD for each maximal subpart that is none, and leaves what
 * may still become one. */
void passCharacters(std::string& bytes, DecoderStep& next) {
  std::size_t at = 0;
  while (at < bytes.size()) {
    const std::string_view rest = std::string_view(bytes).substr(at);
    const Utf8Prefix prefix = utf8Prefix(rest);
    if (prefix.kind == Utf8Prefix::kUnfinished) break;
    next.text(prefix.kind == Utf8Prefix::kCharacter ? rest.substr(0, prefix.length) : kReplacementCharacter);
    at += prefix.length;
  }
  bytes.erase(0, at);
}

/** The value of "<0x0A>", or nothing. A plus sign is a hexadecimal digit's equal here, as in Rust's number parser. */
std::optional<char> byteTokenValue(std::string_view token) {
  const auto digit = [](char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
  };
  if (token.size() != 6 || token.substr(0, 3) != "<0x" || token[5] != '>') return std::nullopt;
  const int high = token[3] == '+' ? 0 : digit(token[3]), low = digit(token[4]);
  if (high < 0 || low < 0) return std::nullopt;
  return static_cast<char>(high * 16 + low);
}

}  // namespace

void JoinWithSpaces::token(const std::string& token) {
  passToken(m_first ? token : " " + token);
  m_first = false;
}

void JoinWithSpaces::finish() {
  m_first = true;
  next().finish();
}

void MetaspaceToSpace::token(const std::string& token) {
  const bool vanish = m_first && m_metaspace.scheme != Metaspace::kNever;
  std::string text;
  forEachCharacter(token, [&](std::string_view character, std::size_t) {
    text += character != m_metaspace.mark ? character : vanish ? "" : " ";
  });
  m_first = false;
  passToken(text);
}

void MetaspaceToSpace::finish() {
  m_first = true;
  next().finish();
}

void ByteLevelToText::token(const std::string& token) {
  std::string bytes;
  bool inAlphabet = true;
  forEachCharacter(token, [&](std::string_view character, std::size_t) {
    const auto byte = byteLevelByte(firstCodePoint(character));
    inAlphabet = inAlphabet && byte;
    if (byte) bytes += static_cast<char>(*byte);
  });
  m_bytes += inAlphabet ? bytes : token;  // an added token may hold any characters
  passCharacters(m_bytes, next());
}

void ByteLevelToText::finish() {
  if (!m_bytes.empty()) next().text(kReplacementCharacter);
  m_bytes.clear();
  next().endToken();
  next().finish();
}

void ByteTokensToText::token(const std::string& token) {
  if (const auto byte = byteTokenValue(token)) {
    m_inRun = true;
    m_run += *byte;
    if (m_runs == ByteRuns::kEager) passCharacters(m_run, next());
    return;
  }
  endRun();
  passToken(token);
}

void ByteTokensToText::endRun() {
  if (!m_inRun) return;
  if (m_runs == ByteRuns::kEager) {
    if (!m_run.empty()) next().text(kReplacementCharacter);
    next().endToken();
  } else if (findMalformed(m_run) == std::string_view::npos) {
    passToken(m_run);
  } else {  // a token for each byte
    for (std::size_t i = 0; i < m_run.size(); ++i) passToken(kReplacementCharacter);
  }
  m_run.clear();
  m_inRun = false;
}

void ByteTokensToText::finish() {
  endRun();
  next().finish();
}

void Fuse::finish() {
  next().endToken();
  next().finish();
}

void StripTokens::text(std::string_view part) {
  forEachCharacter(part, [&](std::string_view character, std::size_t) {
    const bool strippable = character == m_character;
    if (strippable && m_toStrip > 0) {
      --m_toStrip;
      return;
    }
    m_toStrip = 0;
    if (strippable && m_held < m_stop) {
      ++m_held;
      return;
    }
    // Of more such characters than may go, the last ones go: those that come first are passed on.
    if (!strippable)
      for (; m_held > 0; --m_held) next().text(m_character);
    next().text(character);
  });
}

void StripTokens::endToken() {
  m_held = 0;
  m_toStrip = m_start;
  next().endToken();
}

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ
