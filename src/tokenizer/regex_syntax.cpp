// SPDX-License-Identifier: MPL-2.0
// From Oniguruma's syntax to PCRE2's. The patterns of tokenizers use little of either, and most of it means the same;
// what is written here is the common part, the differences inside it, and refusals of all else. Sources: Oniguruma's
// doc/RE and doc/SYNTAX.md, pcre2pattern(3).
//
//   \s        White_Space; PCRE2's has U+180E as well
//   \w        letters, marks, decimal digits, connectors; PCRE2's has no marks
//   \p{Name}  a general category or a script; PCRE2's scripts mean script extensions unless it is told otherwise
//   {n}?      "n times, or not at all"; {n,m}+ repeats a repetition: refused, PCRE2 would be lazy or possessive
//   [a[bc]]   union, and && intersection: refused, in PCRE2 they would be characters
#include <algorithm>
#include <cctype>
#include <string>
#include <string_view>

#include "regex.h"
#include "utf8.h"

namespace EigenQ {
namespace llm {
namespace internal {
namespace {

// Superscript digits and fractions of Latin-1 as well; no others are word characters to Oniguruma.
constexpr std::string_view kWordMembers = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{b2}\x{b3}\x{b9}\x{bc}-\x{be})";
constexpr std::string_view kGroupHeads[] = {"?:", "?=", "?!", "?<=", "?<!", "?>", "?i:", "?-i:"};
constexpr std::string_view kGeneralCategories[] = {
    "L",  "Ll", "Lu", "Lt", "Lm", "Lo", "M",  "Mn", "Mc", "Me", "N",  "Nd", "Nl", "No", "P",  "Pc", "Pd", "Ps",
    "Pe", "Pi", "Pf", "Po", "S",  "Sm", "Sc", "Sk", "So", "Z",  "Zs", "Zl", "Zp", "C",  "Cc", "Cf", "Co", "Cn"};

class Translator {
 public:
  Translator(std::string_view pattern, const JsonNode& node) : m_rest(pattern), m_node(node) {}

  std::string run() {
    while (!m_rest.empty()) translateOne();
    return std::move(m_out);
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    m_node.fail("expected a regular expression without " + what + ", found it before \"" + std::string(m_rest) + "\"");
  }

  bool startsWith(std::string_view text) const { return m_rest.substr(0, text.size()) == text; }

  std::string_view take(std::size_t count) {
    const std::string_view taken = m_rest.substr(0, count);
    m_rest.remove_prefix(taken.size());
    return taken;
  }

  void copy(std::size_t count) { m_out += take(count); }

  void translateOne() {
    switch (m_rest[0]) {
      case '\\':
        return translateEscape();
      case '[':
        return translateClass();
      case '(':
        return translateGroup();
      case '{':
        return translateInterval();
      default:
        return copy(1);  // ordinary characters, and . ^ $ | ) * + ? with what may follow them, mean the same
    }
  }

  void translateGroup() {
    copy(1);
    if (startsWith("*")) refuse("a verb");
    if (!startsWith("?")) return;
    for (const std::string_view head : kGroupHeads)
      if (startsWith(head)) return copy(head.size());
    refuse("this kind of group");
  }

  /** {n} {n,} {n,m}; anything else is a plain brace to one library or the other. */
  void translateInterval() {
    const std::size_t end = m_rest.find('}');
    if (end == std::string_view::npos) refuse("a brace that begins no interval");
    const std::string_view body = m_rest.substr(1, end - 1);
    const auto isDigit = [](char c) { return c >= '0' && c <= '9'; };
    const bool wellFormed = !body.empty() && isDigit(body[0]) && std::count(body.begin(), body.end(), ',') <= 1 &&
                            std::all_of(body.begin(), body.end(), [&](char c) { return c == ',' || isDigit(c); });
    if (!wellFormed) refuse("a brace that begins no interval");
    const bool single = body.find(',') == std::string_view::npos;
    copy(end + 1);
    if (startsWith("+") || startsWith("*") || (single && startsWith("?"))) refuse("a repeated interval");
  }

