// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_READ_FILE_H
#define EIGENQ_READ_FILE_H

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <system_error>

#include <eigen_q/src/Errors.h>

namespace EigenQ {
namespace internal {

/** The bytes of a file. Throws FormatError, naming it, where it cannot be read, and for folders, pipes and devices:
 * some of these open, and never end. */
inline std::string readFile(const std::string& path) {
  std::error_code ignored;  // what is wrong, opening says
  const auto type = std::filesystem::status(path, ignored).type();
  if (type != std::filesystem::file_type::regular && type != std::filesystem::file_type::not_found &&
      type != std::filesystem::file_type::none)
    throw FormatError(path, "file", "is no regular file");
  std::ifstream file(path, std::ios::binary);
  if (!file) throw FormatError(path, "file", std::string("cannot be opened: ") + std::strerror(errno));
  std::string content(std::istreambuf_iterator<char>(file), {});
  if (file.bad()) throw FormatError(path, "file", "cannot be read");
  return content;
}

}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_READ_FILE_H
