// SPDX-License-Identifier: MPL-2.0
#include <eigen_q/src/io/AtomicFile.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace EigenQ {
namespace io {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kBufferBytes = std::size_t{1} << 16;

[[noreturn]] void throwErrno(const std::string& path, const char* what) {
  const int error = errno;
  throw std::system_error(error, std::generic_category(), path + ": " + what);
}

void writeAll(int file, const char* data, std::size_t bytes, const std::string& path) {
  while (bytes > 0) {
    const ssize_t written = ::write(file, data, bytes);
    if (written < 0 && errno != EINTR) throwErrno(path, "cannot be written");
    if (written < 0) continue;
    data += written;
    bytes -= static_cast<std::size_t>(written);
  }
}

/** A file is replaced; a pipe or a device would be lost. */
void requireReplaceable(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0 || S_ISREG(status.st_mode)) return;  // what else is wrong, open() says
  throw std::system_error(S_ISDIR(status.st_mode) ? EISDIR : EINVAL, std::generic_category(),
                          path + ": cannot be replaced: is no regular file");
}

/** A renamed file survives a power cut when its folder is on the disk too. */
void syncFolderOf(const std::string& path) {
  const fs::path parent = fs::path(path).parent_path();
  const int folder = ::open(parent.empty() ? "." : parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) throwErrno(path, "its folder cannot be opened");
  const bool failed = ::fsync(folder) != 0 && errno != EINVAL;  // EINVAL: this file system has no such thing
  const int error = errno;
  (void)::close(folder);  // nothing was written to it
  if (failed) throw std::system_error(error, std::generic_category(), path + ": its folder cannot be flushed");
}

}  // namespace

AtomicFile::AtomicFile(const std::string& path) : m_path(path) {
  requireReplaceable(path);
  const fs::path target(path);
  // The process and a number: other writers and leftovers of killed ones have names of their own.
  for (int i = 0; m_file < 0; ++i) {
    const std::string name =
        "." + target.filename().string() + "." + std::to_string(::getpid()) + "." + std::to_string(i) + ".tmp";
    m_temporary = (target.parent_path() / name).string();
    m_file = ::open(m_temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (m_file < 0 && errno != EEXIST) throwErrno(m_temporary, "cannot be created");
  }
}

AtomicFile::~AtomicFile() {
  if (m_file >= 0) (void)::close(m_file);  // not committed: whether its bytes arrived no longer matters
  if (!m_temporary.empty()) (void)std::remove(m_temporary.c_str());
}

void AtomicFile::write(const void* data, std::size_t bytes) {
  if (m_buffer.size() + bytes > kBufferBytes) flush();
  if (bytes > kBufferBytes) {
    writeAll(m_file, static_cast<const char*>(data), bytes, m_temporary);
  } else if (bytes > 0) {
    m_buffer.append(static_cast<const char*>(data), bytes);
  }
}

void AtomicFile::flush() {
  writeAll(m_file, m_buffer.data(), m_buffer.size(), m_temporary);
  m_buffer.clear();
}

void AtomicFile::commit() {
  flush();
  if (::fsync(m_file) != 0) throwErrno(m_temporary, "cannot be flushed");
  if (::close(std::exchange(m_file, -1)) != 0) throwErrno(m_temporary, "cannot be closed");
  if (std::rename(m_temporary.c_str(), m_path.c_str()) != 0) throwErrno(m_path, "cannot be replaced");
  m_temporary.clear();
  syncFolderOf(m_path);
}

void writeFileAtomically(const std::string& path, std::string_view content) {
  AtomicFile file(path);
  file.write(content.data(), content.size());
  file.commit();
}

}  // namespace io
}  // namespace EigenQ
