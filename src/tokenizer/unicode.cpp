// SPDX-License-Identifier: MPL-2.0
#include "unicode.h"

#include <algorithm>
#include <stdexcept>
#include <vector>

#include <utf8proc.h>

#include "utf8.h"

namespace EigenQ {
namespace llm {
namespace internal {
namespace {

using CodePoints = std::vector<utf8proc_int32_t>;

int combiningClass(utf8proc_int32_t codePoint) { return utf8proc_get_property(codePoint)->combining_class; }

CodePoints decompose(std::string_view text, bool compatibly) {
  constexpr int kLongest = 18;  // U+FDFA under NFKD, the longest decomposition there is
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE |
                                                      (compatibly ? UTF8PROC_COMPAT : utf8proc_option_t{}));
  CodePoints result;
  result.reserve(text.size());
  forEachCharacter(text, [&](std::string_view character, std::size_t) {
    utf8proc_int32_t parts[kLongest];
    int lastBoundClass = 0;
    const auto count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(firstCodePoint(character)), parts,
                                               kLongest, options, &lastBoundClass);
    if (count < 0 || count > kLongest) throw std::runtime_error("utf8proc cannot decompose a character");
    result.insert(result.end(), parts, parts + count);
  });
  return result;
}

/** Canonical ordering. utf8proc's own is quadratic in the length of a run of combining marks. */
void orderMarks(CodePoints& points) {
  const auto isMark = [](utf8proc_int32_t point) { return combiningClass(point) != 0; };
  for (auto first = std::find_if(points.begin(), points.end(), isMark); first != points.end();) {
    const auto last = std::find_if_not(first, points.end(), isMark);
    std::stable_sort(first, last, [](auto a, auto b) { return combiningClass(a) < combiningClass(b); });
    first = std::find_if(last, points.end(), isMark);
  }
}

void compose(CodePoints& points) {
  const auto count = utf8proc_normalize_utf32(points.data(), static_cast<utf8proc_ssize_t>(points.size()),
                                              static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  if (count < 0) throw std::runtime_error("utf8proc cannot compose a text");
  points.resize(static_cast<std::size_t>(count));
}

bool isAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

}  // namespace

std::string normalize(std::string_view text, NormalForm form) {
  if (isAscii(text)) return std::string(text);  // in every normal form already
  CodePoints points = decompose(text, form == NormalForm::kNFKC || form == NormalForm::kNFKD);
  orderMarks(points);
  if (form == NormalForm::kNFC || form == NormalForm::kNFKC) compose(points);
  std::string result;
  result.reserve(text.size());
  for (const auto point : points) appendUtf8(result, static_cast<char32_t>(point));
  return result;
}

std::string toLower(std::string_view text) {
  constexpr char32_t kCapitalIWithDot = 0x130;  // the one character whose lower case is two
  std::string result;
  result.reserve(text.size());
  forEachCharacter(text, [&](std::string_view character, std::size_t) {
    const char32_t point = firstCodePoint(character);
    if (point == kCapitalIWithDot) {
      result += "i\u0307";
    } else {
      appendUtf8(result, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(point))));
    }
  });
  return result;
}

bool isWhitespace(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool isNumeric(char32_t codePoint) {
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(codePoint));
  return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL || category == UTF8PROC_CATEGORY_NO;
}

bool isPunctuation(char32_t c) {
  const bool ascii =
      (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return ascii || (category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO);
}

std::size_t leadingWhitespace(std::string_view text) {
  std::size_t length = 0;
  while (length < text.size() && isWhitespace(firstCodePoint(text.substr(length)))) length += utf8Length(text[length]);
  return length;
}

std::size_t trailingWhitespace(std::string_view text) {
  std::string_view rest = text;
  while (!rest.empty() && isWhitespace(firstCodePoint(lastCharacter(rest))))
    rest.remove_suffix(lastCharacter(rest).size());
  return text.size() - rest.size();
}

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ
