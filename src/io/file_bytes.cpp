// SPDX-License-Identifier: MPL-2.0
#include "file_bytes.h"

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <eigen_q/src/Errors.h>

namespace EigenQ {
namespace io {
namespace internal {
namespace {

/** An open file, for as long as it takes to map it. */
class Descriptor {
 public:
  // O_NONBLOCK: opening a pipe without a writer must not wait; regular files do not care.
  explicit Descriptor(const std::string& path) : m_fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
    if (m_fd < 0) throw FormatError(path, "file", std::string("cannot be opened: ") + std::strerror(errno));
  }
  ~Descriptor() { (void)::close(m_fd); }  // nothing was written
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  operator int() const { return m_fd; }

 private:
  int m_fd;
};

}  // namespace

FileBytes::FileBytes(const std::string& path) : m_path(path) {
  const Descriptor fd(path);
  struct stat status {};
  if (::fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) throw FormatError(path, "file", "is no regular file");
  m_size = static_cast<std::size_t>(status.st_size);
  if (m_size == 0) return;  // nothing can be mapped
  void* data = ::mmap(nullptr, m_size, PROT_READ, MAP_PRIVATE, fd, 0);
  if (data == MAP_FAILED) throw FormatError(path, "file", std::string("cannot be mapped: ") + std::strerror(errno));
  m_data = static_cast<const unsigned char*>(data);
  m_mapped = true;
}

FileBytes::FileBytes(std::vector<unsigned char> content, const std::string& name)
    : m_path(name), m_content(std::move(content)), m_data(m_content.data()), m_size(m_content.size()) {}

FileBytes::~FileBytes() {
  if (m_mapped) (void)::munmap(const_cast<unsigned char*>(m_data), m_size);  // fails for wrong arguments only
}

void FileBytes::discard(const unsigned char* begin, std::size_t bytes) const {
  if (!m_mapped) return;
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto first = (reinterpret_cast<std::uintptr_t>(begin) + page - 1) / page * page;
  const auto last = (reinterpret_cast<std::uintptr_t>(begin) + bytes) / page * page;
  // Advice: where it is not taken, memory stays in use and nothing else happens.
  if (first < last) (void)::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

}  // namespace internal
}  // namespace io
}  // namespace EigenQ
