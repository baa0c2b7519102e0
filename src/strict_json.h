// SPDX-License-Identifier: MPL-2.0
// JSON of files that nobody vouches for.
#ifndef EIGENQ_STRICT_JSON_H
#define EIGENQ_STRICT_JSON_H

#include <cstddef>
#include <set>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <nlohmann/json.hpp>

#include <eigen_q/src/Errors.h>

namespace EigenQ {
namespace internal {

/** nlohmann's ordered objects look a key up by going through all of them: a file of a megabyte could keep a reader busy
 * for minutes. No object whose order matters has nearly as many members. */
constexpr std::size_t kMostOrderedMembers = 4096;

/** Parses \a text. Keys given twice in one object are refused, as readers disagree on which of them holds.
 * \tparam Json nlohmann::json, or nlohmann::ordered_json for objects of up to kMostOrderedMembers members.
 * \throws FormatError naming \a where and the key. */
template <typename Json>
Json parseStrictJson(std::string_view text, const std::string& where) {
  constexpr bool kOrdered = std::is_same<Json, nlohmann::ordered_json>::value;
  std::vector<std::set<std::string>> keysOfOpenObjects;
  const auto onEvent = [&](int, typename Json::parse_event_t event, const Json& key) {
    if (event == Json::parse_event_t::object_start) {
      keysOfOpenObjects.emplace_back();
    } else if (event == Json::parse_event_t::object_end) {
      keysOfOpenObjects.pop_back();
    } else if (event == Json::parse_event_t::key) {
      const auto& name = key.template get_ref<const std::string&>();
      std::set<std::string>& keys = keysOfOpenObjects.back();
      if (!keys.insert(name).second) throw FormatError(where, name, "given twice");
      if (kOrdered && keys.size() > kMostOrderedMembers)
        throw FormatError(where, name,
                          "expected objects of up to " + std::to_string(kMostOrderedMembers) + " keys, found more");
    }
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), onEvent);
  } catch (const typename Json::exception& e) {
    throw FormatError(where, "JSON", e.what());
  }
}

}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_STRICT_JSON_H
