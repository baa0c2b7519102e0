// SPDX-License-Identifier: MPL-2.0
// JSON from outside as a stream of events, since a tree forgets repeated keys and takes many times the text's memory.
#ifndef EIGENQ_SRC_IO_JSON_EVENTS_H
#define EIGENQ_SRC_IO_JSON_EVENTS_H

#include <cstdint>
#include <string>
#include <string_view>

namespace EigenQ {
namespace io {
namespace internal {

enum class JsonKind { kNull, kBoolean, kUnsigned, kOtherNumber, kString, kObject, kArray };

/** "a string", "an unsigned integer", … */
const char* nameOf(JsonKind kind);

struct JsonValue {
  JsonKind kind;
  std::uint64_t number = 0;  // of kUnsigned; numbers with a sign, a point or an exponent are kOtherNumber
  std::string text;          // of kString
};

/** A reader of one document, told of every key and value in turn. */
class JsonEvents {
 public:
  virtual ~JsonEvents() = default;
  /** \a depth: the objects and arrays around the key or value; 0 for the document itself. Of an object or an array it
   * is the beginning that is reported, its contents follow one level deeper. */
  virtual void onKey(int depth, std::string&& key) = 0;
  virtual void onValue(int depth, JsonValue&& value) = 0;
  /** The object or array that began at \a depth ends. */
  virtual void onEnd(int depth) = 0;
};

/** Reads one JSON object, whitespace around it allowed. Throws FormatError(\a where, \a what, …) on anything else:
 * bytes that are not UTF-8, other texts than JSON, containers nested deeper than 128. Exceptions of \a events pass. */
void readJson(std::string_view text, const std::string& where, const std::string& what, JsonEvents& events);

/** Position of the first byte that is no UTF-8; npos where all is. */
std::size_t findInvalidUtf8(std::string_view text);

}  // namespace internal
}  // namespace io
}  // namespace EigenQ

#endif  // EIGENQ_SRC_IO_JSON_EVENTS_H
