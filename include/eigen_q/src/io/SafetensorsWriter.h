// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_IO_SAFETENSORSWRITER_H
#define EIGENQ_IO_SAFETENSORSWRITER_H

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <Eigen/Core>

#include "TensorView.h"

namespace EigenQ {
namespace io {

/** Takes the next bytes of a tensor. */
using ByteSink = std::function<void(const void* data, std::size_t bytes)>;
/** Hands the bytes of one tensor to the sink, in one piece or in many; called once for each file written. */
using ByteSource = std::function<void(const ByteSink& sink)>;

/** Collects the names and shapes of tensors, then writes a safetensors file, one tensor after another: a source is
 * asked for its bytes when their turn comes, so a model need not be in memory as a whole.
 *
 * The file is byte for byte what Python's safetensors writes of the same tensors: sorted by type, the
 * largest alignment first, then by name; the header padded to a multiple of 8. It appears whole or not at all
 * (AtomicFile). Bytes: doc/formats.md#safetensors. */
class SafetensorsWriter {
 public:
  /** A tensor to come: \a source must give as many bytes as the shape and type need, row-major, little endian.
   * Throws FormatError on the name "__metadata__", one given before or not UTF-8, and on a shape that is negative, too
   * large or no whole number of bytes. */
  void add(const std::string& name, DType dtype, std::vector<Index> shape, ByteSource source);

  /** \a data, row-major, as many bytes as the shape and type need; it must live until the file is written. */
  void addReference(const std::string& name, DType dtype, std::vector<Index> shape, const void* data);

  /** A copy of \a m, in its own scalar type; shape [size] for column vectors, else [rows, cols]. */
  template <typename Derived>
  void add(const std::string& name, const Eigen::DenseBase<Derived>& m) {
    using Scalar = typename Derived::Scalar;
    using Copy = std::conditional_t<Derived::ColsAtCompileTime == 1, Eigen::Matrix<Scalar, Eigen::Dynamic, 1>,
                                    Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>;
    std::vector<Index> shape = {m.rows()};
    if (Derived::ColsAtCompileTime != 1) shape.push_back(m.cols());
    const auto copy = std::make_shared<const Copy>(m.derived());
    add(name, kDTypeOf<Scalar>, std::move(shape),
        [copy](const ByteSink& sink) { sink(copy->data(), static_cast<std::size_t>(copy->size()) * sizeof(Scalar)); });
  }

  /** A tensor of another file, which must live until this one is written, under its own name or \a name. */
  void add(const TensorView& tensor) { add(tensor.name, tensor); }
  void add(const std::string& name, const TensorView& tensor) {
    addReference(name, tensor.dtype, tensor.shape, tensor.data);
  }

  /** Sets a text of __metadata__. Throws FormatError where either is not UTF-8. */
  void setMetadata(const std::string& key, const std::string& text);
  const std::map<std::string, std::string>& metadata() const { return m_metadata; }

  bool has(const std::string& name) const { return m_names.count(name) != 0; }
  /** Bytes of all tensors, without the header. */
  std::uint64_t dataBytes() const { return m_dataBytes; }

  /** Writes the file. Throws FormatError where a source gives too few or too many bytes or the header would exceed
   * 100 000 000 bytes, std::system_error where the file cannot be written; what was at \a path stays in either case. */
  void write(const std::string& path) const;

 private:
  friend class ShardedWrite;  // writes the same tensors into several files
  struct Tensor {
    std::string name;
    DType dtype;
    std::vector<Index> shape;
    std::uint64_t bytes;
    ByteSource source;
  };

  static std::string headerOf(const std::vector<const Tensor*>& tensors,
                              const std::map<std::string, std::string>& metadata);
  static void writeTensors(const std::string& path, std::vector<const Tensor*> tensors,
                           const std::map<std::string, std::string>& metadata);

  std::vector<Tensor> m_tensors;  // as they were added
  std::set<std::string> m_names;
  std::map<std::string, std::string> m_metadata;
  std::uint64_t m_dataBytes = 0;
};

}  // namespace io
}  // namespace EigenQ

#endif  // EIGENQ_IO_SAFETENSORSWRITER_H
