// SPDX-License-Identifier: MPL-2.0
// A frozen weight with a LoRA adapter, forward and backward, as a training step calls it on the tape:
//
//   Y = X·Wᵀ + s·(X·Aᵀ)·Bᵀ        dX = dY·W + s·(dY·B)·A        dA, dB
//
// X is a leaf here and dY comes from outside, so that a call also clears dX and copies dY, which no layer of a model
// does.
#include "Case.h"

#include <cmath>
#include <type_traits>
#include <vector>

#include <src/cuda/check.h>
#include <unsupported/eigen_q/AutodiffCuda>

#include "DeviceData.h"

namespace EigenQ {
namespace bench {
namespace {

using ad::Device;

constexpr Index kRank = 64;
constexpr double kScale = 0.5;

template <typename Scalar>
using Column = Eigen::Matrix<Scalar, Eigen::Dynamic, 1>;

template <typename Scalar>
constexpr ScalarType kScalarType = gpu::internal::ScalarTypeOf<Scalar>::value;

/** A parameter of normally distributed values, made where they are used. */
template <typename Scalar>
ad::Parameter<Scalar, Device> randomParameter(Index rows, Index cols, float deviation, std::uint64_t seed,
                                              bool requiresGrad, gpu::Context& context) {
  ad::Parameter<Scalar, Device> p(Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic>::Zero(rows, cols), "",
                                  requiresGrad);
  fillNormal(p.mutableValue().data(), kScalarType<Scalar>, rows * cols, deviation, seed, context.stream());
  return p;
}

/** Column \a j of a column-major matrix on the device. */
template <typename Scalar>
Eigen::VectorXd column(const Scalar* data, Index rows, Index j) {
  Column<Scalar> values(rows);
  EIGENQ_CUDA_CHECK(cudaMemcpy(values.data(), data + j * rows, static_cast<std::size_t>(rows) * sizeof(Scalar),
                               cudaMemcpyDeviceToHost));
  return values.template cast<double>();
}

template <typename Scalar>
struct FourBitWeights {
  std::vector<gpu::NF4Matrix> copies;
  NF4Matrix host;

  void add(const Shape& shape, std::uint64_t seed, gpu::Context& context) {
    gpu::DeviceMatrix<Eigen::bfloat16, Eigen::RowMajor> dense(shape.n, shape.k, context);
    fillNormal(dense.data(), ScalarType::kBFloat16, shape.n * shape.k, kWeightDeviation, seed, context.stream());
    copies.emplace_back(dense, 64, Statistics::kPlain, context);
    if (copies.size() == 1) host = copies[0].toHost(context);
  }
  double coeff(Index i, Index j) const { return static_cast<double>(host.coeff(i, j)); }
};

template <typename Scalar>
struct DenseWeights {
  std::vector<ad::Parameter<Scalar, Device>> copies;
  Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic> host;

  void add(const Shape& shape, std::uint64_t seed, gpu::Context& context) {
    copies.push_back(randomParameter<Scalar>(shape.n, shape.k, kWeightDeviation, seed, false, context));
    if (copies.size() == 1) host = copies[0].value().toHost(context);
  }
  double coeff(Index i, Index j) const { return static_cast<double>(host(i, j)); }
};

template <typename Scalar, typename Weights>
class AdapterCase : public Case {
 public:
  AdapterCase(const KernelSpec& spec, const Shape& shape, gpu::Context& context)
      : m_spec(spec),
        m_shape(shape),
        m_context(context),
        m_a(randomParameter<Master>(kRank, shape.k, kWeightDeviation, 2000, true, context)),
        m_b(randomParameter<Master>(shape.n, kRank, kWeightDeviation, 2001, true, context)),
        m_tape(context) {
    for (int copy = 0; copy < coldCopies(weightBytes(spec, shape, kScalarType<Scalar>)); ++copy)
      m_weights.add(shape, static_cast<std::uint64_t>(copy), context);
  }

  int copies() const override { return static_cast<int>(m_weights.copies.size()); }

  void setRows(Index m) override {
    m_x = randomParameter<Scalar>(m_shape.k, m, 1, 1000, true, m_context);
    m_dy.resize(m_shape.n, m, m_context);
    fillNormal(m_dy.data(), kScalarType<Scalar>, m_dy.size(), 1, 1001, m_context.stream());
  }

  void call(int copy) override {
    m_tape.clear();
    for (auto* p : {&m_a, &m_b}) p->zeroGrad();
    m_x.zeroGrad();
    const auto y = ad::loraLinear(m_weights.copies[static_cast<std::size_t>(copy)], m_a, m_b, m_tape.parameter(m_x),
                                  ad::LoraOptions{kScale});
    m_tape.backward(y, m_dy.view());
    m_y = y.value().data();
  }

