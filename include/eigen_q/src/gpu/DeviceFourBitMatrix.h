// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_GPU_DEVICEFOURBITMATRIX_H
#define EIGENQ_GPU_DEVICEFOURBITMATRIX_H

#include "../FourBitMatrix.h"
#include "DeviceMatrix.h"
#include "QuantizedMemory.h"

namespace EigenQ {
namespace gpu {

template <FourBitType kType>
class FourBitMatrix;
using NF4Matrix = FourBitMatrix<FourBitType::kNF4>;
using FP4Matrix = FourBitMatrix<FourBitType::kFP4>;

/** An EigenQ::FourBitMatrix in device memory, codes in the order of checkpoints. Moved, not copied. */
template <FourBitType kType>
class FourBitMatrix : public DeviceQuantizedBase<FourBitMatrix<kType>> {
 public:
  using HostMatrix = EigenQ::FourBitMatrix<kType>;

  /** 0×0. */
  FourBitMatrix() = default;

  static FourBitMatrix fromHost(const HostMatrix& w, Context& context = Context::current()) {
    const QuantState& s = w.state();
    internal::FourBitShape shape{s.blockSize(), s.isNested()};
    if (shape.nested) shape.nestedBlockSize = s.nestedAbsmax().blockSize;
    FourBitMatrix d(w.rows(), w.cols(), shape, s.dtype(), context);
    if (!d.m_block) return d;
    d.uploadPart(d.m_layout.codeTable, s.codeTable(), context);
    d.uploadPart(d.m_layout.packed, w.packed(), context);
    if (s.isNested()) {
      const NestedAbsmax& n = s.nestedAbsmax();
      d.uploadPart(d.m_layout.absmax, n.codes, context);
      d.uploadPart(d.m_layout.absmax2, n.absmax, context);
      d.uploadPart(d.m_layout.nestedTable, n.codeTable, context);
      internal::upload(d.part<float>(d.m_layout.offset), &n.offset, sizeof(float), context);
    } else {
      d.uploadPart(d.m_layout.absmax, s.absmax(), context);
    }
    return d;
  }

  /** Quantises on the device; the same codes and statistics as on the host. A coefficient that is not finite is not
   * detected here, as that would have to wait for the device; it decodes as doc/formats.md says.
   * Throws FormatError on a block size that is no power of two from 32 to 4096. */
  template <typename Derived>
  explicit FourBitMatrix(const DeviceBase<Derived>& w, Index blockSize = 64, Statistics statistics = Statistics::kPlain,
                         Context& context = Context::current())
      : FourBitMatrix(w.rows(), w.cols(), {checkedBlockSize(blockSize), statistics == Statistics::kNested},
                      internal::ScalarTypeOf<typename Derived::Scalar>::value, context) {
    if (!m_block) return;
    const auto view = w.derived().view();
    if (view.memory()) view.memory()->beginRead(context);
    internal::quantizeFourBit(view.dense(), kType, m_shape, m_layout, m_block->data(), context);
  }

  /** Waits for the stream. */
  HostMatrix toHost(Context& context = Context::current()) const {
    if (!m_block) return HostMatrix(Eigen::MatrixXf(m_rows, m_cols), m_shape.blockSize);
    m_block->beginRead(context);
    const Index values = m_rows * m_cols, blocks = EigenQ::internal::blockCount(values, m_shape.blockSize);
    ByteVector packed = downloadPart<ByteVector>(m_layout.packed, EigenQ::internal::packedSize(values), context);
    Eigen::VectorXf table =
        downloadPart<Eigen::VectorXf>(m_layout.codeTable, EigenQ::internal::kFourBitLevels, context);
    if (!m_shape.nested) {
      return HostMatrix(std::move(packed),
                        QuantState(kType, m_shape.blockSize, m_dtype, {m_rows, m_cols},
                                   downloadPart<Eigen::VectorXf>(m_layout.absmax, blocks, context), std::move(table)));
    }
    NestedAbsmax n;
    n.blockSize = m_shape.nestedBlockSize;
    n.codes = downloadPart<ByteVector>(m_layout.absmax, blocks, context);
    n.absmax = downloadPart<Eigen::VectorXf>(m_layout.absmax2,
                                             EigenQ::internal::blockCount(blocks, m_shape.nestedBlockSize), context);
    n.codeTable = downloadPart<Eigen::VectorXf>(m_layout.nestedTable, EigenQ::internal::kByteLevels, context);
    internal::download(&n.offset, part<float>(m_layout.offset), sizeof(float), context);
    return HostMatrix(std::move(packed),
                      QuantState(kType, m_shape.blockSize, m_dtype, {m_rows, m_cols}, std::move(n), std::move(table)));
  }

