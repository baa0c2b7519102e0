// SPDX-License-Identifier: MPL-2.0
// A strict safetensors reader for tests and the golden runner: 8 bytes of header size, a JSON header, the data.
#ifndef EIGENQ_TEST_SUPPORT_SAFETENSORS_H
#define EIGENQ_TEST_SUPPORT_SAFETENSORS_H

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <eigen_q/src/Errors.h>
#include <eigen_q/src/Views.h>

namespace EigenQ {
namespace test {

struct Tensor {
  std::string key;
  std::string dtype;  // as stored: F32, BF16, U8, …
  std::vector<Index> shape;
  std::vector<char> bytes;  // a copy: the file aligns nothing

  Index size() const {
    Index n = 1;
    for (const Index extent : shape) n *= extent;
    return n;
  }
  /** The last extent; tensors are seen as matrices with all others flattened into rows. */
  Index cols() const { return shape.empty() ? 1 : shape.back(); }
  Index rows() const { return cols() == 0 ? 0 : size() / cols(); }

  /** The elements, which must be stored as \a expectedDtype. */
  template <typename T>
  std::vector<T> as(const std::string& expectedDtype) const {
    if (dtype != expectedDtype) throw FormatError("tensor", key, "expected " + expectedDtype + ", found " + dtype);
    std::vector<T> values(bytes.size() / sizeof(T));
    if (!bytes.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }
  std::vector<float> floats() const { return as<float>("F32"); }
  std::vector<std::uint8_t> bytesU8() const { return as<std::uint8_t>("U8"); }
};

class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::string& path) : m_path(path) {
    std::ifstream in(path, std::ios::binary);
    if (!in) fail("file", "cannot be opened");
    const std::vector<char> content((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    parse(content);
  }

  const std::string& path() const { return m_path; }
  /** The text under a key of __metadata__; empty where there is none. */
  std::string metadata(const std::string& key) const {
    const auto found = m_metadata.find(key);
    return found == m_metadata.end() ? std::string() : found->second;
  }
  const std::map<std::string, Tensor>& tensors() const { return m_tensors; }
  bool has(const std::string& key) const { return m_tensors.count(key) != 0; }
  const Tensor& at(const std::string& key) const {
    const auto found = m_tensors.find(key);
    if (found == m_tensors.end()) fail(key, "tensor missing");
    return found->second;
  }

 private:
  using Json = nlohmann::json;

  [[noreturn]] void fail(const std::string& key, const std::string& message) const {
    throw FormatError(m_path, key, message);
  }

  static std::uint64_t itemSize(const std::string& dtype) {
    static const std::map<std::string, std::uint64_t> sizes = {
        {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"I16", 2}, {"U16", 2}, {"F16", 2}, {"BF16", 2},
        {"I32", 4},  {"U32", 4}, {"F32", 4}, {"I64", 8}, {"U64", 8}, {"F64", 8}};
    const auto found = sizes.find(dtype);
    return found == sizes.end() ? 0 : found->second;
  }

  void parse(const std::vector<char>& content) {
    std::uint64_t headerSize = 0;
    if (content.size() < sizeof headerSize) fail("header", "file shorter than 8 bytes");
    std::memcpy(&headerSize, content.data(), sizeof headerSize);
    const std::uint64_t available = content.size() - sizeof headerSize;
    if (headerSize > available) fail("header", "reaches beyond the end of the file");
    const char* header = content.data() + sizeof headerSize;
    const char* data = header + headerSize;
    try {
      const Json json = Json::parse(header, data);
      if (!json.is_object()) fail("header", "is no object");
      for (const auto& [key, value] : json.items()) {
        if (key == "__metadata__") {
          m_metadata = value.get<std::map<std::string, std::string>>();
        } else {
          m_tensors.emplace(key, parseTensor(key, value, data, available - headerSize));
        }
      }
    } catch (const Json::exception& e) {
      fail("header", e.what());
    }
    checkCoverage(available - headerSize);
  }

  Tensor parseTensor(const std::string& key, const Json& json, const char* data, std::uint64_t dataSize) {
    Tensor tensor;
    tensor.key = key;
    tensor.dtype = json.at("dtype").get<std::string>();
    std::uint64_t bytes = itemSize(tensor.dtype);
    if (bytes == 0) fail(key, "unknown dtype " + tensor.dtype);
    for (const Json& extent : json.at("shape")) {
      if (!extent.is_number_unsigned()) fail(key, "shape holds " + extent.dump());
      const auto n = extent.get<std::uint64_t>();
      if (n != 0 && bytes > std::uint64_t(std::numeric_limits<Index>::max()) / n) fail(key, "shape overflows");
      bytes *= n;
      tensor.shape.push_back(static_cast<Index>(n));
    }
    const Json& offsets = json.at("data_offsets");
    if (offsets.size() != 2 || !offsets[0].is_number_unsigned() || !offsets[1].is_number_unsigned())
      fail(key, "data_offsets are " + offsets.dump());
    const auto begin = offsets[0].get<std::uint64_t>(), end = offsets[1].get<std::uint64_t>();
    if (begin > end || end > dataSize) fail(key, "lies outside of the data");
    if (end - begin != bytes)
      fail(key, "holds " + std::to_string(end - begin) + " bytes, its shape " + std::to_string(bytes));
    tensor.bytes.assign(data + begin, data + end);
    m_ranges.emplace(begin, end);
    return tensor;
  }

  /** Tensors must tile the data without gap or overlap. */
  void checkCoverage(std::uint64_t dataSize) const {
    std::uint64_t next = 0;
    for (const auto& [begin, end] : m_ranges) {
      if (begin != next) fail("data", "gap or overlap at byte " + std::to_string(next));
      next = end;
    }
    if (next != dataSize) fail("data", "ends at byte " + std::to_string(next) + " of " + std::to_string(dataSize));
  }

  std::string m_path;
  std::map<std::string, std::string> m_metadata;
  std::map<std::string, Tensor> m_tensors;
  std::multiset<std::pair<std::uint64_t, std::uint64_t>> m_ranges;
};

}  // namespace test
}  // namespace EigenQ

#endif  // EIGENQ_TEST_SUPPORT_SAFETENSORS_H
