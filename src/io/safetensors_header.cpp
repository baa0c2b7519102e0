// SPDX-License-Identifier: MPL-2.0
// safetensors_header.cpp: what a file says of its tensors, and whether it can be true.
//
//   8 bytes   N, little endian
//   N bytes   {"__metadata__":{"format":"pt"},"name":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},…}
//   the rest  the tensors, one after another without a gap; data_offsets count from here
#include "safetensors_header.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <optional>
#include <tuple>
#include <utility>

#include <eigen_q/src/Errors.h>

#include "json_events.h"

namespace EigenQ {
namespace io {
namespace internal {
namespace {

/** One tensor as the header describes it. */
struct Entry {
  TensorView tensor;
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

/** Depth 0: the header. 1: tensors and __metadata__. 2: their fields. 3: numbers of shape and data_offsets. */
class HeaderReader : public JsonEvents {
 public:
  explicit HeaderReader(const std::string& file) : m_file(file) {}

  std::vector<Entry> takeEntries() { return std::move(m_entries); }
  std::map<std::string, std::string> takeMetadata() { return std::move(m_metadata); }

  void onKey(int depth, std::string&& key) override {
    if (depth == 1) {
      m_name = std::move(key);
    } else if (depth == 2) {
      m_key = std::move(key);
      m_field = fieldNamed(m_key);
    }
  }

  void onValue(int depth, JsonValue&& value) override {
    if (depth == 1) {
      begin(value);
    } else if (depth == 2) {
      m_inMetadata ? addMetadata(std::move(value)) : setField(value);
    } else if (depth == 3) {
      addNumber(value);
    }
  }

  void onEnd(int depth) override {
    if (depth == 1 && !m_inMetadata) finish();
  }

 private:
  enum Field { kDType, kShape, kOffsets, kUnknown };

  static Field fieldNamed(const std::string& key) {
    return key == "dtype" ? kDType : key == "shape" ? kShape : key == "data_offsets" ? kOffsets : kUnknown;
  }

  [[noreturn]] void fail(const std::string& message) const { throw FormatError(m_file, m_name, message); }

  void expect(JsonKind kind, const JsonValue& value, const std::string& what) const {
    if (value.kind != kind) fail(what + ": expected " + nameOf(kind) + ", found " + nameOf(value.kind));
  }

  void begin(const JsonValue& value) {
    expect(JsonKind::kObject, value, "entry");
    m_inMetadata = m_name == kMetadataKey;
    if (m_inMetadata) {
      if (m_sawMetadata) fail("given twice");
      m_sawMetadata = true;
    } else {
      m_entry = Entry();
      std::fill(std::begin(m_has), std::end(m_has), false);
      m_offsets.clear();
    }
  }

  void addMetadata(JsonValue&& value) {
    expect(JsonKind::kString, value, m_key);
    if (!m_metadata.emplace(m_key, std::move(value.text)).second) fail(m_key + ": given twice");
  }

  void setField(const JsonValue& value) {
    if (m_field == kUnknown) return;  // of a later version of the format; the reference implementation skips it too
    if (m_has[m_field]) fail(m_key + ": given twice");
    m_has[m_field] = true;
    expect(m_field == kDType ? JsonKind::kString : JsonKind::kArray, value, m_key);
    if (m_field != kDType) return;
    const std::optional<DType> dtype = dtypeNamed(value.text);
    if (!dtype) fail("dtype: expected one of the format's types, found \"" + value.text + "\"");
    m_entry.tensor.dtype = *dtype;
  }

  void addNumber(const JsonValue& value) {
    if (m_inMetadata || m_field == kUnknown) return;
    expect(JsonKind::kUnsigned, value, m_key);
    if (m_field == kOffsets) {
      if (m_offsets.size() == 2) fail("data_offsets: expected 2 numbers, found more");
      m_offsets.push_back(value.number);
    } else {
      if (value.number > static_cast<std::uint64_t>(std::numeric_limits<Index>::max()))
        fail("shape: extent " + std::to_string(value.number) + " is too large");
      m_entry.tensor.shape.push_back(static_cast<Index>(value.number));
    }
  }

  void finish() {
    constexpr const char* kNames[] = {"dtype", "shape", "data_offsets"};
    for (const Field field : {kDType, kShape, kOffsets})
      if (!m_has[field]) fail(std::string(kNames[field]) + ": missing");
    if (m_offsets.size() != 2) fail("data_offsets: expected 2 numbers, found " + std::to_string(m_offsets.size()));
    m_entry.begin = m_offsets[0];
    m_entry.end = m_offsets[1];
    m_entry.tensor.name = std::move(m_name);
    m_entry.tensor.file = &m_file;
    m_entries.push_back(std::move(m_entry));
  }

