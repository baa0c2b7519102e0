// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_TEST_SUPPORT_TEMPORARYFOLDER_H
#define EIGENQ_TEST_SUPPORT_TEMPORARYFOLDER_H

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

namespace EigenQ {
namespace test {

inline std::string readFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

/** A folder that lives as long as its test. */
class TemporaryFolder {
 public:
  TemporaryFolder()
      : m_path(std::filesystem::temp_directory_path() / ("eigenq-test-" + std::to_string(std::random_device()()))) {
    std::filesystem::create_directory(m_path);
  }
  ~TemporaryFolder() {
    std::error_code ignored;  // a leftover is no reason to fail
    std::filesystem::remove_all(m_path, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  std::string path() const { return m_path.string(); }
  std::string path(const std::string& name) const { return (m_path / name).string(); }
  /** Writes a file and returns its path. */
  std::string write(const std::string& name, const std::string& content) const {
    std::ofstream(m_path / name, std::ios::binary) << content;
    return path(name);
  }
  /** The names in it, sorted. */
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(m_path))
      names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
  }

 private:
  std::filesystem::path m_path;
};

}  // namespace test
}  // namespace EigenQ

#endif  // EIGENQ_TEST_SUPPORT_TEMPORARYFOLDER_H