  /** Bytes of codes and statistics, as on the host. */
  Index sizeInBytes() const {
    const Index values = m_rows * m_cols, blocks = EigenQ::internal::blockCount(values, m_shape.blockSize);
    const Index codes = EigenQ::internal::packedSize(values);
    if (!m_shape.nested) return codes + blocks * Index(sizeof(float));
    const Index floats =
        EigenQ::internal::blockCount(blocks, m_shape.nestedBlockSize) + EigenQ::internal::kByteLevels + 1;
    return codes + blocks + floats * Index(sizeof(float));
  }

  Index blockSize() const { return m_shape.blockSize; }
  bool isNested() const { return m_shape.nested; }

  internal::WeightOperand operand() const {
    EigenQ::internal::AbsmaxView absmax;
    if (m_shape.nested) {
      absmax.codes = part<std::uint8_t>(m_layout.absmax);
      absmax.codeTable = part<float>(m_layout.nestedTable);
      absmax.absmax2 = part<float>(m_layout.absmax2);
      absmax.nestedBlockShift = EigenQ::internal::blockShift(m_shape.nestedBlockSize);
      absmax.offsetAt = part<float>(m_layout.offset);
    } else {
      absmax.plain = part<float>(m_layout.absmax);
    }
    return {{EigenQ::internal::WeightView::fourBit(part<std::uint8_t>(m_layout.packed), m_rows, m_cols,
                                                   part<float>(m_layout.codeTable), absmax,
                                                   EigenQ::internal::blockShift(m_shape.blockSize))},
            m_block.get()};
  }

 private:
  FourBitMatrix(Index rows, Index cols, const internal::FourBitShape& shape, ScalarType dtype, Context& context)
      : m_rows(rows), m_cols(cols), m_shape(shape), m_dtype(dtype), m_layout(rows * cols, shape) {
    if (rows * cols > 0) m_block = std::make_unique<internal::MemoryBlock>(m_layout.bytes, context);
  }

  static Index checkedBlockSize(Index blockSize) {
    if (EigenQ::internal::isBlockSize(blockSize)) return blockSize;
    throw FormatError("gpu::FourBitMatrix", "blocksize",
                      "expected a power of two from 32 to 4096, found " + std::to_string(blockSize));
  }

  template <typename T>
  T* part(std::size_t offset) const {
    return m_block ? reinterpret_cast<T*>(static_cast<char*>(m_block->data()) + offset) : nullptr;
  }
  template <typename Vector>
  void uploadPart(std::size_t offset, const Vector& v, Context& context) {
    internal::upload(part<char>(offset), v.data(), static_cast<std::size_t>(v.size()) * sizeof(v[0]), context);
  }
  template <typename Vector>
  Vector downloadPart(std::size_t offset, Index count, Context& context) const {
    Vector v(count);
    internal::download(v.data(), part<char>(offset), static_cast<std::size_t>(count) * sizeof(v[0]), context);
    return v;
  }

  std::unique_ptr<internal::MemoryBlock> m_block;
  Index m_rows = 0;
  Index m_cols = 0;
  internal::FourBitShape m_shape;
  ScalarType m_dtype = ScalarType::kFloat;
  internal::FourBitLayout m_layout;
};

}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_GPU_DEVICEFOURBITMATRIX_H
