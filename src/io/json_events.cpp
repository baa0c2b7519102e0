// SPDX-License-Identifier: MPL-2.0
#include "json_events.h"

#include <utility>

#include <nlohmann/json.hpp>

#include <eigen_q/src/Errors.h>

namespace EigenQ {
namespace io {
namespace internal {
namespace {

constexpr int kMaxDepth = 128;  // as the reference implementation's JSON reader has it

/** nlohmann's interface of events on top of ours. */
class Sax : public nlohmann::json_sax<nlohmann::json> {
 public:
  Sax(JsonEvents& events, const std::string& where, const std::string& what)
      : m_events(events), m_where(where), m_what(what) {}

  bool null() override { return value({JsonKind::kNull, 0, {}}); }
  bool boolean(bool) override { return value({JsonKind::kBoolean, 0, {}}); }
  bool number_integer(number_integer_t) override { return value({JsonKind::kOtherNumber, 0, {}}); }
  bool number_unsigned(number_unsigned_t v) override { return value({JsonKind::kUnsigned, v, {}}); }
  bool number_float(number_float_t, const string_t&) override { return value({JsonKind::kOtherNumber, 0, {}}); }
  bool string(string_t& v) override { return value({JsonKind::kString, 0, std::move(v)}); }
  bool binary(binary_t&) override { return false; }  // JSON has none
  bool start_object(std::size_t) override { return start(JsonKind::kObject); }
  bool start_array(std::size_t) override { return start(JsonKind::kArray); }
  bool end_object() override { return end(); }
  bool end_array() override { return end(); }
  bool key(string_t& k) override {
    m_events.onKey(m_depth, std::move(k));
    return true;
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception& e) override {
    constexpr std::size_t kLongest = 200;  // it quotes the last token, which may be most of the file
    throw FormatError(
        m_where, m_what,
        "not JSON at byte " + std::to_string(position) + ": " + std::string(e.what()).substr(0, kLongest));
  }

 private:
  bool value(JsonValue&& v) {
    m_events.onValue(m_depth, std::move(v));
    return true;
  }
  bool start(JsonKind kind) {
    value({kind, 0, {}});
    if (++m_depth > kMaxDepth)
      throw FormatError(m_where, m_what, "expected at most " + std::to_string(kMaxDepth) + " levels, found more");
    return true;
  }
  bool end() {
    m_events.onEnd(--m_depth);
    return true;
  }

  JsonEvents& m_events;
  const std::string& m_where;
  const std::string& m_what;
  int m_depth = 0;
};

/** The length of the UTF-8 sequence at \a p; 0 where there is none. RFC 3629: no overlong forms, no surrogates. */
std::size_t utf8Length(const unsigned char* p, const unsigned char* end) {
  const auto tail = [&](int i) { return p + i < end && (p[i] & 0xc0) == 0x80; };
  if (p[0] < 0x80) return 1;
  if (p[0] >= 0xc2 && p[0] <= 0xdf) return tail(1) ? 2 : 0;
  if ((p[0] & 0xf0) == 0xe0) {
    if (!tail(1) || !tail(2) || (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f)) return 0;
    return 3;
  }
  if (p[0] >= 0xf0 && p[0] <= 0xf4) {
    if (!tail(1) || !tail(2) || !tail(3) || (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f)) return 0;
    return 4;
  }
  return 0;
}

std::string hexByte(char c) {
  constexpr const char* kDigits = "0123456789abcdef";
  const auto byte = static_cast<unsigned char>(c);
  return std::string("0x") + kDigits[byte >> 4] + kDigits[byte & 15];
}

/** What nlohmann would let pass: other roots than an object, a byte order mark, and whatever follows a zero byte. */
void checkBytes(std::string_view text, const std::string& where, const std::string& what) {
  const std::size_t invalid = findInvalidUtf8(text);
  if (invalid != text.npos)
    throw FormatError(where, what,
                      "not UTF-8: found " + hexByte(text[invalid]) + " at byte " + std::to_string(invalid));
  const std::size_t zero = text.find('\0');
  if (zero != text.npos) throw FormatError(where, what, "not JSON: found a zero byte at byte " + std::to_string(zero));
  const std::size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == text.npos) throw FormatError(where, what, "expected a JSON object, found nothing");
  if (text[begin] != '{') throw FormatError(where, what, "expected a JSON object, found " + hexByte(text[begin]));
}

}  // namespace

const char* nameOf(JsonKind kind) {
  switch (kind) {
    case JsonKind::kNull:
      return "null";
    case JsonKind::kBoolean:
      return "a boolean";
    case JsonKind::kUnsigned:
      return "an unsigned integer";
    case JsonKind::kOtherNumber:
      return "a number that is no unsigned integer";
    case JsonKind::kString:
      return "a string";
    case JsonKind::kObject:
      return "an object";
    case JsonKind::kArray:
      break;
  }
  return "an array";
}

std::size_t findInvalidUtf8(std::string_view text) {
  const auto* begin = reinterpret_cast<const unsigned char*>(text.data());
  const auto* end = begin + text.size();
  for (const unsigned char* p = begin; p < end;) {
    const std::size_t length = utf8Length(p, end);
    if (length == 0) return static_cast<std::size_t>(p - begin);
    p += length;
  }
  return std::string_view::npos;
}

void readJson(std::string_view text, const std::string& where, const std::string& what, JsonEvents& events) {
  checkBytes(text, where, what);
  Sax sax(events, where, what);
  nlohmann::json::sax_parse(text.begin(), text.end(), &sax);
}

}  // namespace internal
}  // namespace io
}  // namespace EigenQ
