// SPDX-License-Identifier: MPL-2.0
// The bytes of a file: mapped into memory, or given.
#ifndef EIGENQ_SRC_IO_FILE_BYTES_H
#define EIGENQ_SRC_IO_FILE_BYTES_H

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace EigenQ {
namespace io {
namespace internal {

class FileBytes {
 public:
  /** Maps a regular file. Throws FormatError where it cannot be. */
  explicit FileBytes(const std::string& path);
  FileBytes(std::vector<unsigned char> content, const std::string& name);
  ~FileBytes();
  FileBytes(const FileBytes&) = delete;
  FileBytes& operator=(const FileBytes&) = delete;

  const std::string& path() const { return m_path; }
  const unsigned char* data() const { return m_data; }
  std::size_t size() const { return m_size; }
  std::string_view text() const { return {reinterpret_cast<const char*>(m_data), m_size}; }

  /** Gives the whole pages of a range of mapped bytes back to the system; nothing happens to bytes that were given. */
  void discard(const unsigned char* begin, std::size_t bytes) const;

 private:
  std::string m_path;
  std::vector<unsigned char> m_content;
  const unsigned char* m_data = nullptr;
  std::size_t m_size = 0;
  bool m_mapped = false;
};

}  // namespace internal
}  // namespace io
}  // namespace EigenQ

#endif  // EIGENQ_SRC_IO_FILE_BYTES_H
