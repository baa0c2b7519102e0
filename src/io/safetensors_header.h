// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_SRC_IO_SAFETENSORS_HEADER_H
#define EIGENQ_SRC_IO_SAFETENSORS_HEADER_H

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <eigen_q/src/io/TensorView.h>

#include "file_bytes.h"

namespace EigenQ {
namespace io {
namespace internal {

constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;  // the reference implementation's
constexpr std::size_t kHeaderAlignment = 8;
constexpr const char* kMetadataKey = "__metadata__";

struct SafetensorsHeader {
  std::vector<TensorView> tensors;    // in the order of their bytes; they point into the file
  std::vector<std::uint32_t> byName;  // indices into tensors, sorted by name
  std::map<std::string, std::string> metadata;
};

/** Reads and checks the header of a file. Throws FormatError, naming the file and the tensor at fault. */
SafetensorsHeader readSafetensorsHeader(const FileBytes& file);

/** Bytes of a tensor. Throws FormatError(\a where, \a name, …) where its bits are too many to count or no whole number
 * of bytes. */
std::uint64_t tensorBytes(DType dtype, const std::vector<Index>& shape, const std::string& where,
                          const std::string& name);

}  // namespace internal
}  // namespace io
}  // namespace EigenQ

#endif  // EIGENQ_SRC_IO_SAFETENSORS_HEADER_H
