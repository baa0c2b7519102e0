// SPDX-License-Identifier: MPL-2.0
#include "Case.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include <src/cuda/check.h>
#include <src/cuda/device_lowering.h>
#include <src/cuda/fourbit_gemm.h>

#include "DeviceData.h"

namespace EigenQ {
namespace bench {
namespace {

using Format = KernelSpec::Format;
using gpu::DeviceMatrix;
using gpu::DeviceQuantizedView;
using internal::QuantizedProduct;
using Row = gpu::internal::DeviceLowering<QuantizedProduct>;

/** A row of the device's table. wgmma.team takes here what it declines there for being no faster than slabs. */
const Row& rowNamed(const std::string& name) {
  static constexpr Row kTeam = {"wgmma.team", gpu::internal::refuseFourBitGemmAtAll, gpu::internal::runFourBitGemm};
  if (name == kTeam.name) return kTeam;
  std::string known;
  for (const Row& row : gpu::internal::deviceLowerings()) {
    if (name == row.name) return row;
    known += std::string(" ") + row.name;
  }
  throw std::invalid_argument("unknown lowering " + name + ", expected one of" + known);
}

/** Quantised copies of random weights, different ones, and the first as the host decodes it. */
class Weights {
 public:
  Weights(const KernelSpec& spec, const Shape& shape, int copies, gpu::Context& context) {
    DeviceMatrix<Eigen::bfloat16, Eigen::RowMajor> dense(shape.n, shape.k, context);
    for (int copy = 0; copy < copies; ++copy) {
      fillNormal(dense.data(), ScalarType::kBFloat16, shape.n * shape.k, kWeightDeviation,
                 static_cast<std::uint64_t>(copy), context.stream());
      if (spec.format == Format::kInt8) {
        m_int8.emplace_back(dense, context);
        m_views.push_back(spec.threshold >= 0 ? m_int8.back().withThreshold(spec.threshold)
                                              : DeviceQuantizedView(m_int8.back().operand()));
      } else {
        m_nf4.emplace_back(dense, 64, spec.format == Format::kNF4Nested ? Statistics::kNested : Statistics::kPlain,
                           context);
        m_views.emplace_back(m_nf4.back().operand());
      }
    }
    if (spec.format == Format::kInt8) {
      m_hostInt8 = m_int8[0].toHost(context);
    } else {
      m_hostNF4 = m_nf4[0].toHost(context);
    }
  }

  const DeviceQuantizedView& operator[](int copy) const { return m_views[static_cast<std::size_t>(copy)]; }
  double coeff(Index i, Index j) const {
    return static_cast<double>(m_int8.empty() ? m_hostNF4.coeff(i, j) : m_hostInt8.coeff(i, j));
  }

 private:
  std::vector<gpu::Int8Matrix> m_int8;
  std::vector<gpu::NF4Matrix> m_nf4;
  std::vector<DeviceQuantizedView> m_views;
  EigenQ::Int8Matrix m_hostInt8;
  EigenQ::NF4Matrix m_hostNF4;
};

template <typename Scalar>
Eigen::VectorXd downloadRow(const DeviceMatrix<Scalar, Eigen::RowMajor>& m, Index row) {
  Eigen::Matrix<Scalar, Eigen::Dynamic, 1> values(m.cols());
  EIGENQ_CUDA_CHECK(cudaMemcpy(values.data(), m.data() + row * m.cols(),
                               static_cast<std::size_t>(m.cols()) * sizeof(Scalar), cudaMemcpyDeviceToHost));
  return values.template cast<double>();
}

/** Y = X·Wᵀ or X·W with one of several W at a time; X and Y stay. */
template <typename Scalar>
class ProductCase : public Case {
 public:
  ProductCase(const KernelSpec& spec, const Shape& shape, gpu::Context& context)
      : m_spec(spec), m_shape(shape), m_context(context), m_copies(coldCopies(weightBytes(spec, shape, kScalar))) {}

  int copies() const override { return m_copies; }

  void setRows(Index m) override {
    m_x.resize(m, depth(), m_context);
    m_y.resize(m, width(), m_context);
    fillNormal(m_x.data(), kScalar, m * depth(), 1, 1000, m_context.stream());
    if (m_spec.threshold > 0) plantOutliers(m_x.data(), kScalar, m, depth(), 1001, m_context.stream());
  }

  Work work() const override {
    const double m = static_cast<double>(m_x.rows()), n = static_cast<double>(m_shape.n),
                 k = static_cast<double>(m_shape.k), size = sizeof(Scalar);
    Work w;
    w.bytesRead = weightBytes(m_spec, m_shape, kScalar) + size * m * static_cast<double>(depth());
    w.bytesWritten = size * m * static_cast<double>(width());
    w.operations = 2 * m * n * k;
    w.rate = m_spec.threshold >= 0 ? Rate::kInt8 : kScalar == ScalarType::kFloat ? Rate::kFloat : Rate::kBFloat16;
    return w;
  }

  void spoilResult() override {  // with NaN, in each of the types
    EIGENQ_CUDA_CHECK(cudaMemsetAsync(
        m_y.data(), 0xff, static_cast<std::size_t>(m_y.rows() * m_y.cols()) * sizeof(Scalar), m_context.stream()));
  }

