// SPDX-License-Identifier: MPL-2.0
// Tensors of a safetensors file as vectors, for tests and the golden runner.
#ifndef EIGENQ_TEST_SUPPORT_SAFETENSORS_H
#define EIGENQ_TEST_SUPPORT_SAFETENSORS_H

#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include <eigen_q/src/Errors.h>
#include <eigen_q/src/Views.h>
#include <eigen_q/src/io/SafetensorsFile.h>

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
  explicit SafetensorsFile(const std::string& path) : m_file(path) {
    for (const io::TensorView& t : m_file.tensors())
      m_tensors[t.name] = {t.name, io::nameOf(t.dtype), t.shape, {t.data, t.data + t.bytes}};
  }

  const std::string& path() const { return m_file.path(); }
  std::string metadata(const std::string& key) const { return m_file.metadata(key); }
  const std::map<std::string, Tensor>& tensors() const { return m_tensors; }
  bool has(const std::string& key) const { return m_file.has(key); }
  const Tensor& at(const std::string& key) const { return m_tensors.at(m_file.at(key).name); }

 private:
  io::SafetensorsFile m_file;
  std::map<std::string, Tensor> m_tensors;
};

}  // namespace test
}  // namespace EigenQ

#endif  // EIGENQ_TEST_SUPPORT_SAFETENSORS_H
