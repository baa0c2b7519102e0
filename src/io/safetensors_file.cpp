// SPDX-License-Identifier: MPL-2.0
#include <eigen_q/src/io/SafetensorsFile.h>

#include <algorithm>
#include <utility>

#include "file_bytes.h"
#include "safetensors_header.h"

namespace EigenQ {
namespace io {

SafetensorsFile::SafetensorsFile(const std::string& path)
    : SafetensorsFile(std::make_unique<const internal::FileBytes>(path)) {}

SafetensorsFile::SafetensorsFile(std::vector<unsigned char> content, const std::string& name)
    : SafetensorsFile(std::make_unique<const internal::FileBytes>(std::move(content), name)) {}

SafetensorsFile::SafetensorsFile(std::unique_ptr<const internal::FileBytes> bytes) : m_bytes(std::move(bytes)) {
  internal::SafetensorsHeader header = internal::readSafetensorsHeader(*m_bytes);
  m_tensors = std::move(header.tensors);
  m_byName = std::move(header.byName);
  m_metadata = std::move(header.metadata);
}

SafetensorsFile::~SafetensorsFile() = default;
SafetensorsFile::SafetensorsFile(SafetensorsFile&&) noexcept = default;
SafetensorsFile& SafetensorsFile::operator=(SafetensorsFile&&) noexcept = default;

const std::string& SafetensorsFile::path() const { return m_bytes->path(); }

const TensorView* SafetensorsFile::find(std::string_view name) const {
  const auto found =
      std::lower_bound(m_byName.begin(), m_byName.end(), name,
                       [this](std::uint32_t i, std::string_view wanted) { return m_tensors[i].name < wanted; });
  return found != m_byName.end() && m_tensors[*found].name == name ? &m_tensors[*found] : nullptr;
}

const TensorView& SafetensorsFile::at(std::string_view name) const {
  const TensorView* tensor = find(name);
  if (!tensor) throw FormatError(path(), std::string(name), "tensor missing");
  return *tensor;
}

std::string SafetensorsFile::metadata(const std::string& key) const {
  const auto found = m_metadata.find(key);
  return found == m_metadata.end() ? std::string() : found->second;
}

void SafetensorsFile::discard(const TensorView& tensor) const { m_bytes->discard(tensor.data, tensor.bytes); }

}  // namespace io
}  // namespace EigenQ
