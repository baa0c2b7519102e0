// SPDX-License-Identifier: MPL-2.0
#include <eigen_q/src/io/TensorView.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include <eigen_q/src/ScalarConvert.h>

namespace EigenQ {
namespace io {
namespace {

using EigenQ::internal::DenseView;

std::optional<ScalarType> scalarTypeOf(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return ScalarType::kFloat;
    case DType::kF16:
      return ScalarType::kHalf;
    case DType::kBF16:
      return ScalarType::kBFloat16;
    case DType::kF64:
      return ScalarType::kDouble;
    default:
      return std::nullopt;
  }
}

template <typename From, typename To>
typename To::Storage converted(typename From::Storage v) {
  if constexpr (std::is_same<From, To>::value) {
    return v;  // the bits, whatever NaN they are
  } else if constexpr (std::is_same<typename From::Storage, double>::value) {
    return To::fromDouble(v);
  } else {
    return To::fromFloat(From::toFloat(v));  // the first is exact
  }
}

/** Rows go to columns in squares, so that neither side is read or written a cache line at a time for one element. */
template <typename From, typename To>
void convert(const unsigned char* data, const DenseView& out) {
  constexpr Index kSquare = 32;
  using Source = typename From::Storage;
  auto* target = static_cast<typename To::Storage*>(out.data);
  for (Index top = 0; top < out.rows; top += kSquare) {
    for (Index left = 0; left < out.cols; left += kSquare) {
      for (Index i = top; i < std::min(top + kSquare, out.rows); ++i) {
        for (Index j = left; j < std::min(left + kSquare, out.cols); ++j) {
          Source v;  // files align nothing
          std::memcpy(&v, data + static_cast<std::size_t>(i * out.cols + j) * sizeof v, sizeof v);
          target[i * out.rowStride + j * out.colStride] = converted<From, To>(v);
        }
      }
    }
  }
}

}  // namespace

Index TensorView::size() const {
  // Not the product of the extents: it may overflow on its way to an extent of zero.
  return static_cast<Index>(bytes * 8 / static_cast<std::size_t>(bitsOf(dtype)));
}

void TensorView::fail(const std::string& message) const { throw FormatError(*file, name, message); }

void TensorView::requireShape(const std::vector<Index>& expected) const {
  if (shape != expected) fail("expected shape " + shapeText(expected) + ", found " + shapeText(shape));
}

void TensorView::requireDType(DType expected) const {
  if (dtype != expected) fail(std::string("expected ") + nameOf(expected) + ", found " + nameOf(dtype));
}

std::string shapeText(const std::vector<Index>& shape) {
  constexpr std::size_t kMost = 16;  // damaged files have shapes of any length
  std::string text;
  for (std::size_t i = 0; i < std::min(shape.size(), kMost); ++i)
    text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return "[" + text + (shape.size() > kMost ? ", …]" : "]");
}

namespace internal {

void readFloats(const TensorView& tensor, const DenseView& out) {
  const std::optional<ScalarType> stored = scalarTypeOf(tensor.dtype);
  if (!stored) tensor.fail(std::string("expected F32, F16, BF16 or F64, found ") + nameOf(tensor.dtype));
  eigen_assert(out.rows * out.cols == tensor.size() && "readFloats: sizes differ");
  EigenQ::internal::dispatchScalar(*stored, [&](auto from) {
    EigenQ::internal::dispatchScalar(out.scalar,
                                     [&](auto to) { convert<decltype(from), decltype(to)>(tensor.data, out); });
  });
}

void readExactly(const TensorView& tensor, DType dtype, void* out) {
  tensor.requireDType(dtype);
  if (tensor.bytes != 0) std::memcpy(out, tensor.data, tensor.bytes);
}

}  // namespace internal
}  // namespace io
}  // namespace EigenQ
