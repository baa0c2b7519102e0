// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_IO_TENSORVIEW_H
#define EIGENQ_IO_TENSORVIEW_H

#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include <Eigen/Core>

#include "../EigenViews.h"
#include "../Errors.h"
#include "DType.h"

namespace EigenQ {
namespace io {

/** A tensor in a file that is mapped into memory. Little endian, row-major; the last extent runs fastest. Valid while
 * the SafetensorsFile or the Checkpoint that it came from lives. */
struct TensorView {
  std::string name;
  DType dtype = DType::kU8;
  std::vector<Index> shape;             // empty for a scalar, which is one element
  const unsigned char* data = nullptr;  // aligned to nothing: files place tensors at any byte
  std::size_t bytes = 0;
  const std::string* file = nullptr;  // the path, for errors; lives as long as data

  /** Elements: the product of the extents. */
  Index size() const;

  /** Throws FormatError(*file, name, \a message). */
  [[noreturn]] void fail(const std::string& message) const;

  /** Throws FormatError with both shapes where this one is not \a expected. */
  void requireShape(const std::vector<Index>& expected) const;
  /** Throws FormatError where the elements are of another type. */
  void requireDType(DType expected) const;
};

/** "[2048, 128]". */
std::string shapeText(const std::vector<Index>& shape);

namespace internal {
/** Converts F64, F32, F16 or BF16 elements to those of \a out, each rounded once, to nearest; \a out has the tensor's
 * size and is filled row by row. Throws FormatError on another type. */
void readFloats(const TensorView& tensor, const EigenQ::internal::DenseView& out);
/** Copies elements of \a dtype, \a tensor.bytes bytes. Throws FormatError where they are of another type. */
void readExactly(const TensorView& tensor, DType dtype, void* out);

template <typename T>
constexpr bool isFloat() {
  return std::is_floating_point<T>::value || std::is_same<T, Eigen::half>::value ||
         std::is_same<T, Eigen::bfloat16>::value;
}
}  // namespace internal

/** The elements of a tensor of any rank as one vector, row-major.
 * Float scalars (float, double, Eigen::half, Eigen::bfloat16) are converted from F64, F32, F16 and BF16, each rounded
 * once, to nearest with ties to even; other scalars must be stored as they are.
 * Throws FormatError on another type. */
template <typename Scalar>
Eigen::Matrix<Scalar, Eigen::Dynamic, 1> toVector(const TensorView& tensor) {
  Eigen::Matrix<Scalar, Eigen::Dynamic, 1> v(tensor.size());
  if constexpr (internal::isFloat<Scalar>()) {
    internal::readFloats(tensor, EigenQ::internal::mutableViewOf(v));
  } else {
    internal::readExactly(tensor, kDTypeOf<Scalar>, v.data());
  }
  return v;
}

/** As above; throws FormatError where the tensor is not of shape [\a size] too. */
template <typename Scalar>
Eigen::Matrix<Scalar, Eigen::Dynamic, 1> toVector(const TensorView& tensor, Index size) {
  tensor.requireShape({size});
  return toVector<Scalar>(tensor);
}

/** A tensor of rank two as a matrix, converted as toVector does; its rows are the tensor's first extent, so a weight
 * [out, in] becomes W of W·x. Throws FormatError on another rank or type. */
template <typename Scalar, int StorageOrder = Eigen::ColMajor>
Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, StorageOrder> toMatrix(const TensorView& tensor) {
  if (tensor.shape.size() != 2) tensor.fail("expected a matrix, found shape " + shapeText(tensor.shape));
  Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, StorageOrder> m(tensor.shape[0], tensor.shape[1]);
  if constexpr (internal::isFloat<Scalar>()) {
    internal::readFloats(tensor, EigenQ::internal::mutableViewOf(m));
  } else {
    static_assert(StorageOrder == Eigen::RowMajor, "elements that are copied as they lie lie row by row");
    internal::readExactly(tensor, kDTypeOf<Scalar>, m.data());
  }
  return m;
}

/** As above; throws FormatError where the tensor is not of shape [\a rows, \a cols] too. */
template <typename Scalar, int StorageOrder = Eigen::ColMajor>
Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, StorageOrder> toMatrix(const TensorView& tensor, Index rows,
                                                                             Index cols) {
  tensor.requireShape({rows, cols});
  return toMatrix<Scalar, StorageOrder>(tensor);
}

}  // namespace io
}  // namespace EigenQ

#endif  // EIGENQ_IO_TENSORVIEW_H
