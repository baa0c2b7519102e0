// SPDX-License-Identifier: MPL-2.0
// Operands of kernels in host memory and their copies on the device: matrices of any strides inside a wider frame, and
// quantised matrices. Buffers end where their data ends, so that compute-sanitizer sees a read behind it.
#ifndef EIGENQ_TEST_CUDA_MIRROR_H
#define EIGENQ_TEST_CUDA_MIRROR_H

#include <eigen_q/Core>
#include <eigen_q/src/gpu/Context.h>

#include <src/cuda/check.h>

#include <cstring>
#include <memory>
#include <random>
#include <vector>

namespace EigenQ {
namespace test {

/** Bytes on the device. Copies wait for the context. */
class DeviceBytes {
 public:
  DeviceBytes(const void* host, std::size_t count, gpu::Context& context) : m_count(count), m_context(&context) {
    EIGENQ_CUDA_CHECK(cudaMalloc(&m_data, count + 1));  // null for no bytes
    EIGENQ_CUDA_CHECK(cudaMemcpyAsync(m_data, host, count, cudaMemcpyHostToDevice, context.stream()));
    context.synchronize();
  }
  ~DeviceBytes() { (void)cudaFree(m_data); }
  DeviceBytes(const DeviceBytes&) = delete;
  DeviceBytes& operator=(const DeviceBytes&) = delete;

  void* data() const { return m_data; }
  /** Behind what the context holds. */
  void set(const std::vector<unsigned char>& host) const {
    EIGENQ_CUDA_CHECK(cudaMemcpyAsync(m_data, host.data(), m_count, cudaMemcpyHostToDevice, m_context->stream()));
    m_context->synchronize();
  }
  std::vector<unsigned char> toHost() const {
    std::vector<unsigned char> host(m_count);
    EIGENQ_CUDA_CHECK(cudaMemcpyAsync(host.data(), m_data, m_count, cudaMemcpyDeviceToHost, m_context->stream()));
    m_context->synchronize();
    return host;
  }

 private:
  void* m_data = nullptr;
  std::size_t m_count;
  gpu::Context* m_context;
};

enum class Layout { kRowMajor, kColMajor, kPadded, kStrided, kReversed };
constexpr Layout kLayouts[] = {Layout::kRowMajor, Layout::kColMajor, Layout::kPadded, Layout::kStrided,
                               Layout::kReversed};

inline std::size_t sizeOf(ScalarType scalar) { return scalar == ScalarType::kFloat ? 4 : 2; }

/** A rows×cols matrix of a scalar type in a frame of other values. kPadded is misaligned by an element. */
class Frame {
 public:
  Frame(Index rows, Index cols, Layout layout, ScalarType scalar, unsigned seed = 1)
      : m_rows(rows), m_cols(cols), m_scalar(scalar) {
    const Index step = layout == Layout::kStrided ? 3 : 1;
    const bool colMajor = layout == Layout::kColMajor;
    const Index gap = layout == Layout::kRowMajor || colMajor ? 0 : 1;
    m_rowStride = colMajor ? 1 : step * cols + gap;
    m_colStride = colMajor ? rows : step;
    m_first = gap;
    if (layout == Layout::kReversed && rows > 0) {
      m_first += (rows - 1) * m_rowStride;
      m_rowStride = -m_rowStride;
    }
    m_elements = step * rows * cols + gap * (rows + 1) + step;
    m_bytes.resize(static_cast<std::size_t>(m_elements) * sizeOf(scalar));
    std::mt19937 random(seed);
    std::normal_distribution<double> normal;
    for (Index i = 0; i < m_elements; ++i) internal::writeScalar(m_bytes.data(), scalar, i, normal(random));
  }

  Index rows() const { return m_rows; }
  Index cols() const { return m_cols; }
  double at(Index i, Index j) const { return internal::readScalar(m_bytes.data(), m_scalar, place(i, j)); }
  void set(Index i, Index j, double v) { internal::writeScalar(m_bytes.data(), m_scalar, place(i, j), v); }

  internal::DenseView view() { return viewAt(m_bytes.data()); }
  internal::DenseView viewAt(void* data) const {
    unsigned char* const first =
        static_cast<unsigned char*>(data) + static_cast<std::size_t>(m_first) * sizeOf(m_scalar);
    return {first, m_scalar, m_rows, m_cols, m_rowStride, m_colStride};
  }
  const std::vector<unsigned char>& bytes() const { return m_bytes; }
  /** The same frame around what came back from the device. */
  Frame with(std::vector<unsigned char> bytes) const {
    Frame other = *this;
    other.m_bytes = std::move(bytes);
    return other;
  }
  /** Whether all but the matrix itself is as in \a other. */
  bool sameOutside(const Frame& other) const {
    Frame restored = *this;
    for (Index i = 0; i < m_rows; ++i) {
      for (Index j = 0; j < m_cols; ++j) {
        const std::size_t p = static_cast<std::size_t>(place(i, j)) * sizeOf(m_scalar);
        std::memcpy(&restored.m_bytes[p], &other.m_bytes[p], sizeOf(m_scalar));
      }
    }
    return restored.m_bytes == other.m_bytes;
  }

 private:
  Index place(Index i, Index j) const { return m_first + i * m_rowStride + j * m_colStride; }

  Index m_rows, m_cols, m_rowStride, m_colStride, m_first, m_elements;
  ScalarType m_scalar;
  std::vector<unsigned char> m_bytes;
};

inline internal::ConstDenseView constant(const internal::DenseView& v) {
  return {v.data, v.scalar, v.rows, v.cols, v.rowStride, v.colStride};
}

/** The data of a whole quantised matrix on the device. */
class DeviceWeights {
 public:
  /** \param whole  no window   \param offsetOnDevice  nested: the offset is read from device memory */
  DeviceWeights(const internal::WeightView& whole, gpu::Context& context, bool offsetOnDevice = false)
      : m_context(&context), m_view(whole) {
    const Index count = whole.rows * whole.cols;
    if (whole.format == internal::WeightFormat::kInt8) {
      m_view.codes = copy(whole.codes, count, 1);
      m_view.rowAbsmax = static_cast<const float*>(copy(whole.rowAbsmax, whole.rows, sizeof(float)));
      return;
    }
    m_view.codes = copy(whole.codes, internal::packedSize(count), 1);
    m_view.codeTable = static_cast<const float*>(copy(whole.codeTable, internal::kFourBitLevels, sizeof(float)));
    const Index blocks = internal::blockCount(count, Index{1} << whole.blockShift);
    internal::AbsmaxView& absmax = m_view.absmax;
    if (absmax.plain) {
      absmax.plain = static_cast<const float*>(copy(absmax.plain, blocks, sizeof(float)));
      return;
    }
    const Index nested = internal::blockCount(blocks, Index{1} << absmax.nestedBlockShift);
    absmax.codes = static_cast<const std::uint8_t*>(copy(absmax.codes, blocks, 1));
    absmax.codeTable = static_cast<const float*>(copy(absmax.codeTable, internal::kByteLevels, sizeof(float)));
    absmax.absmax2 = static_cast<const float*>(copy(absmax.absmax2, nested, sizeof(float)));
    if (!offsetOnDevice) return;
    absmax.offsetAt = static_cast<const float*>(copy(&whole.absmax.offset, 1, sizeof(float)));
    absmax.offset = -1e30f;  // not to be used
  }

  const internal::WeightView& view() const { return m_view; }

 private:
  const void* copy(const void* host, Index count, std::size_t bytes) {
    // Kernels read statistics in whole pieces of 16 bytes, for which FourBitLayout leaves room.
    const std::size_t used = static_cast<std::size_t>(count) * bytes;
    std::vector<unsigned char> padded((used + 15) / 16 * 16);
    if (used > 0) std::memcpy(padded.data(), host, used);
    m_buffers.push_back(std::make_unique<DeviceBytes>(padded.data(), padded.size(), *m_context));
    return m_buffers.back()->data();
  }

  gpu::Context* m_context;
  internal::WeightView m_view;
  std::vector<std::unique_ptr<DeviceBytes>> m_buffers;
};

}  // namespace test
}  // namespace EigenQ

#endif  // EIGENQ_TEST_CUDA_MIRROR_H
