// SPDX-License-Identifier: MPL-2.0
// Files that are there as a whole or not at all.
#ifndef EIGENQ_FINETUNE_OUTPUT_H
#define EIGENQ_FINETUNE_OUTPUT_H

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>

namespace finetune {

/** Replaces the file at \a path by \a content: written beside it first, then renamed, so that a reader never sees half
 * of it. Throws std::runtime_error naming the path and the reason. */
inline void writeFile(const std::filesystem::path& path, const std::string& content) {
  const std::filesystem::path partial = path.string() + ".partial";
  std::ofstream out(partial, std::ios::binary);
  out << content;
  out.close();
  if (!out) {
    const std::string reason = std::strerror(errno);
    std::error_code ignored;  // there may be nothing to remove
    std::filesystem::remove(partial, ignored);
    throw std::runtime_error(path.string() + ": cannot be written: " + reason);
  }
  std::filesystem::rename(partial, path);
}

/** Creates the folder and makes sure that files can be made in it: better to fail now than after the training. Throws
 * std::runtime_error naming it. */
inline void prepareFolder(const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) throw std::runtime_error(folder.string() + ": cannot be created: " + error.message());
  const std::filesystem::path probe = folder / ".probe";
  writeFile(probe, "");
  std::filesystem::remove(probe);
}

}  // namespace finetune

#endif  // EIGENQ_FINETUNE_OUTPUT_H
