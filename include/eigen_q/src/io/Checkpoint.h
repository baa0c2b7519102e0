// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_IO_CHECKPOINT_H
#define EIGENQ_IO_CHECKPOINT_H

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "SafetensorsFile.h"
#include "SafetensorsWriter.h"

namespace EigenQ {
namespace io {

/** The tensors of a model as Hugging Face stores them: in one safetensors file, or in several with an index.
 *
 * A shard is mapped when the first of its tensors is asked for, and checked then: it must hold the tensors that the
 * index says, and no others. Reading is safe from several threads. To keep the memory of a large model low, call
 * discard() with each tensor after it was read: its pages go back to the system, its view stays valid.
 *
 * Tied tensors are stored once; the other name stands in __metadata__ beside the stored one and is found as well.
 * Layout: doc/formats.md#safetensors-shards. */
class Checkpoint {
 public:
  /** \param path  a safetensors file, or a folder with model.safetensors or else model.safetensors.index.json.
   * Throws FormatError where there is neither, where the index is no such index, or where a shard is missing. */
  explicit Checkpoint(const std::string& path);
  /** One file, already open. */
  explicit Checkpoint(SafetensorsFile file);
  ~Checkpoint();
  Checkpoint(Checkpoint&&) noexcept;
  Checkpoint& operator=(Checkpoint&&) noexcept;

  /** The file, or the index. */
  const std::string& path() const { return m_path; }

  /** The stored names, sorted; aliases only where an index lists them. */
  const std::vector<std::string>& names() const { return m_names; }
  /** The stored names that begin with \a prefix, sorted. */
  std::vector<std::string> namesUnder(const std::string& prefix) const;

  /** Whether at() would find \a name, stored or as an alias. */
  bool has(const std::string& name) const { return find(name) != nullptr; }
  /** Null where there is none; an alias finds the tensor it stands for. */
  const TensorView* find(const std::string& name) const;
  /** As find; throws FormatError where there is none. */
  const TensorView& at(const std::string& name) const;

  /** The name under which the tensor is stored: \a name itself unless it is an alias. Throws as at(). */
  std::string storedName(const std::string& name) const { return at(name).name; }

  /** The text under \a key of __metadata__, of the first shard that has one; empty where none has. */
  std::string metadata(const std::string& key) const;

  /** Bytes of all tensors by the index, which nobody checks; nothing where there is no index or it does not say. */
  std::optional<std::uint64_t> declaredBytes() const { return m_declaredBytes; }

  /** SafetensorsFile::discard for a tensor of this checkpoint. */
  void discard(const TensorView& tensor) const;

 private:
  struct Shard;
  void openFolder(const std::string& folder);
  void openIndex(const std::string& folder);
  void adopt(SafetensorsFile file);
  const SafetensorsFile& mapped(std::size_t shard) const;
  std::optional<std::size_t> indexOf(const std::string& name) const;
  void checkShard(std::size_t shard, const SafetensorsFile& file) const;

  std::string m_path;
  std::vector<std::string> m_names;
  std::vector<std::uint32_t> m_shardOfName;  // beside m_names
  std::vector<std::unique_ptr<Shard>> m_shards;
  std::optional<std::uint64_t> m_declaredBytes;
  std::unique_ptr<std::mutex> m_mutex;  // guards the mapping of shards
};

/** Writes the tensors into \a folder, which is made where it is missing, as Checkpoint and Hugging Face's libraries
 * read them: model.safetensors, or shards of at most \a maxShardBytes bytes (but for a tensor that is larger) and
 * model.safetensors.index.json. Sets the metadata "format" to "pt" where it is not set: Transformers demands it.
 *
 * Atomic as a whole: the last step puts the single file or the index in place; until then the folder's previous
 * checkpoint is what a reader finds, whole, and afterwards its files are removed.
 * Throws as SafetensorsWriter::write. */
void writeCheckpoint(const SafetensorsWriter& tensors, const std::string& folder,
                     std::uint64_t maxShardBytes = 5'000'000'000);

}  // namespace io
}  // namespace EigenQ

#endif  // EIGENQ_IO_CHECKPOINT_H
