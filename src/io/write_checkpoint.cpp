// SPDX-License-Identifier: MPL-2.0
// write_checkpoint.cpp: a model into a folder, in one file or several, so that a reader always finds a whole one.
//
// Readers take model.safetensors or, where there is none, the shards that the index names. So one rename, that of the
// single file or of the index, replaces the old checkpoint by the new one. New shards must not overwrite those that the
// old index names: they get other names where theirs are taken. What the old checkpoint leaves behind goes last, and
// what a failed write leaves goes at once.
#include <eigen_q/src/io/Checkpoint.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <utility>

#include <nlohmann/json.hpp>

#include <eigen_q/src/Errors.h>
#include <eigen_q/src/io/AtomicFile.h>

#include "file_bytes.h"
#include "shard_index.h"

namespace EigenQ {
namespace io {

namespace fs = std::filesystem;

class ShardedWrite {
 public:
  ShardedWrite(const SafetensorsWriter& tensors, const std::string& folder)
      : m_tensors(tensors), m_folder(folder), m_metadata(tensors.metadata()) {
    m_metadata.emplace("format", "pt");
  }

  ~ShardedWrite() {
    if (!m_done) removeUnused(m_written);  // it did not come to its end
  }

  void run(std::uint64_t maxShardBytes) {
    fs::create_directories(m_folder);
    std::vector<std::string> old = indexedFiles();
    old.push_back(internal::kSingleFile);
    const std::vector<Shard> shards = split(maxShardBytes);
    if (shards.size() == 1) {
      SafetensorsWriter::writeTensors(pathOf(internal::kSingleFile), shards[0], m_metadata);
    } else {
      writeShards(shards);
    }
    m_done = true;
    removeUnused(old);
  }

 private:
  using Shard = std::vector<const SafetensorsWriter::Tensor*>;

  std::string pathOf(const std::string& name) const { return (m_folder / name).string(); }

  bool exists(const std::string& name) const {
    std::error_code error;  // what cannot be looked at cannot be there for a reader either
    return fs::exists(m_folder / name, error);
  }

  /** The index and the files that it names; nothing where there is none. */
  std::vector<std::string> indexedFiles() const {
    if (!exists(internal::kIndexFile)) return {};
    std::vector<std::string> files;
    try {
      files = internal::readShardIndex(internal::FileBytes(pathOf(internal::kIndexFile))).files;
    } catch (const FormatError&) {
      // An index that nobody can read names no files; it is replaced all the same.
    }
    files.push_back(internal::kIndexFile);
    return files;
  }

  /** Removes those of \a files that are no part of what a reader now finds. */
  void removeUnused(const std::vector<std::string>& files) const {
    const std::vector<std::string> used =
        exists(internal::kSingleFile) ? std::vector<std::string>{internal::kSingleFile} : indexedFiles();
    for (const std::string& file : files) {
      if (std::find(used.begin(), used.end(), file) != used.end()) continue;
      std::error_code ignored;  // a file that stays takes space and misleads nobody
      fs::remove(m_folder / file, ignored);
    }
  }

  /** In the order in which the tensors were added, so that a model's layers stay together. */
  std::vector<Shard> split(std::uint64_t maxShardBytes) const {
    std::vector<Shard> shards(1);
    std::uint64_t bytes = 0;
    for (const auto& tensor : m_tensors.m_tensors) {
      if (!shards.back().empty() && (bytes > maxShardBytes || tensor.bytes > maxShardBytes - bytes)) {
        shards.emplace_back();
        bytes = 0;
      }
      shards.back().push_back(&tensor);
      bytes += tensor.bytes;
    }
    return shards;
  }

  /** "model-00001-of-00003.safetensors"; from the second try on "model-r2-00001-of-00003.safetensors". */
  static std::string shardName(std::size_t shard, std::size_t count, int attempt) {
    char numbers[64];
    std::snprintf(numbers, sizeof numbers, "-%05zu-of-%05zu.safetensors", shard + 1, count);
    return "model" + (attempt > 1 ? "-r" + std::to_string(attempt) : std::string()) + numbers;
  }

  std::vector<std::string> freeNames(std::size_t count) const {
    for (int attempt = 1;; ++attempt) {
      std::vector<std::string> names;
      for (std::size_t i = 0; i < count; ++i) names.push_back(shardName(i, count, attempt));
      if (std::none_of(names.begin(), names.end(), [this](const auto& name) { return exists(name); })) return names;
    }
  }

  void writeShards(const std::vector<Shard>& shards) {
    const std::vector<std::string> names = freeNames(shards.size());
    nlohmann::json index = {{"metadata", {{"total_size", m_tensors.dataBytes()}}},
                            {"weight_map", nlohmann::json::object()}};
    for (std::size_t i = 0; i < shards.size(); ++i) {
      m_written.push_back(names[i]);
      SafetensorsWriter::writeTensors(pathOf(names[i]), shards[i], m_metadata);
      for (const auto* tensor : shards[i]) index["weight_map"][tensor->name] = names[i];
    }
    m_written.push_back(internal::kIndexFile);
    constexpr int kIndent = 2;  // and ASCII only, as Python's json.dumps writes it for Transformers
    writeFileAtomically(pathOf(internal::kIndexFile), index.dump(kIndent, ' ', true) + "\n");
    // A single file of old hides the index until it is gone.
    fs::remove(m_folder / internal::kSingleFile);
  }

  const SafetensorsWriter& m_tensors;
  fs::path m_folder;
  std::map<std::string, std::string> m_metadata;
  std::vector<std::string> m_written;
  bool m_done = false;
};

void writeCheckpoint(const SafetensorsWriter& tensors, const std::string& folder, std::uint64_t maxShardBytes) {
  ShardedWrite(tensors, folder).run(maxShardBytes);
}

}  // namespace io
}  // namespace EigenQ
