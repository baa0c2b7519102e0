// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_TOOLS_OUTPUT_FOLDER_H
#define EIGENQ_TOOLS_OUTPUT_FOLDER_H

#include <filesystem>
#include <string>
#include <vector>

namespace EigenQ {
namespace tools {

/** A folder for a model. A new one appears whole or not at all: until commit() its files lie in a hidden folder beside
 * it, and folders that were made for both go with it. One that exists is only written to by \a force, file by file, and
 * keeps what the model does not replace. */
class OutputFolder {
 public:
  /** Throws std::runtime_error where \a path exists and \a force is not given, where it is no folder, and where it is
   * one of \a sources. */
  OutputFolder(const std::string& path, bool force, const std::vector<std::string>& sources);
  ~OutputFolder();
  OutputFolder(const OutputFolder&) = delete;
  OutputFolder& operator=(const OutputFolder&) = delete;

  /** Where to write. */
  std::string path() const { return m_staging.string(); }
  /** Copies what belongs to a model and is not its weights: tokenizer, chat template, generation_config.json. */
  void copyCompanions(const std::string& source) const;
  void commit();

 private:
  std::filesystem::path m_path;
  std::filesystem::path m_staging;   // m_path itself where that exists
  std::filesystem::path m_existing;  // the first folder above m_path that was there before
};

}  // namespace tools
}  // namespace EigenQ

#endif  // EIGENQ_TOOLS_OUTPUT_FOLDER_H
