// SPDX-License-Identifier: MPL-2.0
#include "json_node.h"

#include <limits>

#include <eigen_q/src/Errors.h>

#include "utf8.h"

namespace EigenQ {
namespace llm {
namespace internal {
namespace {

using Json = nlohmann::json;

constexpr std::size_t kLongestQuote = 60;

/** A value as an error message shows it. */
std::string describe(const Json& value) {
  if (value.is_object() || value.is_array()) return std::string("an ") + value.type_name();
  std::string text = value.dump();
  if (text.size() <= kLongestQuote) return text;
  std::size_t end = kLongestQuote;
  while ((static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end) + "…";
}

}  // namespace

void JsonNode::fail(const std::string& message) const {
  throw FormatError(m_file, m_path.empty() ? "the document" : m_path, message);
}

void JsonNode::expected(const std::string& what) const { fail("expected " + what + ", found " + describe(*m_value)); }

JsonNode JsonNode::child(const Json& value, const std::string& step) const {
  return JsonNode(value, m_file, m_path.empty() && step[0] == '.' ? step.substr(1) : m_path + step);
}

void JsonNode::requireObject() const {
  if (!m_value->is_object()) expected("an object");
}

bool JsonNode::has(const char* key) const {
  requireObject();
  const auto found = m_value->find(key);
  return found != m_value->end() && !found->is_null();
}

JsonNode JsonNode::at(const char* key) const {
  requireObject();
  const auto found = m_value->find(key);
  if (found == m_value->end()) child(*m_value, std::string(".") + key).fail("missing");
  return child(*found, std::string(".") + key);
}

std::optional<JsonNode> JsonNode::find(const char* key) const {
  return has(key) ? std::optional<JsonNode>(at(key)) : std::nullopt;
}

std::vector<JsonNode> JsonNode::elements() const {
  if (!m_value->is_array()) expected("an array");
  std::vector<JsonNode> nodes;
  nodes.reserve(m_value->size());
  for (std::size_t i = 0; i < m_value->size(); ++i)
    nodes.push_back(child((*m_value)[i], "[" + std::to_string(i) + "]"));
  return nodes;
}

std::vector<std::pair<std::string, JsonNode>> JsonNode::members() const {
  requireObject();
  std::vector<std::pair<std::string, JsonNode>> nodes;
  nodes.reserve(m_value->size());
  for (const auto& [key, value] : m_value->items()) nodes.emplace_back(key, child(value, "." + key));
  return nodes;
}

const std::string& JsonNode::asString() const {
  if (!m_value->is_string()) expected("a string");
  return m_value->get_ref<const std::string&>();
}

bool JsonNode::asBool() const {
  if (!m_value->is_boolean()) expected("true or false");
  return m_value->get<bool>();
}

int JsonNode::asIndex() const {
  constexpr int kLargest = std::numeric_limits<int>::max();
  // The largest itself would leave no room for "one more than the largest id".
  if (!m_value->is_number_unsigned() || m_value->get<std::uint64_t>() >= std::uint64_t{kLargest})
    expected("a whole number from 0 to " + std::to_string(kLargest - 1));
  return m_value->get<int>();
}

std::string JsonNode::asCharacter() const {
  const std::string& text = asString();
  if (text.empty() || utf8Length(text[0]) != text.size()) expected("a single character");
  return text;
}

bool JsonNode::boolOr(const char* key, bool fallback) const { return has(key) ? at(key).asBool() : fallback; }

std::string JsonNode::stringOr(const char* key, const std::string& fallback) const {
  return has(key) ? at(key).asString() : fallback;
}

std::size_t JsonNode::choice(const char* key, std::initializer_list<const char*> names) const {
  const JsonNode node = at(key);
  const std::string& found = node.asString();
  std::string list;
  std::size_t i = 0;
  for (const char* name : names) {
    if (found == name) return i;
    list += (i++ == 0 ? "" : ", ") + std::string(name);
  }
  node.expected("one of " + list);
}

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ
