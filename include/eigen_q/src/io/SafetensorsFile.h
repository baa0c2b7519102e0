// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_IO_SAFETENSORSFILE_H
#define EIGENQ_IO_SAFETENSORSFILE_H

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "TensorView.h"

namespace EigenQ {
namespace io {

namespace internal {
class FileBytes;
}

/** A safetensors file: 8 bytes of header size, a JSON header, the tensors. The file is mapped, not read: opening it
 * costs its header, a tensor costs the pages that are touched. What the header claims is checked once, here, as
 * strictly as the reference implementation does, and more strictly in that nothing may be stored twice.
 *
 * The file must not shrink while it is mapped: reading beyond its new end kills the process (SIGBUS). Replacing it by
 * renaming another over it, as SafetensorsWriter does, is safe.
 * Source: huggingface/safetensors. Bytes: doc/formats.md#safetensors. */
class SafetensorsFile {
 public:
  /** Throws FormatError where the file cannot be read or is no safetensors file, naming it and the tensor at fault. */
  explicit SafetensorsFile(const std::string& path);
  /** A file's content in memory; \a name stands for the path in errors. */
  SafetensorsFile(std::vector<unsigned char> content, const std::string& name);
  ~SafetensorsFile();
  SafetensorsFile(SafetensorsFile&&) noexcept;
  SafetensorsFile& operator=(SafetensorsFile&&) noexcept;

  const std::string& path() const;
  /** In the order of their bytes in the file. */
  const std::vector<TensorView>& tensors() const { return m_tensors; }
  /** Null where there is none of that name. */
  const TensorView* find(std::string_view name) const;
  bool has(std::string_view name) const { return find(name) != nullptr; }
  /** Throws FormatError where there is none of that name. */
  const TensorView& at(std::string_view name) const;
  /** The texts of __metadata__. */
  const std::map<std::string, std::string>& metadata() const { return m_metadata; }
  /** The text under \a key of __metadata__; empty where there is none. */
  std::string metadata(const std::string& key) const;

  /** Gives the memory behind a tensor of this file back to the system, which reads it from the file again if it is
   * touched again: views stay valid. For reading a model larger than memory, tensor by tensor. */
  void discard(const TensorView& tensor) const;

 private:
  explicit SafetensorsFile(std::unique_ptr<const internal::FileBytes> bytes);

  std::unique_ptr<const internal::FileBytes> m_bytes;
  std::vector<TensorView> m_tensors;
  std::vector<std::uint32_t> m_byName;  // indices into m_tensors, sorted by name
  std::map<std::string, std::string> m_metadata;
};

}  // namespace io
}  // namespace EigenQ

#endif  // EIGENQ_IO_SAFETENSORSFILE_H