  const std::string& m_file;
  std::string m_name, m_key;  // of the entry and the field being read
  Field m_field = kUnknown;
  bool m_inMetadata = false, m_sawMetadata = false;
  bool m_has[3] = {};
  std::vector<std::uint64_t> m_offsets;
  Entry m_entry;
  std::vector<Entry> m_entries;
  std::map<std::string, std::string> m_metadata;
};

/** \a bytes between quotation marks, those that are no printable ASCII as \xNN. */
std::string quoted(std::string_view bytes) {
  constexpr const char* kDigits = "0123456789abcdef";
  std::string text;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= ' ' && byte <= '~')
      text += c;
    else
      text += std::string("\\x") + kDigits[byte >> 4] + kDigits[byte & 15];
  }
  return '"' + text + '"';
}

/** For a file whose first bytes, read as the header's length, give \a bytes, which no header can have. */
[[noreturn]] void failLength(const FileBytes& file, std::uint64_t bytes) {
  const std::string_view text = file.text();
  constexpr std::string_view kPointer = "version https://git-lfs";
  std::string found = "found " + std::to_string(bytes);
  std::string expected = "expected at most " + std::to_string(kMaxHeaderBytes) + " bytes, ";
  if (text.substr(sizeof bytes, 1) != "{") {  // what every header begins with
    expected = "no safetensors file: expected the header's length in 8 bytes, at most " +
               std::to_string(kMaxHeaderBytes) + ", and the header, ";
    found += ", the bytes " + quoted(text.substr(0, sizeof bytes));
  }
  if (text.substr(0, kPointer.size()) == kPointer) found += ", of a pointer of Git LFS; git lfs pull brings the file";
  throw FormatError(file.path(), "header", expected + found);
}

/** The header's text; what follows it is the data. */
std::string_view headerText(const FileBytes& file) {
  const auto fail = [&](const std::string& message) { throw FormatError(file.path(), "header", message); };
  std::uint64_t bytes = 0;
  if (file.size() < sizeof bytes) fail("expected a file of at least 8 bytes, found " + std::to_string(file.size()));
  std::memcpy(&bytes, file.data(), sizeof bytes);
  if (bytes > kMaxHeaderBytes) failLength(file, bytes);
  const std::uint64_t left = file.size() - sizeof bytes;
  if (bytes > left)
    fail("expected " + std::to_string(bytes) + " bytes, found the file's end after " + std::to_string(left));
  return file.text().substr(sizeof bytes, bytes);
}

std::vector<std::uint32_t> sortedByName(const std::vector<Entry>& entries) {
  const auto nameAt = [&](std::uint32_t i) -> const std::string& { return entries[i].tensor.name; };
  std::vector<std::uint32_t> byName(entries.size());
  std::iota(byName.begin(), byName.end(), std::uint32_t{0});
  std::sort(byName.begin(), byName.end(), [&](auto a, auto b) { return nameAt(a) < nameAt(b); });
  const auto twice =
      std::adjacent_find(byName.begin(), byName.end(), [&](auto a, auto b) { return nameAt(a) == nameAt(b); });
  if (twice != byName.end()) entries[*twice].tensor.fail("given twice");
  return byName;
}

/** Points a tensor to its bytes, which must begin at byte \a next of the data. */
void place(Entry& entry, std::uint64_t next, const unsigned char* data, std::uint64_t dataBytes) {
  TensorView& tensor = entry.tensor;
  const auto fail = [&](const std::string& expected, const char* kind) {
    tensor.fail("data_offsets: expected " + expected + ", found [" + std::to_string(entry.begin) + ", " +
                std::to_string(entry.end) + "]" + kind);
  };
  if (entry.end < entry.begin) fail("an end that is not before the beginning", "");
  if (entry.begin != next)
    fail("to begin at byte " + std::to_string(next) + ", the end of the tensor before",
         entry.begin < next ? ", which overlaps" : ", which leaves a gap");
  tensor.bytes = tensorBytes(tensor.dtype, tensor.shape, *tensor.file, tensor.name);
  if (entry.end - entry.begin != tensor.bytes)
    fail(std::to_string(tensor.bytes) + " bytes for " + nameOf(tensor.dtype) + " " + shapeText(tensor.shape), "");
  if (entry.end <= dataBytes) tensor.data = data + entry.begin;  // else the file is refused when its end is compared
}

}  // namespace

std::uint64_t tensorBytes(DType dtype, const std::vector<Index>& shape, const std::string& where,
                          const std::string& name) {
  const auto fail = [&](const std::string& message) {
    throw FormatError(where, name, "shape: " + std::string(nameOf(dtype)) + " " + shapeText(shape) + message);
  };
  std::uint64_t bits = 1;
  const auto multiply = [&](std::uint64_t factor) {
    if (factor != 0 && bits > std::numeric_limits<std::uint64_t>::max() / factor)
      fail(" has more bits than 64 bits can count");
    bits *= factor;
  };
  for (const Index extent : shape) multiply(static_cast<std::uint64_t>(extent));
  multiply(static_cast<std::uint64_t>(bitsOf(dtype)));
  if (bits % 8 != 0) fail(" has " + std::to_string(bits) + " bits, no whole number of bytes");
  return bits / 8;
}

SafetensorsHeader readSafetensorsHeader(const FileBytes& file) {
  const std::string_view text = headerText(file);
  HeaderReader reader(file.path());
  readJson(text, file.path(), "header", reader);

  SafetensorsHeader header;
  header.metadata = reader.takeMetadata();
  std::vector<Entry> entries = reader.takeEntries();
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return std::tie(a.begin, a.end) < std::tie(b.begin, b.end); });
  header.byName = sortedByName(entries);
  const unsigned char* data = file.data() + sizeof(std::uint64_t) + text.size();
  const std::uint64_t dataBytes = file.size() - sizeof(std::uint64_t) - text.size();
  std::uint64_t next = 0;
  header.tensors.reserve(entries.size());
  for (Entry& entry : entries) {
    place(entry, next, data, dataBytes);
    next = entry.end;
    header.tensors.push_back(std::move(entry.tensor));
  }
  if (next != dataBytes)
    throw FormatError(file.path(), "data",
                      "expected " + std::to_string(next) + " bytes of tensors, found " + std::to_string(dataBytes) +
                          " behind the header");
  return header;
}

}  // namespace internal
}  // namespace io
}  // namespace EigenQ
