// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_GPU_DEVICEINT8MATRIX_H
#define EIGENQ_GPU_DEVICEINT8MATRIX_H

#include "../Int8Matrix.h"
#include "DeviceMatrix.h"
#include "QuantizedMemory.h"

namespace EigenQ {
namespace gpu {

/** An EigenQ::Int8Matrix in device memory: int8 codes, one absmax a row. Moved, not copied. */
class Int8Matrix : public DeviceQuantizedBase<Int8Matrix> {
 public:
  /** 0×0. */
  Int8Matrix() = default;

  static Int8Matrix fromHost(const EigenQ::Int8Matrix& w, Context& context = Context::current()) {
    Int8Matrix d(w.rows(), w.cols(), context);
    if (d.m_block) {
      internal::upload(d.codes(), w.codes().data(), static_cast<std::size_t>(w.codes().size()), context);
      internal::upload(d.rowAbsmax(), w.rowAbsmax().data(), sizeof(float) * static_cast<std::size_t>(w.rows()),
                       context);
    }
    return d;
  }
  /** Copies codes (row-major) and absmax that lie on the device already. */
  static Int8Matrix fromDevice(const std::int8_t* codes, const float* rowAbsmax, Index rows, Index cols,
                               Context& context = Context::current()) {
    Int8Matrix d(rows, cols, context);
    internal::copyAsync(d.codes(), codes, static_cast<std::size_t>(rows * cols), context);
    internal::copyAsync(d.rowAbsmax(), rowAbsmax, sizeof(float) * static_cast<std::size_t>(rows), context);
    return d;
  }
  /** Quantises on the device; the same codes as on the host. A coefficient that is not finite is not detected here, as
   * that would have to wait for the device: NaN counts as 0, infinity makes its row's absmax infinite. */
  template <typename Derived>
  explicit Int8Matrix(const DeviceBase<Derived>& w, Context& context = Context::current())
      : Int8Matrix(w.rows(), w.cols(), context) {
    if (!m_block) return;
    const auto view = w.derived().view();
    if (view.memory()) view.memory()->beginRead(context);
    internal::quantizeInt8(view.dense(), codes(), rowAbsmax(), context);
  }

  /** Waits for the stream. */
  EigenQ::Int8Matrix toHost(Context& context = Context::current()) const {
    Int8Codes hostCodes(m_rows, m_cols);
    Eigen::VectorXf absmax(m_rows);
    if (m_block) {
      m_block->beginRead(context);
      internal::download(hostCodes.data(), codes(), static_cast<std::size_t>(hostCodes.size()), context);
      internal::download(absmax.data(), rowAbsmax(), sizeof(float) * static_cast<std::size_t>(m_rows), context);
    }
    return EigenQ::Int8Matrix(std::move(hostCodes), std::move(absmax), "gpu::Int8Matrix");
  }

  /** Bytes of codes and absmax, as on the host. */
  Index sizeInBytes() const { return m_rows * m_cols + m_rows * Index(sizeof(float)); }

  /** Device memory: codes row-major, n values of absmax. */
  std::int8_t* codes() const { return m_block ? static_cast<std::int8_t*>(m_block->data()) : nullptr; }
  float* rowAbsmax() const {
    return m_block ? reinterpret_cast<float*>(static_cast<char*>(m_block->data()) + absmaxBegin()) : nullptr;
  }
  internal::WeightOperand operand() const {
    return {{EigenQ::internal::WeightView::int8(codes(), m_rows, m_cols, m_cols, rowAbsmax())}, m_block.get()};
  }

  /** As EigenQ::Int8Matrix::withThreshold: products X·Wᵀ quantise X (LLM.int8()), outlier columns are found on the
   * device. Refers to this matrix. */
  DeviceQuantizedView withThreshold(float threshold) const {
    eigen_assert(threshold >= 0 && "withThreshold: the outlier threshold is negative or NaN");
    internal::WeightOperand w = operand();
    w.view.weights.int8Activations = true;
    w.view.weights.outlierThreshold = threshold;
    return DeviceQuantizedView(w);
  }

 private:
  Int8Matrix(Index rows, Index cols, Context& context) : m_rows(rows), m_cols(cols) {
    const std::size_t bytes = absmaxBegin() + sizeof(float) * static_cast<std::size_t>(rows);
    if (bytes > 0) m_block = std::make_unique<internal::MemoryBlock>(bytes, context);
  }
  std::size_t absmaxBegin() const { return (static_cast<std::size_t>(m_rows * m_cols) + 255) / 256 * 256; }

  std::unique_ptr<internal::MemoryBlock> m_block;
  Index m_rows = 0;
  Index m_cols = 0;
};

}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_GPU_DEVICEINT8MATRIX_H
