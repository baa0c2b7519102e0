// SPDX-License-Identifier: MPL-2.0
#include "regex.h"

#include <cctype>
#include <new>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <eigen_q/src/Errors.h>

#include "utf8.h"

namespace EigenQ {
namespace llm {
namespace internal {
namespace {

std::string pcre2Message(int code) {
  PCRE2_UCHAR text[256];
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

struct Deleter {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
  void operator()(pcre2_compile_context* context) const { pcre2_compile_context_free(context); }
};
using MatchData = std::unique_ptr<pcre2_match_data, Deleter>;
using CompileContext = std::unique_ptr<pcre2_compile_context, Deleter>;

}  // namespace

struct Regex::Code {
  Code(const std::string& pattern, const std::string& file, const std::string& path) : m_file(file), m_path(path) {
    int error = 0;
    PCRE2_SIZE offset = 0;
    const CompileContext context(pcre2_compile_context_create(nullptr));
    if (!context) throw std::bad_alloc();
    pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);  // whatever this PCRE2 was built with
    // In Oniguruma ^ and $ are always about lines.
    m_code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                           PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error, &offset,
                           context.get());
    if (m_code == nullptr)
      throw FormatError(file, path,
                        "expected a regular expression, found \"" + pattern + "\": " + pcre2Message(error) +
                            " at byte " + std::to_string(offset));
    pcre2_jit_compile(m_code, PCRE2_JIT_COMPLETE);  // if it fails, pcre2_match interprets: slower, the same matches
  }
  ~Code() { pcre2_code_free(m_code); }
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;

  /** Whether there is a match at or after \a from. */
  bool search(std::string_view text, std::size_t from, pcre2_match_data* match) const {
    const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    int status = pcre2_match(m_code, subject, text.size(), from, PCRE2_NO_UTF_CHECK, match, nullptr);
    if (status == PCRE2_ERROR_JIT_STACKLIMIT)  // the interpreter keeps its state on the heap
      status = pcre2_match(m_code, subject, text.size(), from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, match, nullptr);
    if (status == PCRE2_ERROR_NOMATCH) return false;
    if (status < 0)
      throw FormatError(m_file, m_path,
                        "the pattern gives up at byte " + std::to_string(from) + " of a text of " +
                            std::to_string(text.size()) + " bytes: " + pcre2Message(status));
    return true;
  }

  pcre2_code* m_code;
  std::string m_file, m_path;
};

Regex::Regex(const std::string& pattern, const std::string& file, const std::string& path)
    : m_code(std::make_shared<const Code>(pattern, file, path)) {}

Regex Regex::fromOniguruma(const JsonNode& node) {
  return Regex(onigurumaToPcre2(node.asString(), node), node.file(), node.path());
}

Regex Regex::fromLiteral(const JsonNode& literal) {
  if (literal.asString().empty()) literal.expected("some text to look for");
  std::string pattern;
  for (const char c : literal.asString()) {
    // A backslash before a character that is neither letter nor digit stands for that character.
    if (static_cast<unsigned char>(c) < 0x80 && !std::isalnum(static_cast<unsigned char>(c)) && c != '\0')
      pattern += '\\';
    pattern += c;
  }
  return Regex(pattern, literal.file(), literal.path());
}

Regex Regex::fromPcre2(const std::string& pattern) { return Regex(pattern, "EigenQ", pattern); }

std::vector<Span> Regex::spans(std::string_view text) const {
  if (text.empty()) return {{0, 0, false}};
  const MatchData match(pcre2_match_data_create(1, nullptr));
  if (!match) throw std::bad_alloc();
  std::vector<Span> spans;
  std::size_t covered = 0, from = 0;
  bool anyMatch = false;
  while (from <= text.size() && m_code->search(text, from, match.get())) {
    const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(match.get());
    const std::size_t begin = ends[0], end = ends[1];
    if (begin == end && anyMatch && end == covered) {  // an empty match right after another one
      from += from < text.size() ? utf8Length(text[from]) : 1;
      continue;
    }
    if (covered != begin) spans.push_back({covered, begin, false});
    spans.push_back({begin, end, true});
    covered = from = end;
    anyMatch = true;
  }
  if (covered != text.size()) spans.push_back({covered, text.size(), false});
  return spans;
}

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ
