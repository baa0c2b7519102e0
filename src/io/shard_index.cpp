// SPDX-License-Identifier: MPL-2.0
#include "shard_index.h"

#include <algorithm>
#include <map>

#include <eigen_q/src/Errors.h>

#include "json_events.h"

namespace EigenQ {
namespace io {
namespace internal {
namespace {

constexpr std::size_t kMaxIndexBytes = 100'000'000;

/** A name in the index's own folder: the index comes from outside and must open no other file. */
bool isPlainFileName(const std::string& name) {
  const auto isOdd = [](char c) { return c == '/' || c == '\\' || static_cast<unsigned char>(c) < 0x20; };
  return !name.empty() && name != "." && name != ".." && std::none_of(name.begin(), name.end(), isOdd);
}

/** Depth 1: the index's own keys. 2: tensors and their files, and what stands in metadata. */
class IndexReader : public JsonEvents {
 public:
  explicit IndexReader(const std::string& path) : m_path(path) {}

  ShardIndex take() {
    if (!m_sawWeightMap) throw FormatError(m_path, "weight_map", "missing");
    auto& map = m_index.weightMap;
    std::sort(map.begin(), map.end());
    const auto twice =
        std::adjacent_find(map.begin(), map.end(), [](const auto& a, const auto& b) { return a.first == b.first; });
    if (twice != map.end()) throw FormatError(m_path, twice->first, "given twice");
    return std::move(m_index);
  }

  void onKey(int depth, std::string&& key) override {
    if (depth == 1) {
      m_section = key == "weight_map" ? kWeightMap : key == "metadata" ? kMetadata : kOther;
    } else if (depth == 2) {
      m_key = std::move(key);
    }
  }

  void onValue(int depth, JsonValue&& value) override {
    if (depth == 1 && m_section == kWeightMap) {
      if (value.kind != JsonKind::kObject) expected("weight_map", "an object", value);
      if (m_sawWeightMap) throw FormatError(m_path, "weight_map", "given twice");
      m_sawWeightMap = true;
    } else if (depth == 2 && m_section == kWeightMap) {
      addWeight(std::move(value));
    } else if (depth == 2 && m_section == kMetadata && m_key == "total_size" && value.kind == JsonKind::kUnsigned) {
      m_index.totalSize = value.number;
    }
  }

  void onEnd(int) override {}

 private:
  enum Section { kWeightMap, kMetadata, kOther };

  [[noreturn]] void expected(const std::string& key, const char* what, const JsonValue& found) const {
    throw FormatError(m_path, key, std::string("expected ") + what + ", found " + nameOf(found.kind));
  }

  void addWeight(JsonValue&& value) {
    if (value.kind != JsonKind::kString) expected(m_key, "the name of a file", value);
    if (!isPlainFileName(value.text))
      throw FormatError(m_path, m_key,
                        "expected the name of a file in the index's folder, found \"" + value.text + "\"");
    const auto next = static_cast<std::uint32_t>(m_index.files.size());
    const auto [file, isNew] = m_fileIndex.emplace(value.text, next);
    if (isNew) m_index.files.push_back(std::move(value.text));
    m_index.weightMap.emplace_back(std::move(m_key), file->second);
  }

  const std::string& m_path;
  ShardIndex m_index;
  std::map<std::string, std::uint32_t> m_fileIndex;
  Section m_section = kOther;
  std::string m_key;
  bool m_sawWeightMap = false;
};

}  // namespace

ShardIndex readShardIndex(const FileBytes& file) {
  if (file.size() > kMaxIndexBytes)
    throw FormatError(
        file.path(), "file",
        "expected at most " + std::to_string(kMaxIndexBytes) + " bytes, found " + std::to_string(file.size()));
  IndexReader reader(file.path());
  readJson(file.text(), file.path(), "index", reader);
  return reader.take();
}

}  // namespace internal
}  // namespace io
}  // namespace EigenQ
