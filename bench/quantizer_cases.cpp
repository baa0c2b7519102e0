// SPDX-License-Identifier: MPL-2.0
#include "Case.h"

#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include <src/cuda/check.h>

#include "DeviceData.h"

namespace EigenQ {
namespace bench {
namespace {

using Format = KernelSpec::Format;
using Kind = KernelSpec::Kind;
using gpu::DeviceMatrix;
using gpu::internal::FourBitLayout;
using gpu::internal::FourBitShape;
using gpu::internal::MemoryBlock;

constexpr Index kBlockSize = 64;

template <typename T>
std::vector<T> download(const void* from, Index count) {
  std::vector<T> values(static_cast<std::size_t>(count));
  EIGENQ_CUDA_CHECK(cudaMemcpy(values.data(), from, values.size() * sizeof(T), cudaMemcpyDeviceToHost));
  return values;
}

/** A dense matrix and its quantised form, some pairs of them; which of the two is written is up to the kind. */
template <typename Scalar>
class QuantizerCase : public Case {
 public:
  QuantizerCase(const KernelSpec& spec, const Shape& shape, gpu::Context& context)
      : m_spec(spec), m_shape(shape), m_context(context) {
    const double dense = static_cast<double>(sizeof(Scalar)) * size(), codes = weightBytes(spec, shape, kScalar);
    const int copies = coldCopies(spec.kind == Kind::kQuantize ? dense : codes);
    for (int copy = 0; copy < copies; ++copy) {
      m_dense.emplace_back(shape.n, shape.k, context);
      fillNormal(m_dense.back().data(), kScalar, shape.n * shape.k, kWeightDeviation, static_cast<std::uint64_t>(copy),
                 context.stream());
    }
  }

  void setRows(Index) override {}
  int copies() const override { return static_cast<int>(m_dense.size()); }

  Work work() const override {
    const double dense = static_cast<double>(sizeof(Scalar)) * size(), codes = weightBytes(m_spec, m_shape, kScalar);
    Work w;
    w.bytesRead = m_spec.kind == Kind::kQuantize ? dense : codes;
    w.bytesWritten = m_spec.kind == Kind::kQuantize ? codes : dense;
    return w;
  }

 protected:
  static constexpr ScalarType kScalar = gpu::internal::ScalarTypeOf<Scalar>::value;
  using Dense = DeviceMatrix<Scalar, Eigen::RowMajor>;

  Dense& dense(int copy) { return m_dense[static_cast<std::size_t>(copy)]; }
  /** Consecutive values of copy 0. */
  Eigen::Matrix<float, 1, Eigen::Dynamic> values(Index begin, Index count) {
    const auto stored = download<Scalar>(dense(0).data() + begin, count);
    return Eigen::Map<const Eigen::Matrix<Scalar, 1, Eigen::Dynamic>>(stored.data(), count).template cast<float>();
  }
  double size() const { return static_cast<double>(m_shape.n) * static_cast<double>(m_shape.k); }

  const KernelSpec m_spec;
  const Shape m_shape;
  gpu::Context& m_context;

 private:
  std::vector<Dense> m_dense;
};

/** Through the quantiser itself and not through a constructor, which would allocate inside the clock. */
template <typename Scalar>
class FourBitQuantizeCase : public QuantizerCase<Scalar> {
 public:
  FourBitQuantizeCase(const KernelSpec& spec, const Shape& shape, gpu::Context& context)
      : QuantizerCase<Scalar>(spec, shape, context),
        m_blocks{kBlockSize, spec.format == Format::kNF4Nested},
        m_layout(shape.n * shape.k, m_blocks) {
    for (int copy = 0; copy < this->copies(); ++copy)
      m_memory.push_back(std::make_unique<MemoryBlock>(m_layout.bytes, context));
  }

  void call(int copy) override {
    gpu::internal::quantizeFourBit(this->dense(copy).view().dense(), FourBitType::kNF4, m_blocks, m_layout,
                                   m_memory[static_cast<std::size_t>(copy)]->data(), this->m_context);
  }

  void spoilResult() override {
    EIGENQ_CUDA_CHECK(cudaMemsetAsync(m_memory[0]->data(), 0xff, m_layout.bytes, this->m_context.stream()));
  }

  /** Codes bit for bit, as the host finds them; absmax likewise, or within a code of 8 bits where nested. */
  std::string checkResult() override {
    this->m_context.synchronize();
    const Index blocks = this->m_shape.n * this->m_shape.k / kBlockSize;
    for (int s = 0; s < kSampledRows * kSampledCols; ++s) {
      const Index block = sampled(s, kSampledRows * kSampledCols, blocks);
      const EigenQ::NF4Matrix host(this->values(block * kBlockSize, kBlockSize), kBlockSize);
      const auto packed = download<std::uint8_t>(part(m_layout.packed) + block * kBlockSize / 2, kBlockSize / 2);
      if (std::memcmp(packed.data(), host.packed().data(), packed.size()) != 0)
        return "the codes of block " + std::to_string(block) + " are not the host's";
      const float expected = host.state().absmax()[0], found = absmax(block);
      const float tolerance = m_blocks.nested ? 0.02f * nestedScale(block) : 0;
      if (!(std::abs(found - expected) <= tolerance))
        return "absmax " + mismatch(block, 0, static_cast<double>(expected), static_cast<double>(found));
    }
    return "";
  }