  Work work() const override {
    const double m = static_cast<double>(m_x.cols()), n = static_cast<double>(m_shape.n),
                 k = static_cast<double>(m_shape.k), size = sizeof(Scalar);
    Work w;
    w.bytesRead = 2 * weightBytes(m_spec, m_shape, kScalarType<Scalar>) + size * m * (2 * k + n);
    w.bytesWritten = size * m * (n + k);
    w.operations = 2 * m * (2 * n * k + 3 * static_cast<double>(kRank) * (n + k));
    w.rate = kScalarType<Scalar> == ScalarType::kFloat ? Rate::kFloat : Rate::kBFloat16;
    return w;
  }

  void spoilResult() override {
    // A call clears dX before it adds, so that Y alone can be spoilt.
    EIGENQ_CUDA_CHECK(cudaMemsetAsync(const_cast<Scalar*>(m_y), 0xff,
                                      static_cast<std::size_t>(m_shape.n * m_x.cols()) * sizeof(Scalar),
                                      m_context.stream()));
  }

  std::string checkResult() override {
    m_context.synchronize();
    const Eigen::MatrixXd a = m_a.value().toHost(m_context).template cast<double>();
    const Eigen::MatrixXd b = m_b.value().toHost(m_context).template cast<double>();
    for (int t = 0; t < kSampledRows; ++t) {
      const Index token = sampled(t, kSampledRows, m_x.cols());
      const Eigen::VectorXd x = column(m_x.value().data(), m_shape.k, token);
      const Eigen::VectorXd dy = column(m_dy.data(), m_shape.n, token);
      const Eigen::VectorXd y = column(m_y, m_shape.n, token), dx = column(m_x.grad().data(), m_shape.k, token);
      const Eigen::VectorXd updateY = kScale * (b * (a * x)), updateX = kScale * (a.transpose() * (b.transpose() * dy));
      for (int s = 0; s < kSampledCols; ++s) {
        const Index i = sampled(s, kSampledCols, m_shape.n), j = sampled(s, kSampledCols, m_shape.k);
        Eigen::VectorXd row(m_shape.k), col(m_shape.n);
        for (Index p = 0; p < m_shape.k; ++p) row[p] = m_weights.coeff(i, p);
        for (Index p = 0; p < m_shape.n; ++p) col[p] = m_weights.coeff(p, j);
        if (!isClose(y[i], row.dot(x) + updateY[i], row.cwiseProduct(x).norm()))
          return "Y " + mismatch(i, token, row.dot(x) + updateY[i], y[i]);
        if (!isClose(dx[j], col.dot(dy) + updateX[j], col.cwiseProduct(dy).norm()))
          return "dX " + mismatch(j, token, col.dot(dy) + updateX[j], dx[j]);
      }
    }
    return "";
  }

 private:
  using Master = std::conditional_t<sizeof(Scalar) == 2, float, Scalar>;  // as adapters train in 16 bits

  /** Ten standard deviations of the roundings of W and of the adapter's parts, and a last bit or two of the result. */
  static bool isClose(double found, double expected, double terms) {
    const double unit = kScalarType<Scalar> == ScalarType::kFloat  ? 0x1p-24
                        : kScalarType<Scalar> == ScalarType::kHalf ? 0x1p-11
                                                                   : 0x1p-8;
    return std::abs(found - expected) <= 10 * (unit + 1e-4) * terms + 2 * unit * std::abs(expected);
  }

  const KernelSpec m_spec;
  const Shape m_shape;
  gpu::Context& m_context;
  Weights m_weights;
  ad::Parameter<Master, Device> m_a, m_b;
  ad::Parameter<Scalar, Device> m_x;
  gpu::DeviceMatrix<Scalar> m_dy;
  ad::Tape<Scalar, Device> m_tape;
  const Scalar* m_y = nullptr;
};

template <typename Scalar>
std::unique_ptr<Case> makeFor(const KernelSpec& spec, const Shape& shape, gpu::Context& context) {
  if (spec.format == KernelSpec::Format::kDense)
    return std::make_unique<AdapterCase<Scalar, DenseWeights<Scalar>>>(spec, shape, context);
  return std::make_unique<AdapterCase<Scalar, FourBitWeights<Scalar>>>(spec, shape, context);
}

}  // namespace

std::unique_ptr<Case> makeAdapterCase(const KernelSpec& spec, const Shape& shape, ScalarType scalar,
                                      gpu::Context& context) {
  return forScalar(scalar, [&](auto tag) { return makeFor<decltype(tag)>(spec, shape, context); });
}

}  // namespace bench
}  // namespace EigenQ