  void translateEscape() {
    if (m_rest.size() < 2) refuse("a backslash at the end");
    switch (m_rest[1]) {
      case 's':
        return replace("\\p{White_Space}");
      case 'S':
        return replace("\\P{White_Space}");
      case 'w':
        return replace("[" + std::string(kWordMembers) + "]");
      case 'W':
        return replace("[^" + std::string(kWordMembers) + "]");
      case 'A':
      case 'z':
        return copy(2);
      default:
        return translateMember();
    }
  }

  /** Escapes that mean the same inside a class and outside. */
  void translateMember() {
    const char kind = m_rest[1];
    switch (kind) {
      case 'd':
        return replace("\\p{Nd}");
      case 'D':
        return replace("\\P{Nd}");
      case 'p':
      case 'P':
        return translateProperty();
      case 'n':
      case 'r':
      case 't':
      case 'f':
        return copy(2);
      case 'u':
        return translateCodePoint(2, 4);
      case 'x':
        return translateHexEscape();
      default:
        break;
    }
    const auto byte = static_cast<unsigned char>(kind);
    if (byte >= 0x80 || std::isalnum(byte)) refuse("this escape");
    copy(2);
  }

  void replace(const std::string& translation) {
    take(2);
    m_out += translation;
  }

  /** \p{Name}, \P{Name} and \p{^Name}. */
  void translateProperty() {
    const std::size_t end = m_rest.find('}');
    if (m_rest.size() < 3 || m_rest[2] != '{' || end == std::string_view::npos) refuse("this property");
    std::string_view name = m_rest.substr(3, end - 3);
    bool negated = m_rest[1] == 'P';
    if (!name.empty() && name[0] == '^') {
      negated = !negated;
      name.remove_prefix(1);
    }
    if (name.empty() ||
        !std::all_of(name.begin(), name.end(), [](unsigned char c) { return std::isalpha(c) || c == '_'; }))
      refuse("this property");
    const bool category = std::count(std::begin(kGeneralCategories), std::end(kGeneralCategories), name) != 0;
    m_out += std::string(negated ? "\\P{" : "\\p{") + (category ? "" : "sc:") + std::string(name) + "}";
    take(end + 1);
  }

  /** \xHH and \x{H…}: below 0x80 only in the short form, where Oniguruma means a byte and PCRE2 a character. */
  void translateHexEscape() {
    const std::size_t end = m_rest.find('}');
    if (m_rest.size() > 2 && m_rest[2] == '{' && end != std::string_view::npos)
      return translateCodePoint(3, end - 3, 1);
    if (m_rest.size() < 4 || m_rest[2] < '0' || m_rest[2] > '7') refuse("this escape");
    translateCodePoint(2, 2);
  }

  void translateCodePoint(std::size_t from, std::size_t digits, std::size_t behind = 0) {
    const std::string_view text = m_rest.substr(std::min(from, m_rest.size()), digits);
    if (text.empty() || text.size() != digits ||
        !std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isxdigit(c); }))
      refuse("this escape");
    m_out += "\\x{" + std::string(text) + "}";
    take(from + digits + behind);
  }

  void translateClass() {
    copy(1);
    if (startsWith("^")) copy(1);
    if (startsWith("]")) refuse("a class that begins with ]");
    while (!startsWith("]")) {
      if (m_rest.empty()) refuse("a class that is not closed");
      translateClassMember();
    }
    copy(1);
  }

  void translateClassMember() {
    if (startsWith("[")) refuse("a class within a class");
    if (startsWith("&&")) refuse("an intersection of classes");
    if (!startsWith("\\")) return copy(1);
    if (startsWith("\\s") || startsWith("\\S")) return translateEscape();
    if (startsWith("\\w")) return replace(std::string(kWordMembers));
    if (m_rest.size() < 2) refuse("a backslash at the end");
    translateMember();
  }

  std::string_view m_rest;
  const JsonNode& m_node;
  std::string m_out;
};

}  // namespace

std::string onigurumaToPcre2(const std::string& pattern, const JsonNode& node) {
  return Translator(pattern, node).run();
}

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ
