// SPDX-License-Identifier: MPL-2.0
// Dense matrices of awkward layouts and values, on the host and on the device, and the comparison of what two sides
// made of them.
#ifndef EIGENQ_TEST_CUDA_SAMPLES_H
#define EIGENQ_TEST_CUDA_SAMPLES_H

#include <boost/test/unit_test.hpp>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <ostream>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include <eigen_q/src/ScalarConvert.h>
#include <eigen_q/src/Views.h>

#include "Upload.h"

namespace EigenQ {
namespace test {

using internal::ConstDenseView;
using internal::DenseView;

constexpr ScalarType kDeviceScalars[] = {ScalarType::kFloat, ScalarType::kHalf, ScalarType::kBFloat16};

inline const char* nameOf(ScalarType scalar) {
  return scalar == ScalarType::kFloat ? "float" : scalar == ScalarType::kHalf ? "half" : "bfloat16";
}
inline Index sizeOf(ScalarType scalar) { return scalar == ScalarType::kFloat ? 4 : 2; }

enum class Layout { kRowMajor, kMisaligned, kAlignedRows, kOddRows, kColMajor, kBothStrided, kReversed };
constexpr Layout kLayouts[] = {Layout::kRowMajor, Layout::kMisaligned,  Layout::kAlignedRows, Layout::kOddRows,
                               Layout::kColMajor, Layout::kBothStrided, Layout::kReversed};
inline const char* nameOf(Layout layout) {
  constexpr const char* kNames[] = {"row-major",    "misaligned",   "aligned rows", "odd rows",
                                    "column-major", "both strided", "reversed"};
  return kNames[static_cast<int>(layout)];
}

/** Strides, and the memory that a matrix of them takes. */
struct Placement {
  Index rowStride, colStride, first, size;  // first: position of element (0, 0)

  Placement(Layout layout, Index rows, Index cols) : rowStride(cols), colStride(1), first(0), size(rows * cols) {
    switch (layout) {
      case Layout::kRowMajor:
        break;
      case Layout::kMisaligned:
        first = 1;
        size += 1;
        break;
      case Layout::kAlignedRows:
        rowStride = (cols + 7) / 8 * 8 + 8;
        size = rows * rowStride;
        break;
      case Layout::kOddRows:
        rowStride = cols + 3;
        size = rows * rowStride;
        break;
      case Layout::kColMajor:
        rowStride = 1;
        colStride = rows;
        break;
      case Layout::kBothStrided:
        rowStride = 2 * cols + 1;
        colStride = 2;
        size = rows * rowStride;
        break;
      case Layout::kReversed:
        rowStride = -cols;
        colStride = -1;
        first = size > 0 ? size - 1 : 0;
        break;
    }
  }
};

/** kGaussian: each row of its own magnitude. kBits: any pattern, NaN, infinities and subnormals included. kSparse:
 * whole stretches of zeros, -0 and tiny values. kTiny, kHuge: at both ends of the type's range. kGrid: few distinct
 * values, so that ties and thresholds are met. */
enum class Values { kGaussian, kBits, kSparse, kTiny, kHuge, kGrid };
constexpr Values kValues[] = {Values::kGaussian, Values::kBits, Values::kSparse,
                              Values::kTiny,     Values::kHuge, Values::kGrid};
inline const char* nameOf(Values values) {
  constexpr const char* kNames[] = {"gaussian", "bits", "sparse", "tiny", "huge", "grid"};
  return kNames[static_cast<int>(values)];
}

class Sample {
 public:
  Sample(ScalarType scalar, Values values, Layout layout, Index rows, Index cols, unsigned seed = 1)
      : m_scalar(scalar),
        m_rows(rows),
        m_cols(cols),
        m_at(layout, rows, cols),
        m_host(static_cast<std::size_t>(m_at.size * sizeOf(scalar))),
        m_name(describe(values, layout)) {
    std::mt19937 random(seed);
    fill(values, random);
    m_device = std::make_unique<DeviceArray<std::uint8_t>>(m_host);
  }

  ConstDenseView host() const { return viewAt(m_host.data()); }
  ConstDenseView device() const { return viewAt(m_device->data()); }
  const std::string& name() const { return m_name; }
  Index size() const { return m_rows * m_cols; }
  double value(Index i, Index j) const {
    return internal::readScalar(m_host.data(), m_scalar, m_at.first + i * m_at.rowStride + j * m_at.colStride);
  }

 private:
  std::string describe(Values values, Layout layout) const {
    return std::to_string(m_rows) + "x" + std::to_string(m_cols) + " " + nameOf(m_scalar) + ", " + nameOf(values) +
           ", " + nameOf(layout);
  }
  ConstDenseView viewAt(const void* memory) const {
    return {static_cast<const char*>(memory) + m_at.first * sizeOf(m_scalar),
            m_scalar,
            m_rows,
            m_cols,
            m_at.rowStride,
            m_at.colStride};
  }
  void fill(Values values, std::mt19937& random) {
    for (auto& byte : m_host) byte = static_cast<std::uint8_t>(random());
    if (values == Values::kBits) return;
    const double smallest = m_scalar == ScalarType::kHalf ? 0x1p-24 : 0x1p-149;
    const double largest = m_scalar == ScalarType::kHalf ? 65504 : 0x1.fep127;
    std::normal_distribution<double> gaussian;
    for (Index i = 0; i < m_rows; ++i) {
      const double rowScale = std::exp2(static_cast<int>(random() % 12) - 6);
      for (Index j = 0; j < m_cols; ++j) {
        double v = gaussian(random);
        if (values == Values::kGaussian) v *= rowScale;
        if (values == Values::kSparse) v = (i * m_cols + j) / 40 % 3 == 0 ? v : random() % 2 ? -0.0 : v * smallest;
        if (values == Values::kTiny) v *= smallest * std::exp2(static_cast<int>(random() % 30));
        if (values == Values::kHuge) v = std::fmax(-largest, std::fmin(largest, v * largest * 0.4));
        if (values == Values::kGrid) v = static_cast<double>(static_cast<int>(random() % 49) - 24) / 24;
        internal::writeScalar(m_host.data(), m_scalar, m_at.first + i * m_at.rowStride + j * m_at.colStride, v);
      }
    }
  }

  ScalarType m_scalar;
  Index m_rows, m_cols;
  Placement m_at;
  std::vector<std::uint8_t> m_host;
  std::unique_ptr<DeviceArray<std::uint8_t>> m_device;
  std::string m_name;
};

inline bool isSame(float a, float b) {
  return internal::bitsOf(a) == internal::bitsOf(b) || (std::isnan(a) && std::isnan(b));
}
template <typename T>
bool isSame(T a, T b) {
  return a == b;
}

/** Whether two arrays agree bit for bit (any NaN for any other); else says where they first differ, and how often. */
template <typename T>
boost::test_tools::assertion_result agree(const std::vector<T>& found, const std::vector<T>& expected,
                                          const std::string& where) {
  boost::test_tools::assertion_result result(true);
  if (found.size() != expected.size()) {
    result = false;
    result.message() << where << ": " << found.size() << " entries for " << expected.size();
    return result;
  }
  std::size_t differ = 0, first = 0;
  for (std::size_t i = expected.size(); i-- > 0;)
    if (!isSame(found[i], expected[i])) ++differ, first = i;
  if (differ == 0) return result;
  result = false;
  std::ostringstream values;
  values << std::hexfloat << +found[first] << " for " << +expected[first];
  result.message() << where << ": entry " << first << " is " << values.str() << "; " << differ << " of "
                   << expected.size() << " differ";
  return result;
}

}  // namespace test
}  // namespace EigenQ

#endif  // EIGENQ_TEST_CUDA_SAMPLES_H
