// SPDX-License-Identifier: MPL-2.0
// packed_state.cpp: the JSON dictionary of a 4-bit checkpoint.
//
//   {"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [128, 192],
//    "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.12932586669921875}
//
// on one line. The last three keys belong to a nested absmax. Writing follows Python's json.dumps to the byte, because
// the text is a tensor whose length and bytes are compared.
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>

#include <eigen_q/src/Errors.h>
#include <eigen_q/src/PackedState.h>

#include "../strict_json.h"

namespace EigenQ {
namespace internal {
namespace {

using Json = nlohmann::json;

constexpr std::array<FourBitType, 2> kFourBitTypes = {FourBitType::kNF4, FourBitType::kFP4};
constexpr std::array<ScalarType, 4> kScalarTypes = {ScalarType::kFloat, ScalarType::kHalf, ScalarType::kBFloat16,
                                                    ScalarType::kDouble};
constexpr const char* kRequiredKeys[] = {"quant_type", "blocksize", "dtype", "shape"};
constexpr const char* kNestedKeys[] = {"nested_blocksize", "nested_dtype", "nested_offset"};

/** Python's repr of a finite double: the shortest digits that read back, in scientific notation from 1e16 on and below
 * 1e-4, with two exponent digits at least and a point where there is no exponent. */
std::string pythonRepr(double v) {
  char text[64];
  const double magnitude = std::fabs(v);
  const bool scientific = magnitude != 0 && (magnitude >= 1e16 || magnitude < 1e-4);
  const auto format = scientific ? std::chars_format::scientific : std::chars_format::fixed;
  const std::string repr(text, std::to_chars(text, text + sizeof text, v, format).ptr);
  return scientific || repr.find('.') != std::string::npos ? repr : repr + ".0";
}

std::string shapeText(const std::vector<Index>& shape) {
  std::string text;
  for (const Index extent : shape) text += (text.empty() ? "" : ", ") + std::to_string(extent);
  return "[" + text + "]";
}

/** One dictionary being read: every complaint names its source and the key. */
class Reader {
 public:
  Reader(const std::string& json, const std::string& where)
      : m_where(where), m_json(parseStrictJson<Json>(json, where)) {
    if (!m_json.is_object()) fail("quant_state", std::string("expected an object, found ") + m_json.type_name());
    for (const auto& [key, value] : m_json.items())
      if (!isKnown(key)) fail(key, "unknown key");
  }

  [[noreturn]] void fail(const std::string& key, const std::string& message) const {
    throw FormatError(m_where, key, message);
  }

  bool has(const char* key) const { return m_json.contains(key); }

  Index readIndex(const char* key) const { return toIndex(key, at(key)); }

  float readFloat(const char* key) const {
    const Json& value = at(key);
    if (!value.is_number()) fail(key, std::string("expected a number, found ") + value.type_name());
    const double number = value.get<double>();
    // Written from a float; the comparison also refuses what no float can hold.
    if (!(std::fabs(number) <= static_cast<double>(std::numeric_limits<float>::max()))) fail(key, "not a float");
    return static_cast<float>(number);
  }

  std::vector<Index> readShape(const char* key) const {
    const Json& value = at(key);
    if (!value.is_array()) fail(key, std::string("expected an array, found ") + value.type_name());
    std::vector<Index> shape;
    for (const Json& extent : value) shape.push_back(toIndex(key, extent));
    return shape;
  }

  /** The member of \a choices whose name stands under \a key. */
  template <typename T, std::size_t N>
  T readChoice(const char* key, const std::array<T, N>& choices, const char* (*nameOf)(T)) const {
    const Json& value = at(key);
    if (!value.is_string()) fail(key, std::string("expected a string, found ") + value.type_name());
    const std::string found = value.get<std::string>();
    std::string names;
    for (const T choice : choices) {
      if (found == nameOf(choice)) return choice;
      names += (names.empty() ? "" : ", ") + std::string(nameOf(choice));
    }
    fail(key, "expected one of " + names + ", found \"" + found + "\"");
  }

 private:
  static bool isKnown(const std::string& key) {
    const auto is = [&key](const char* known) { return key == known; };
    return std::any_of(std::begin(kRequiredKeys), std::end(kRequiredKeys), is) ||
           std::any_of(std::begin(kNestedKeys), std::end(kNestedKeys), is);
  }

  const Json& at(const char* key) const {
    if (!has(key)) fail(key, "missing");
    return m_json.at(key);
  }

  Index toIndex(const char* key, const Json& value) const {
    if (!value.is_number_integer()) fail(key, std::string("expected an integer, found ") + value.dump());
    if (value.is_number_unsigned() && value.get<std::uint64_t>() > std::numeric_limits<Index>::max())
      fail(key, "too large: " + value.dump());
    return value.get<Index>();
  }

  std::string m_where;
  Json m_json;
};

}  // namespace

const char* fourBitName(FourBitType type) { return type == FourBitType::kNF4 ? "nf4" : "fp4"; }

const char* scalarName(ScalarType scalar) {
  switch (scalar) {
    case ScalarType::kHalf:
      return "float16";
    case ScalarType::kBFloat16:
      return "bfloat16";
    case ScalarType::kDouble:
      return "float64";
    case ScalarType::kFloat:
      break;
  }
  return "float32";
}

std::string writePackedState(const PackedState& state) {
  std::string json = "{\"quant_type\": \"" + std::string(fourBitName(state.type)) + "\"";
  json += ", \"blocksize\": " + std::to_string(state.blockSize);
  json += ", \"dtype\": \"" + std::string(scalarName(state.dtype)) + "\"";
  json += ", \"shape\": " + shapeText(state.shape);
  if (state.nested) {
    json += ", \"nested_blocksize\": " + std::to_string(state.nested->blockSize);
    json += ", \"nested_dtype\": \"float32\"";
    json += ", \"nested_offset\": " + pythonRepr(static_cast<double>(state.nested->offset));
  }
  return json + "}";
}

PackedState parsePackedState(const std::string& json, const std::string& where) {
  const Reader reader(json, where);
  PackedState state;
  state.type = reader.readChoice("quant_type", kFourBitTypes, fourBitName);
  state.blockSize = reader.readIndex("blocksize");
  state.dtype = reader.readChoice("dtype", kScalarTypes, scalarName);
  state.shape = reader.readShape("shape");
  const auto has = [&reader](const char* key) { return reader.has(key); };
  if (std::any_of(std::begin(kNestedKeys), std::end(kNestedKeys), has)) {
    const ScalarType dtype = reader.readChoice("nested_dtype", kScalarTypes, scalarName);
    if (dtype != ScalarType::kFloat) reader.fail("nested_dtype", "expected float32");
    state.nested = PackedNested{reader.readIndex("nested_blocksize"), reader.readFloat("nested_offset")};
  }
  return state;
}

Index checkedSize(const std::vector<Index>& shape, const std::string& where) {
  const auto fail = [&](const char* why) { throw FormatError(where, "shape", shapeText(shape) + why); };
  Index size = 1;
  for (const Index extent : shape) {
    if (extent < 0) fail(": negative extent");
    if (extent != 0 && size > std::numeric_limits<Index>::max() / extent) fail(": too many values");
    size *= extent;
  }
  return size;
}

}  // namespace internal
}  // namespace EigenQ
