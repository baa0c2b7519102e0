// SPDX-License-Identifier: MPL-2.0
// What is fuzzed: every reader of files from outside, given bytes. Refusing them with FormatError is the right answer
// to most; anything else than that or success is a defect.
#ifndef EIGENQ_TEST_FUZZ_READERS_H
#define EIGENQ_TEST_FUZZ_READERS_H

#include <string>
#include <vector>

#include <eigen_q/Io>

#include "src/io/shard_index.h"

namespace EigenQ {
namespace fuzz {

using Bytes = std::vector<unsigned char>;

inline Bytes bytesOf(const std::string& text) { return {text.begin(), text.end()}; }

/** Reads every element of a tensor in the way that its type allows. */
inline void readTensor(const io::TensorView& tensor) {
  switch (tensor.dtype) {
    case io::DType::kF16:
    case io::DType::kBF16:
    case io::DType::kF32:
    case io::DType::kF64:
      io::toVector<float>(tensor);
      if (tensor.shape.size() == 2) io::toMatrix<Eigen::half>(tensor);
      break;
    case io::DType::kI8:
      io::toVector<std::int8_t>(tensor);
      break;
    case io::DType::kI64:
      io::toVector<std::int64_t>(tensor);
      break;
    default:
      unsigned sum = 0;
      for (std::size_t i = 0; i < tensor.bytes; ++i) sum += tensor.data[i];
      volatile unsigned touched = sum;
      (void)touched;
  }
}

/** The header of a safetensors file and every tensor that it describes. True where the file is one. */
inline bool readSafetensors(Bytes content) {
  try {
    const io::SafetensorsFile file(std::move(content), "fuzz");
    for (const io::TensorView& tensor : file.tensors()) {
      if (&file.at(tensor.name) != &tensor) std::abort();
      readTensor(tensor);
    }
    return true;
  } catch (const FormatError&) {
    return false;
  }
}

/** model.safetensors.index.json. */
inline bool readShardIndex(Bytes content) {
  try {
    const io::internal::ShardIndex index =
        io::internal::readShardIndex(io::internal::FileBytes(std::move(content), "fuzz"));
    for (const auto& [name, file] : index.weightMap)
      if (file >= index.files.size()) std::abort();
    return true;
  } catch (const FormatError&) {
    return false;
  }
}

/** Every quantised weight of a safetensors file. True where there is one, and all can be read. */
inline bool readQuantised(Bytes content) {
  try {
    const io::Checkpoint checkpoint(io::SafetensorsFile(std::move(content), "fuzz"));
    bool found = false;
    for (const std::string& name : checkpoint.names()) {
      const io::StoredAs stored = io::storedAs(checkpoint, name);
      if (stored == io::StoredAs::kNF4) Eigen::MatrixXf(io::readNF4(checkpoint, name));
      if (stored == io::StoredAs::kFP4) Eigen::MatrixXf(io::readFP4(checkpoint, name));
      if (stored == io::StoredAs::kInt8) Eigen::MatrixXf(io::readInt8(checkpoint, name));
      found = found || stored != io::StoredAs::kDense;
    }
    return found;
  } catch (const FormatError&) {
    return false;
  }
}

}  // namespace fuzz
}  // namespace EigenQ

#endif  // EIGENQ_TEST_FUZZ_READERS_H
