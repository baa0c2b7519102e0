// SPDX-License-Identifier: MPL-2.0
#include "OutputFolder.h"

#include <fstream>
#include <iterator>
#include <stdexcept>

#include <unistd.h>

#include <eigen_q/Io>

#include "Interrupt.h"

namespace EigenQ {
namespace tools {

namespace fs = std::filesystem;

namespace {

// What transformers' tokenizers and generation read beside the weights.
constexpr const char* kCompanions[] = {"generation_config.json",
                                       "tokenizer.json",
                                       "tokenizer_config.json",
                                       "special_tokens_map.json",
                                       "added_tokens.json",
                                       "tokenizer.model",
                                       "vocab.json",
                                       "merges.txt",
                                       "chat_template.jinja",
                                       "chat_template.json"};

std::string contentOf(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::string content(std::istreambuf_iterator<char>(file), {});
  if (!file) throw std::runtime_error(path.string() + ": cannot be read");
  return content;
}

}  // namespace

OutputFolder::OutputFolder(const std::string& path, bool force, const std::vector<std::string>& sources) {
  if (path.empty()) throw std::runtime_error("OUT: expected the name of a folder, found none");
  m_path = fs::absolute(path).lexically_normal();
  if (!m_path.has_filename()) m_path = m_path.parent_path();  // "out/"
  if (!fs::exists(m_path)) {
    m_staging = m_path.parent_path() / ("." + m_path.filename().string() + "." + std::to_string(::getpid()) + ".tmp");
    std::error_code error;
    for (m_existing = m_path.parent_path(); !fs::exists(m_existing, error) && m_existing.has_relative_path();)
      m_existing = m_existing.parent_path();
    fs::create_directories(m_staging, error);
    if (error) throw std::runtime_error(path + ": cannot be made: " + error.message());
    return;
  }
  for (const std::string& source : sources)
    if (fs::exists(source) && fs::equivalent(m_path, source))
      throw std::runtime_error(path + ": is the folder to read from");
  if (!fs::is_directory(m_path)) throw std::runtime_error(path + ": exists and is no folder");
  if (!force && !fs::is_empty(m_path)) throw std::runtime_error(path + ": exists; --force replaces the model in it");
  m_staging = m_path;
}

OutputFolder::~OutputFolder() {
  std::error_code ignored;  // an exception is on its way already
  if (m_staging == m_path) return;
  fs::remove_all(m_staging, ignored);
  for (fs::path made = m_path.parent_path(); made != m_existing; made = made.parent_path())
    if (!fs::remove(made, ignored)) return;  // somebody else uses it
}

void OutputFolder::copyCompanions(const std::string& source) const {
  for (const char* name : kCompanions)
    if (fs::exists(fs::path(source) / name))
      io::writeFileAtomically((m_staging / name).string(), contentOf(fs::path(source) / name));
}

void OutputFolder::commit() {
  throwIfInterrupted();
  if (m_staging != m_path) fs::rename(m_staging, m_path);
  m_staging = m_path;
}

}  // namespace tools
}  // namespace EigenQ
