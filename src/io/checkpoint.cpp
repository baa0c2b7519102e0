// SPDX-License-Identifier: MPL-2.0
#include <eigen_q/src/io/Checkpoint.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "file_bytes.h"
#include "shard_index.h"

namespace EigenQ {
namespace io {

namespace fs = std::filesystem;

struct Checkpoint::Shard {
  std::string path;
  std::optional<SafetensorsFile> file;  // once it is mapped, it stays
};

Checkpoint::Checkpoint(const std::string& path) : m_path(path), m_mutex(std::make_unique<std::mutex>()) {
  std::error_code ignored;  // what is no folder is opened as a file, which says why it cannot be
  if (fs::is_directory(path, ignored)) {
    openFolder(path);
  } else {
    adopt(SafetensorsFile(path));
  }
}

Checkpoint::Checkpoint(SafetensorsFile file) : m_path(file.path()), m_mutex(std::make_unique<std::mutex>()) {
  adopt(std::move(file));
}

Checkpoint::~Checkpoint() = default;
Checkpoint::Checkpoint(Checkpoint&&) noexcept = default;
Checkpoint& Checkpoint::operator=(Checkpoint&&) noexcept = default;

void Checkpoint::openFolder(const std::string& folder) {
  std::error_code ignored;  // as above
  const fs::path single = fs::path(folder) / internal::kSingleFile, index = fs::path(folder) / internal::kIndexFile;
  if (fs::exists(single, ignored)) {
    m_path = single.string();
    adopt(SafetensorsFile(m_path));
  } else if (fs::exists(index, ignored)) {
    m_path = index.string();
    openIndex(folder);
  } else {
    throw FormatError(
        folder, "folder",
        std::string("expected ") + internal::kSingleFile + " or " + internal::kIndexFile + ", found neither");
  }
}

void Checkpoint::openIndex(const std::string& folder) {
  internal::ShardIndex index = internal::readShardIndex(internal::FileBytes(m_path));
  m_declaredBytes = index.totalSize;
  for (const std::string& name : index.files) {
    const fs::path path = fs::path(folder) / name;
    std::error_code error;
    if (!fs::is_regular_file(path, error))
      throw FormatError(m_path, name, "the index names it, but there is no such file");
    m_shards.push_back(std::make_unique<Shard>(Shard{path.string(), std::nullopt}));
  }
  for (auto& [name, shard] : index.weightMap) {
    m_names.push_back(std::move(name));
    m_shardOfName.push_back(shard);
  }
}

void Checkpoint::adopt(SafetensorsFile file) {
  for (const TensorView& tensor : file.tensors()) m_names.push_back(tensor.name);
  std::sort(m_names.begin(), m_names.end());
  m_shardOfName.assign(m_names.size(), 0);
  m_shards.push_back(std::make_unique<Shard>(Shard{file.path(), std::move(file)}));
}

std::optional<std::size_t> Checkpoint::indexOf(const std::string& name) const {
  const auto found = std::lower_bound(m_names.begin(), m_names.end(), name);
  if (found == m_names.end() || *found != name) return std::nullopt;
  return static_cast<std::size_t>(found - m_names.begin());
}

namespace {

/** The tensor that \a name is another name of, in the same file: __metadata__ says "name": "stored name". */
const TensorView* findAlias(const SafetensorsFile& file, const std::string& name) {
  const auto alias = file.metadata().find(name);
  return alias == file.metadata().end() ? nullptr : file.find(alias->second);
}

const TensorView* findIn(const SafetensorsFile& file, const std::string& name) {
  const TensorView* stored = file.find(name);
  return stored ? stored : findAlias(file, name);
}

}  // namespace

/** A shard and its index must agree in both directions. */
void Checkpoint::checkShard(std::size_t shard, const SafetensorsFile& file) const {
  for (const TensorView& tensor : file.tensors()) {
    const std::optional<std::size_t> i = indexOf(tensor.name);
    if (!i) tensor.fail("is not in the index " + m_path);
    if (m_shardOfName[*i] != shard)
      tensor.fail("is in " + m_shards[m_shardOfName[*i]]->path + " by the index " + m_path);
  }
  for (std::size_t i = 0; i < m_names.size(); ++i)
    if (m_shardOfName[i] == shard && !findIn(file, m_names[i]))
      throw FormatError(file.path(), m_names[i], "tensor missing, which the index " + m_path + " expects here");
}

const SafetensorsFile& Checkpoint::mapped(std::size_t shard) const {
  const std::lock_guard<std::mutex> lock(*m_mutex);
  Shard& s = *m_shards[shard];
  if (!s.file) {
    SafetensorsFile file(s.path);
    checkShard(shard, file);
    s.file = std::move(file);
  }
  return *s.file;
}

std::vector<std::string> Checkpoint::namesUnder(const std::string& prefix) const {
  std::vector<std::string> names;
  for (auto name = std::lower_bound(m_names.begin(), m_names.end(), prefix);
       name != m_names.end() && name->compare(0, prefix.size(), prefix) == 0; ++name)
    names.push_back(*name);
  return names;
}

const TensorView* Checkpoint::find(const std::string& name) const {
  if (const std::optional<std::size_t> i = indexOf(name)) return findIn(mapped(m_shardOfName[*i]), name);
  for (std::size_t shard = 0; shard < m_shards.size(); ++shard)
    if (const TensorView* tensor = findAlias(mapped(shard), name)) return tensor;
  return nullptr;
}

const TensorView& Checkpoint::at(const std::string& name) const {
  const TensorView* tensor = find(name);
  if (!tensor) throw FormatError(m_path, name, "tensor missing");
  return *tensor;
}

std::string Checkpoint::metadata(const std::string& key) const {
  for (std::size_t shard = 0; shard < m_shards.size(); ++shard) {
    const auto& texts = mapped(shard).metadata();
    const auto found = texts.find(key);
    if (found != texts.end()) return found->second;
  }
  return {};
}

void Checkpoint::discard(const TensorView& tensor) const {
  if (const std::optional<std::size_t> i = indexOf(tensor.name)) mapped(m_shardOfName[*i]).discard(tensor);
}

}  // namespace io
}  // namespace EigenQ
