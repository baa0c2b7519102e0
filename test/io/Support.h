// SPDX-License-Identifier: MPL-2.0
// safetensors files made by hand, and the errors they cause.
#ifndef EIGENQ_TEST_IO_SUPPORT_H
#define EIGENQ_TEST_IO_SUPPORT_H

#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include <eigen_q/Io>

namespace EigenQ {
namespace test {

inline std::string lengthBytes(std::uint64_t n) {
  std::string bytes(sizeof n, '\0');
  std::memcpy(bytes.data(), &n, sizeof n);
  return bytes;
}

/** A file of this header and data, right or wrong. */
inline std::string fileBytes(const std::string& header, const std::string& data = "") {
  return lengthBytes(header.size()) + header + data;
}

inline io::SafetensorsFile parse(const std::string& content) {
  return io::SafetensorsFile(std::vector<unsigned char>(content.begin(), content.end()), "file");
}

/** What FormatError says when \a f runs, "accepted" when it says nothing; other exceptions pass. */
template <typename F>
std::string errorOf(F&& f) {
  try {
    f();
  } catch (const FormatError& e) {
    return e.what();
  }
  return "accepted";
}

/** The bytes of a tensor as text. */
inline std::string textOf(const io::TensorView& tensor) {
  return tensor.bytes == 0 ? std::string() : std::string(reinterpret_cast<const char*>(tensor.data), tensor.bytes);
}

}  // namespace test
}  // namespace EigenQ

#endif  // EIGENQ_TEST_IO_SUPPORT_H