  std::string checkResult() override {
    m_context.synchronize();
    for (int c = 0; c < kSampledCols; ++c) {
      const Index j = sampled(c, kSampledCols, width());
      Eigen::VectorXd w(depth());
      for (Index p = 0; p < depth(); ++p) w[p] = m_spec.backward ? weight(p, j) : weight(j, p);
      for (int r = 0; r < kSampledRows; ++r) {
        const Index i = sampled(r, kSampledRows, m_x.rows());
        const Eigen::VectorXd x = downloadRow(m_x, i);
        Scalar found;
        EIGENQ_CUDA_CHECK(cudaMemcpy(&found, m_y.data() + i * width() + j, sizeof found, cudaMemcpyDeviceToHost));
        const double expected = x.dot(w), y = static_cast<double>(found);
        if (!(std::abs(y - expected) <= tolerance(x, w, expected))) return mismatch(i, j, expected, y);
      }
    }
    return "";
  }

 protected:
  static constexpr ScalarType kScalar = gpu::internal::ScalarTypeOf<Scalar>::value;

  virtual double weight(Index i, Index j) const = 0;

  QuantizedProduct productWith(const DeviceQuantizedView& w) {
    QuantizedProduct p;
    p.x = m_x.view().dense();
    p.w = w.operand().view.weights;
    p.transposed = !m_spec.backward;
    p.y = m_y.view().mutableDense();
    return p;
  }

  template <typename W>
  void multiply(const W& w) {
    if (m_spec.backward) {
      m_y.noalias().device(m_context) = m_x * w;
    } else {
      m_y.noalias().device(m_context) = m_x * w.transpose();
    }
  }

 private:
  Index depth() const { return m_spec.backward ? m_shape.n : m_shape.k; }
  Index width() const { return m_spec.backward ? m_shape.k : m_shape.n; }

  /** Roundings of random data add up as a random walk does: ten standard deviations. A kernel that leaves out a tile,
   * a scale or the outliers is further off by far; the last bit is the tests' business. */
  double tolerance(const Eigen::VectorXd& x, const Eigen::VectorXd& w, double expected) const {
    const double unit = kScalar == ScalarType::kFloat ? 0x1p-24 : kScalar == ScalarType::kHalf ? 0x1p-11 : 0x1p-8;
    double perTerm = (unit + 1e-4) * x.cwiseProduct(w).norm();
    if (m_spec.threshold >= 0) {
      double absmax = 0;
      for (Index p = 0; p < x.size(); ++p) {
        if (m_spec.threshold == 0 || std::abs(x[p]) < static_cast<double>(m_spec.threshold))
          absmax = std::max(absmax, std::abs(x[p]));
      }
      perTerm += absmax / 127 / std::sqrt(12.0) * w.norm();
    }
    return 10 * perTerm + unit * std::abs(expected);
  }

 protected:
  const KernelSpec m_spec;
  const Shape m_shape;
  gpu::Context& m_context;

 private:
  int m_copies;
  DeviceMatrix<Scalar, Eigen::RowMajor> m_x, m_y;
};

template <typename Scalar>
class QuantizedProductCase : public ProductCase<Scalar> {
 public:
  QuantizedProductCase(const KernelSpec& spec, const Shape& shape, gpu::Context& context)
      : ProductCase<Scalar>(spec, shape, context), m_weights(spec, shape, this->copies(), context) {}

  void setLowering(const std::string& name) override { m_row = &rowNamed(name); }
  const char* refusal() override {
    return m_row ? m_row->refuse(this->productWith(m_weights[0]), this->m_context) : nullptr;
  }
  void call(int copy) override {
    if (m_row) return m_row->run(this->productWith(m_weights[copy]), this->m_context);
    this->multiply(m_weights[copy]);
  }

 private:
  double weight(Index i, Index j) const override { return m_weights.coeff(i, j); }

  Weights m_weights;
  const Row* m_row = nullptr;  // null: the table chooses
};

/** The control: the library's dense product, cuBLASLt with a measured plan. */
template <typename Scalar>
class DenseProductCase : public ProductCase<Scalar> {
 public:
  DenseProductCase(const KernelSpec& spec, const Shape& shape, gpu::Context& context)
      : ProductCase<Scalar>(spec, shape, context) {
    for (int copy = 0; copy < this->copies(); ++copy) {
      m_weights.emplace_back(shape.n, shape.k, context);
      fillNormal(m_weights.back().data(), this->kScalar, shape.n * shape.k, kWeightDeviation,
                 static_cast<std::uint64_t>(copy), context.stream());
    }
    m_host = m_weights[0].toHost(context);
  }

  void call(int copy) override { this->multiply(m_weights[static_cast<std::size_t>(copy)]); }

 private:
  double weight(Index i, Index j) const override { return static_cast<double>(m_host(i, j)); }

  std::vector<DeviceMatrix<Scalar, Eigen::RowMajor>> m_weights;
  Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> m_host;
};

template <typename Scalar>
std::unique_ptr<Case> makeFor(const KernelSpec& spec, const Shape& shape, gpu::Context& context) {
  if (spec.format == Format::kDense) return std::make_unique<DenseProductCase<Scalar>>(spec, shape, context);
  return std::make_unique<QuantizedProductCase<Scalar>>(spec, shape, context);
}

}  // namespace

std::unique_ptr<Case> makeProductCase(const KernelSpec& spec, const Shape& shape, ScalarType scalar,
                                      gpu::Context& context) {
  return forScalar(scalar, [&](auto tag) { return makeFor<decltype(tag)>(spec, shape, context); });
}

}  // namespace bench
}  // namespace EigenQ
