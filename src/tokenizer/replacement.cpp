// SPDX-License-Identifier: MPL-2.0
#include "replacement.h"

namespace EigenQ {
namespace llm {
namespace internal {

Regex readPattern(const JsonNode& node) {
  if (node.has("String")) return Regex::fromLiteral(node.at("String"));
  if (node.has("Regex")) return Regex::fromOniguruma(node.at("Regex"));
  node.expected("a member \"String\" or \"Regex\"");
}

Replacement::Replacement(const JsonNode& node)
    : m_pattern(readPattern(node.at("pattern"))), m_content(node.at("content").asString()) {}

std::string Replacement::operator()(std::string_view text) const {
  std::string result;
  result.reserve(text.size() + text.size() / 4);
  for (const Span& span : m_pattern.spans(text))
    result += span.isMatch ? std::string_view(m_content) : text.substr(span.begin, span.end - span.begin);
  return result;
}

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ
