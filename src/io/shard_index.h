// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_SRC_IO_SHARD_INDEX_H
#define EIGENQ_SRC_IO_SHARD_INDEX_H

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "file_bytes.h"

namespace EigenQ {
namespace io {
namespace internal {

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";

/** Which file of a folder holds which tensor. */
struct ShardIndex {
  std::vector<std::string> files;                                // names without a folder, in order of appearance
  std::vector<std::pair<std::string, std::uint32_t>> weightMap;  // name and index into files, sorted by name
  std::optional<std::uint64_t> totalSize;                        // metadata.total_size, where it is a number of bytes
};

/** Reads {"metadata": {"total_size": bytes}, "weight_map": {"tensor": "file", …}}; other keys are left alone.
 * Throws FormatError on anything else, and on file names that lead out of the folder. */
ShardIndex readShardIndex(const FileBytes& file);

}  // namespace internal
}  // namespace io
}  // namespace EigenQ

#endif  // EIGENQ_SRC_IO_SHARD_INDEX_H
