// SPDX-License-Identifier: MPL-2.0
// A place in a JSON file: its value, and how to name it when the value is not what it should be.
#ifndef EIGENQ_TOKENIZER_JSON_NODE_H
#define EIGENQ_TOKENIZER_JSON_NODE_H

#include <initializer_list>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

namespace EigenQ {
namespace llm {
namespace internal {

/** Reads members of a JSON value; every complaint is a FormatError with the file, the path in the JSON, what was
 * expected and what was found. Refers to the document, which has to outlive it. */
class JsonNode {
 public:
  JsonNode(const nlohmann::json& value, std::string file) : m_value(&value), m_file(std::move(file)) {}

  const std::string& file() const { return m_file; }
  const std::string& path() const { return m_path; }
  const nlohmann::json& value() const { return *m_value; }

  [[noreturn]] void fail(const std::string& message) const;
  /** "expected …, found …" with the value that stands here. */
  [[noreturn]] void expected(const std::string& what) const;

  bool isNull() const { return m_value->is_null(); }
  /** Whether the member is there and not null. */
  bool has(const char* key) const;

  /** A member, which has to be there. */
  JsonNode at(const char* key) const;
  std::optional<JsonNode> find(const char* key) const;

  std::vector<JsonNode> elements() const;
  std::vector<std::pair<std::string, JsonNode>> members() const;

  const std::string& asString() const;
  bool asBool() const;
  /** A whole number that is a valid token id or count: 0 to 2³¹ - 1. */
  int asIndex() const;
  /** The only character of a string. */
  std::string asCharacter() const;

  bool boolOr(const char* key, bool fallback) const;
  std::string stringOr(const char* key, const std::string& fallback) const;

  /** The string at \a key, which has to be one of \a names; its position among them. */
  std::size_t choice(const char* key, std::initializer_list<const char*> names) const;

 private:
  JsonNode(const nlohmann::json& value, std::string file, std::string path)
      : m_value(&value), m_file(std::move(file)), m_path(std::move(path)) {}
  JsonNode child(const nlohmann::json& value, const std::string& step) const;
  void requireObject() const;

  const nlohmann::json* m_value;
  std::string m_file;
  std::string m_path;
};

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_TOKENIZER_JSON_NODE_H