 private:
  const char* part(std::size_t offset) const { return static_cast<const char*>(m_memory[0]->data()) + offset; }
  float floatAt(std::size_t offset, Index i) const {
    return download<float>(part(offset) + i * static_cast<Index>(sizeof(float)), 1)[0];
  }
  float nestedScale(Index block) const { return floatAt(m_layout.absmax2, block / m_blocks.nestedBlockSize); }
  float absmax(Index block) const {
    if (!m_blocks.nested) return floatAt(m_layout.absmax, block);
    const Index code = download<std::uint8_t>(part(m_layout.absmax) + block, 1)[0];
    return floatAt(m_layout.nestedTable, code) * nestedScale(block) + floatAt(m_layout.offset, 0);
  }

  FourBitShape m_blocks;
  FourBitLayout m_layout;
  std::vector<std::unique_ptr<MemoryBlock>> m_memory;
};

template <typename Scalar>
class Int8QuantizeCase : public QuantizerCase<Scalar> {
 public:
  Int8QuantizeCase(const KernelSpec& spec, const Shape& shape, gpu::Context& context)
      : QuantizerCase<Scalar>(spec, shape, context) {
    for (int copy = 0; copy < this->copies(); ++copy) m_quantized.emplace_back(this->dense(copy), context);
  }

  void call(int copy) override {
    const gpu::Int8Matrix& to = m_quantized[static_cast<std::size_t>(copy)];
    gpu::internal::quantizeInt8(this->dense(copy).view().dense(), to.codes(), to.rowAbsmax(), this->m_context);
  }

  void spoilResult() override {
    const cudaStream_t stream = this->m_context.stream();
    const Shape& shape = this->m_shape;
    EIGENQ_CUDA_CHECK(
        cudaMemsetAsync(m_quantized[0].codes(), 0xff, static_cast<std::size_t>(shape.n * shape.k), stream));
    EIGENQ_CUDA_CHECK(
        cudaMemsetAsync(m_quantized[0].rowAbsmax(), 0xff, static_cast<std::size_t>(shape.n) * sizeof(float), stream));
  }

  std::string checkResult() override {
    this->m_context.synchronize();
    const Index k = this->m_shape.k;
    for (int r = 0; r < kSampledRows; ++r) {
      const Index row = sampled(r, kSampledRows, this->m_shape.n);
      const EigenQ::Int8Matrix host(this->values(row * k, k));
      const auto codes = download<std::int8_t>(m_quantized[0].codes() + row * k, k);
      if (std::memcmp(codes.data(), host.codes().data(), codes.size()) != 0)
        return "the codes of row " + std::to_string(row) + " are not the host's";
      const float found = download<float>(m_quantized[0].rowAbsmax() + row, 1)[0], expected = host.rowAbsmax()[0];
      if (!(found == expected))
        return "absmax " + mismatch(row, 0, static_cast<double>(expected), static_cast<double>(found));
    }
    return "";
  }

 private:
  std::vector<gpu::Int8Matrix> m_quantized;
};

template <typename Scalar>
class DequantizeCase : public QuantizerCase<Scalar> {
 public:
  DequantizeCase(const KernelSpec& spec, const Shape& shape, gpu::Context& context)
      : QuantizerCase<Scalar>(spec, shape, context) {
    const Statistics statistics = spec.format == Format::kNF4Nested ? Statistics::kNested : Statistics::kPlain;
    for (int copy = 0; copy < this->copies(); ++copy)
      m_quantized.emplace_back(this->dense(copy), kBlockSize, statistics, context);
    m_host = m_quantized[0].toHost(context);
  }

  void call(int copy) override {
    this->dense(copy).noalias().device(this->m_context) = m_quantized[static_cast<std::size_t>(copy)];
  }

  void spoilResult() override {
    const Shape& shape = this->m_shape;
    EIGENQ_CUDA_CHECK(cudaMemsetAsync(this->dense(0).data(), 0xff,
                                      static_cast<std::size_t>(shape.n * shape.k) * sizeof(Scalar),
                                      this->m_context.stream()));
  }

  std::string checkResult() override {
    this->m_context.synchronize();
    for (int r = 0; r < kSampledRows; ++r) {
      const Index row = sampled(r, kSampledRows, this->m_shape.n);
      const auto found = this->values(row * this->m_shape.k, this->m_shape.k);
      for (Index j = 0; j < found.size(); ++j) {
        const float expected = static_cast<float>(static_cast<Scalar>(m_host.coeff(row, j)));
        if (!(found[j] == expected))
          return mismatch(row, j, static_cast<double>(expected), static_cast<double>(found[j]));
      }
    }
    return "";
  }

 private:
  std::vector<gpu::NF4Matrix> m_quantized;
  EigenQ::NF4Matrix m_host;
};

template <typename Scalar>
std::unique_ptr<Case> makeFor(const KernelSpec& spec, const Shape& shape, gpu::Context& context) {
  if (spec.kind == Kind::kDequantize) return std::make_unique<DequantizeCase<Scalar>>(spec, shape, context);
  if (spec.format == Format::kInt8) return std::make_unique<Int8QuantizeCase<Scalar>>(spec, shape, context);
  return std::make_unique<FourBitQuantizeCase<Scalar>>(spec, shape, context);
}

}  // namespace

std::unique_ptr<Case> makeQuantizerCase(const KernelSpec& spec, const Shape& shape, ScalarType scalar,
                                        gpu::Context& context) {
  return forScalar(scalar, [&](auto tag) { return makeFor<decltype(tag)>(spec, shape, context); });
}

}  // namespace bench
}  // namespace EigenQ
