// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_IO_ATOMICFILE_H
#define EIGENQ_IO_ATOMICFILE_H

#include <cstddef>
#include <string>
#include <string_view>

namespace EigenQ {
namespace io {

/** A file that appears whole or not at all, whatever happens while it is written: the bytes go to a temporary file in
 * the same folder, which commit() moves to its place when the disk holds them. Without commit() nothing is left behind.
 * Every function throws std::system_error, naming the path, where the system refuses. */
class AtomicFile {
 public:
  /** \a path need not exist; its folder must. Refused where it is anything but a file: it would be replaced. */
  explicit AtomicFile(const std::string& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, std::size_t bytes);
  /** Flushes to the disk and puts the file in place of what was there. To be called once, after all writes. */
  void commit();

 private:
  void flush();

  std::string m_path;
  std::string m_temporary;  // empty once it was moved or removed
  int m_file = -1;
  std::string m_buffer;  // small writes
};

/** Writes a whole file through an AtomicFile. */
void writeFileAtomically(const std::string& path, std::string_view content);

}  // namespace io
}  // namespace EigenQ

#endif  // EIGENQ_IO_ATOMICFILE_H
