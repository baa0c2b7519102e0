// SPDX-License-Identifier: MPL-2.0
// Members of a JSON object, read strictly: whatever is not as it should be is a FormatError with file and key.
#ifndef EIGENQ_LLM_JSON_OBJECT_H
#define EIGENQ_LLM_JSON_OBJECT_H

#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <eigen_q/Core>

#include "../strict_json.h"

namespace EigenQ {
namespace llm {
namespace internal {

class JsonObject {
 public:
  using Json = nlohmann::ordered_json;

  /** \throws FormatError */
  static JsonObject parse(const std::string& text, const std::string& where) {
    return JsonObject(EigenQ::internal::parseStrictJson<Json>(text, where), where, "");
  }

  [[noreturn]] void fail(const std::string& key, const std::string& message) const {
    throw FormatError(m_where, m_path + key, message);
  }
  [[noreturn]] void expected(const std::string& key, const std::string& what) const {
    fail(key, "expected " + what + ", found " + (m_json.contains(key) ? shown(m_json[key]) : "nothing"));
  }

  const Json& json() const { return m_json; }

  bool contains(const std::string& key) const { return m_json.contains(key); }
  /** Whether \a key is there and not null. */
  bool has(const std::string& key) const { return m_json.contains(key) && !m_json[key].is_null(); }

  /** A whole number from \a least to 2³¹ - 1. */
  Index index(const std::string& key, Index least = 1) const {
    if (!has(key) || !isIndex(m_json[key], least))
      expected(key, "a whole number from " + std::to_string(least) + " to 2147483647");
    return m_json[key].get<Index>();
  }
  Index indexOr(const std::string& key, Index fallback, Index least = 1) const {
    return has(key) ? index(key, least) : fallback;
  }

  /** A finite number of \a least or more. */
  double number(const std::string& key, double least) const {
    if (!has(key) || !m_json[key].is_number() || !(m_json[key].get<double>() >= least) ||
        !std::isfinite(m_json[key].get<double>()))
      expected(key, "a number of " + Json(least).dump() + " or more");
    return m_json[key].get<double>();
  }
  /** A finite number greater than 0. */
  double positive(const std::string& key) const {
    if (!has(key) || !m_json[key].is_number() || !(m_json[key].get<double>() > 0) ||
        !std::isfinite(m_json[key].get<double>()))
      expected(key, "a number greater than 0");
    return m_json[key].get<double>();
  }
  double positiveOr(const std::string& key, double fallback) const { return has(key) ? positive(key) : fallback; }

  bool boolOr(const std::string& key, bool fallback) const {
    if (!has(key)) return fallback;
    if (!m_json[key].is_boolean()) expected(key, "true or false");
    return m_json[key].get<bool>();
  }

  std::string text(const std::string& key) const {
    if (!has(key) || !m_json[key].is_string()) expected(key, "a text");
    return m_json[key].get<std::string>();
  }
  std::string textOr(const std::string& key, const std::string& fallback) const {
    return has(key) ? text(key) : fallback;
  }

  std::vector<std::string> texts(const std::string& key) const {
    std::vector<std::string> found;
    if (!m_json.at(key).is_array()) expected(key, "a list of texts");
    for (const Json& entry : m_json[key]) {
      if (!entry.is_string()) expected(key, "a list of texts");
      found.push_back(entry.get<std::string>());
    }
    return found;
  }

  /** Token ids: a number, a list of numbers, or null for none. */
  std::vector<int> ids(const std::string& key) const {
    std::vector<int> found;
    if (!has(key)) return found;
    const Json list = m_json[key].is_array() ? m_json[key] : Json::array({m_json[key]});
    for (const Json& entry : list) {
      if (!isIndex(entry, 0)) expected(key, "a token id, a list of them, or null");
      found.push_back(entry.get<int>());
    }
    return found;
  }

  JsonObject object(const std::string& key) const {
    if (!has(key) || !m_json[key].is_object()) expected(key, "an object");
    return JsonObject(m_json[key], m_where, m_path + key + ".");
  }

 private:
  JsonObject(Json json, std::string where, std::string path)
      : m_json(std::move(json)), m_where(std::move(where)), m_path(std::move(path)) {
    if (!m_json.is_object()) throw FormatError(m_where, "JSON", "expected an object, found " + shown(m_json));
  }

  static bool isIndex(const Json& value, Index least) {
    return value.is_number_integer() && value.get<std::int64_t>() >= least &&
           value.get<std::int64_t>() <= std::numeric_limits<int>::max();
  }
  static std::string shown(const Json& value) {
    if (value.is_object() || value.is_array()) return std::string("an ") + value.type_name();
    return value.dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, 100);
  }

  Json m_json;
  std::string m_where;
  std::string m_path;
};

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_LLM_JSON_OBJECT_H
