// SPDX-License-Identifier: MPL-2.0
// cuda_backend.cpp: quantisers of blocks and rows and optimisers by the functions that device matrices call, all else
// by the functions of EigenQ::gpu.
#include <stdexcept>

#include <eigen_q/Cuda>

#include <src/cuda/device_lowering.h>
#include <eigen_q/src/gpu/OptimizerKernels.h>
#include <src/cuda/quantizers.h>

#include "Backend.h"
#include "cuda/Mirror.h"
#include "cuda/Upload.h"

namespace EigenQ {
namespace golden {
namespace {

using gpu::Context;
using internal::DenseView;
using internal::WeightView;
using test::DeviceArray;
using test::DeviceBytes;
using test::DeviceWeights;

std::size_t count(Index size) { return static_cast<std::size_t>(size); }

/** A row-major host matrix in device memory. */
class Uploaded {
 public:
  Uploaded(const ConstDenseView& x, Context& context)
      : m_bytes(x.data, count(x.rows * x.cols) * test::sizeOf(x.scalar), context), m_view(x) {
    m_view.data = m_bytes.data();
  }
  const ConstDenseView& view() const { return m_view; }

 private:
  DeviceBytes m_bytes;
  ConstDenseView m_view;
};

/** A row-major matrix that a kernel writes, as noise at first. */
class Result {
 public:
  Result(Index rows, Index cols, ScalarType scalar)
      : m_bytes(count(rows * cols) * test::sizeOf(scalar)), m_view{m_bytes.data(), scalar, rows, cols, cols, 1} {}
  const DenseView& view() const { return m_view; }
  std::vector<float> widened(Context& context) const {
    const std::vector<unsigned char> bytes = m_bytes.toHost(context);
    std::vector<float> values(count(m_view.rows * m_view.cols));
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = static_cast<float>(internal::readScalar(bytes.data(), m_view.scalar, static_cast<Index>(i)));
    return values;
  }

 private:
  DeviceArray<unsigned char> m_bytes;
  DenseView m_view;
};

template <typename Vector>
DeviceArray<typename Vector::Scalar> upload(const Vector& v) {
  return DeviceArray<typename Vector::Scalar>(std::vector<typename Vector::Scalar>(v.data(), v.data() + v.size()));
}

template <typename Matrix, typename T>
void download(const DeviceArray<T>& from, Matrix& to, Context& context) {
  const std::vector<T> values = from.toHost(context);
  std::copy(values.begin(), values.end(), to.data());
}

/** What the device functions write about outliers. */
struct Outliers {
  explicit Outliers(Index cols) : mask(count(cols)), columns(count(cols)), found(1) {}
  gpu::internal::DeviceOutliers view() { return {mask.data(), columns.data(), found.data()}; }
  IndexVector list(float threshold, Context& context) const {
    if (!(threshold > 0)) return {};
    const std::vector<int> all = columns.toHost(context);
    const Index size = found.toHost(context)[0];
    return Eigen::Map<const Eigen::VectorXi>(all.data(), size).cast<Index>();
  }

  DeviceArray<std::uint8_t> mask;
  DeviceArray<int> columns, found;
};

/** A moment in device memory for a step, and back. */
class Moment {
 public:
  Moment(const internal::MomentView& host, Index size)
      : m_host(host),
        m_size(size),
        m_codes(std::vector<std::uint8_t>(host.codes, host.codes + (host.codes ? size : 0))),
        m_floats(host.codes ? std::vector<float>(host.absmax, host.absmax + blocks())
                            : std::vector<float>(host.values, host.values + size)) {}
  internal::MomentView view() {
    if (m_host.codes) return {m_codes.data(), m_floats.data(), nullptr};
    return {nullptr, nullptr, m_floats.data()};
  }
  void toHost(Context& context) const {
    const std::vector<std::uint8_t> codes = m_codes.toHost(context);
    const std::vector<float> floats = m_floats.toHost(context);
    std::copy(codes.begin(), codes.end(), m_host.codes);
    std::copy(floats.begin(), floats.end(), m_host.codes ? m_host.absmax : m_host.values);
  }

 private:
  Index blocks() const { return internal::blockCount(m_size, internal::kOptimizerBlockSize); }

  internal::MomentView m_host;
  Index m_size;
  DeviceArray<std::uint8_t> m_codes;
  DeviceArray<float> m_floats;
};

/** Calls \a f with a host matrix in device memory. */
template <typename F>
decltype(auto) withUploaded(const ConstDenseView& x, F&& f) {
  return withMatrix(x, [&](const auto& m) -> decltype(auto) {
    using Scalar = typename std::decay_t<decltype(m)>::Scalar;
    return f(gpu::DeviceMatrix<Scalar, Eigen::RowMajor>::fromHost(m));
  });
}

/** In \a Scalar; empty where there is none. */
template <typename Scalar>
gpu::DeviceMatrix<Scalar> uploadBias(const Eigen::RowVectorXd* bias) {
  if (!bias) return {};
  return gpu::DeviceMatrix<Scalar>::fromHost(bias->transpose().cast<Scalar>().eval());
}

template <typename Scalar>
MatrixXdRow asDoubles(const gpu::DeviceMatrix<Scalar, Eigen::RowMajor>& y) {
  return y.toHost().template cast<double>();
}

/** What the original's matmul looks at. */
gpu::MatmulLtState uploadState(const MatmulLtState& state) {
  gpu::MatmulLtState onDevice;
  onDevice.threshold = state.threshold;
  onDevice.hasFp16Weights = state.hasFp16Weights;
  onDevice.codes = gpu::DeviceCodes::fromHost(state.codes);
  onDevice.rowStats = gpu::DeviceMatrix<float>::fromHost(state.rowStats);
  return onDevice;
}

/** Calls \a f with the 4-bit device matrix of a state. */
template <typename F>
MatrixXdRow withFourBit(const ByteVector& packed, const QuantState& state, Context& context, F&& f) {
  if (state.type() == FourBitType::kNF4) return f(gpu::NF4Matrix::fromHost(NF4Matrix(packed, state), context));
  return f(gpu::FP4Matrix::fromHost(FP4Matrix(packed, state), context));
}

class CudaBackend : public Backend {
 public:
  std::string device() const override { return m_context.properties().name; }
  /** Tensor cores truncate the terms that they add, each by up to 2⁻²²; large products round decoded weights. */
  Arithmetic arithmetic() const override { return {0x1p-22, true, true}; }

  FourBitQuantized quantize4bit(const ConstDenseView& x, FourBitType type, Index blockSize) const override {
    const Index size = x.rows * x.cols;
    const Uploaded input(x, m_context);
    DeviceArray<std::uint8_t> packed(count(internal::packedSize(size)));
    DeviceArray<float> absmax(count(internal::blockCount(size, blockSize)));
    gpu::internal::quantizeFourBit(input.view(), type, blockSize, packed.data(), absmax.data(), m_context);
    ByteVector hostPacked(internal::packedSize(size));
    Eigen::VectorXf hostAbsmax(internal::blockCount(size, blockSize));
    download(packed, hostPacked, m_context);
    download(absmax, hostAbsmax, m_context);
    return {std::move(hostPacked), QuantState(type, blockSize, x.scalar, {x.rows, x.cols}, std::move(hostAbsmax))};
  }
  std::vector<float> dequantize4bit(const ByteVector& packed, const QuantState& state,
                                    ScalarType scalar) const override {
    const Index rows = state.shape().at(0), cols = state.shape().at(1);
    const DeviceWeights w(WeightView::fourBit(packed.data(), rows, cols, state.codeTable().data(), state.absmaxView(),
                                              internal::blockShift(state.blockSize())),
                          m_context);
    const Result values(rows, cols, scalar);
    gpu::internal::dequantize(w.view(), false, values.view(), internal::Epilogue(), m_context);
    return values.widened(m_context);
  }
  float meanOf(const Eigen::VectorXf& absmax) const override {
    DeviceArray<float> values = upload(absmax), mean(1);
    gpu::internal::meanOf(values.data(), absmax.size(), mean.data(), m_context);
    return mean.toHost(m_context)[0];
  }
  NestedAbsmax quantizeAbsmax(const Eigen::VectorXf& absmax, float offset, Index blockSize) const override {
    NestedAbsmax nested;
    nested.codes.resize(absmax.size());
    nested.absmax.resize(internal::blockCount(absmax.size(), blockSize));
    DeviceArray<float> values = upload(absmax), mean(std::vector<float>{offset}), absmax2(count(nested.absmax.size()));
    DeviceArray<std::uint8_t> codes(count(absmax.size()));
    gpu::internal::quantizeAbsmax(values.data(), absmax.size(), mean.data(), blockSize, codes.data(), absmax2.data(),
                                  m_context);
    download(codes, nested.codes, m_context);
    download(absmax2, nested.absmax, m_context);
    return nested;
  }
  BlockwiseQuantized quantizeBlockwise(const ConstDenseView& x, Index blockSize) const override {
    BlockwiseQuantized q;
    q.codes.resize(x.rows, x.cols);
    q.absmax.resize(internal::blockCount(q.codes.size(), blockSize));
    q.codeTable = dynamicMap();
    q.blockSize = blockSize;
    const Uploaded input(x, m_context);
    DeviceArray<float> table = upload(q.codeTable), absmax(count(q.absmax.size()));
    DeviceArray<std::uint8_t> codes(count(q.codes.size()));
    gpu::internal::quantizeBlockwise(input.view(), table.data(), blockSize, codes.data(), absmax.data(), m_context);
    download(codes, q.codes, m_context);
    download(absmax, q.absmax, m_context);
    return q;
  }
  std::vector<float> dequantizeBlockwise(const BlockwiseQuantized& q, ScalarType scalar) const override {
    DeviceArray<float> table = upload(q.codeTable), absmax = upload(q.absmax);
    DeviceArray<std::uint8_t> codes = upload(q.codes);
    internal::AbsmaxView view;
    view.plain = absmax.data();
    const Result values(q.codes.rows(), q.codes.cols(), scalar);
    gpu::internal::dequantizeBlockwise(codes.data(), table.data(), view, q.blockSize, values.view(), m_context);
    return values.widened(m_context);
  }
  Int8Quantized int8VectorwiseQuant(const ConstDenseView& x, float threshold) const override {
    Int8Quantized q;
    const Uploaded input(x, m_context);
    q.outlierColumns = quantizeRows(input.view(), threshold, q.codes, q.rowStats);
    return q;
  }
  Int8DoubleQuantized int8DoubleQuant(const ConstDenseView& x, float threshold) const override {
    Int8DoubleQuantized q;
    const Uploaded input(x, m_context);
    q.outlierColumns = quantizeRows(input.view(), threshold, q.rowCodes, q.rowStats);
    q.colCodes.resize(x.rows, x.cols);
    q.colStats.resize(x.cols);
    DeviceArray<std::int8_t> codes(count(x.rows * x.cols));
    DeviceArray<float> absmax(count(x.cols));
    Outliers outliers(x.cols);
    gpu::internal::quantizeInt8Cols(input.view(), threshold, {codes.data(), x.cols}, absmax.data(), outliers.view(),
                                    m_context);
    download(codes, q.colCodes, m_context);
    download(absmax, q.colStats, m_context);
    return q;
  }

  VectorwiseQuantized vectorwiseQuant(const ConstDenseView& x, VectorwiseType type, VectorAxis axis) const override {
    const gpu::ContextGuard guard(m_context);
    return withUploaded(x, [&](const auto& m) { return gpu::vectorwiseQuant(m, type, axis).toHost(); });
  }
  TiledBuffer<std::int32_t> toTiles(const Int32Matrix& x, TileOrder order) const override {
    const gpu::ContextGuard guard(m_context);
    return gpu::toTiles(gpu::DeviceSums::fromHost(x), order).toHost();
  }
  Int32Matrix fromTiles(const TiledBuffer<std::int32_t>& tiled) const override {
    const gpu::ContextGuard guard(m_context);
    return gpu::fromTiles(gpu::TiledBuffer<std::int32_t>::fromHost(tiled)).toHost();
  }

  MatrixXdRow matMul8bit(const ConstDenseView& a, const ConstDenseView& b,
                         const MatMul8bitOptions& options) const override {
    const gpu::ContextGuard guard(m_context);
    return withUploaded(a, [&](const auto& x) {
      return withUploaded(b, [&](const auto& y) { return asDoubles(gpu::matMul8bit(x, y, options)); });
    });
  }
  MatMul8bitGradients<double> matMul8bitBackward(const ConstDenseView& a, const ConstDenseView& b,
                                                 const ConstDenseView& g,
                                                 const MatMul8bitOptions& options) const override {
    const gpu::ContextGuard guard(m_context);
    const Uploaded x(a, m_context), y(b, m_context), dy(g, m_context);
    const auto view = [](const Uploaded& u) {  // the recorded operands, in float
      const ConstDenseView& v = u.view();
      return gpu::DeviceView<const float>(static_cast<const float*>(v.data), v.rows, v.cols, v.cols, 1);
    };
    const auto gradients = gpu::matMul8bitBackward(view(x), view(y), view(dy), options);
    return {asDoubles(gradients.a), asDoubles(gradients.b)};
  }
  MatrixXdRow matMul4bit(const ConstDenseView& a, const ByteVector& packed, const QuantState& state,
                         const Eigen::RowVectorXd* bias) const override {
    const gpu::ContextGuard guard(m_context);
    return withFourBit(packed, state, m_context, [&](const auto& w) {
      return withUploaded(a, [&](const auto& x) {
        using Scalar = typename std::decay_t<decltype(x)>::Scalar;
        return asDoubles(gpu::matmul4bit(x, w, uploadBias<Scalar>(bias)));
      });
    });
  }
  MatrixXdRow matMul4bitGradA(const ConstDenseView& g, const ByteVector& packed,
                              const QuantState& state) const override {
    const gpu::ContextGuard guard(m_context);
    return withFourBit(packed, state, m_context, [&](const auto& w) {
      return withUploaded(g, [&](const auto& m) { return asDoubles(gpu::matMul4bitGradA(m, w)); });
    });
  }
  MatrixXdRow matMul8bitLt(const ConstDenseView& a, const ConstDenseView& w, MatmulLtState& state,
                           const Eigen::RowVectorXd* bias) const override {
    const gpu::ContextGuard guard(m_context);
    gpu::MatmulLtState onDevice = uploadState(state);
    const MatrixXdRow y = withUploaded(a, [&](const auto& x) {
      const auto b = uploadBias<typename std::decay_t<decltype(x)>::Scalar>(bias);
      if (!state.hasFp16Weights) return asDoubles(gpu::matMul8bitLt(x, onDevice, b));
      return withUploaded(w, [&](const auto& m) { return asDoubles(gpu::matMul8bitLt(x, m, onDevice, b)); });
    });
    state.codes = onDevice.codes.toHost();
    state.rowStats = onDevice.rowStats.toHost();
    return y;
  }
  MatrixXdRow matMul8bitLtGradA(const ConstDenseView& g, const MatmulLtState& state) const override {
    const gpu::ContextGuard guard(m_context);
    const gpu::MatmulLtState onDevice = uploadState(state);
    return withUploaded(g, [&](const auto& m) { return asDoubles(gpu::matMul8bitLtGradA(m, onDevice)); });
  }
  MatrixXdRow biasGradient(const ConstDenseView& g) const override {
    const gpu::ContextGuard guard(m_context);
    return withUploaded(g, [](const auto& m) -> MatrixXdRow {
      return gpu::biasGradient(m).toHost().transpose().template cast<double>();
    });
  }

  void runAdam(const internal::AdamStep& step) const override {
    DeviceArray<float> parameter(std::vector<float>(step.parameter, step.parameter + step.size));
    DeviceArray<float> gradient(std::vector<float>(step.gradient, step.gradient + step.size));
    Moment m(step.m, step.size), v(step.v, step.size);
    internal::AdamStep onDevice = step;
    onDevice.parameter = parameter.data();
    onDevice.gradient = gradient.data();
    onDevice.m = m.view();
    onDevice.v = v.view();
    gpu::internal::runAdam(onDevice, {}, m_context);
    const std::vector<float> updated = parameter.toHost(m_context);
    std::copy(updated.begin(), updated.end(), step.parameter);
    m.toHost(m_context);
    v.toHost(m_context);
  }

 private:
  IndexVector quantizeRows(const ConstDenseView& x, float threshold, Int8Codes& hostCodes,
                           Eigen::VectorXf& hostAbsmax) const {
    hostCodes.resize(x.rows, x.cols);
    hostAbsmax.resize(x.rows);
    DeviceArray<std::int8_t> codes(count(x.rows * x.cols));
    DeviceArray<float> absmax(count(x.rows));
    Outliers outliers(x.cols);
    gpu::internal::quantizeInt8Rows(x, threshold, /*markNaN=*/false, {codes.data(), x.cols}, absmax.data(),
                                    outliers.view(), m_context);
    download(codes, hostCodes, m_context);
    download(absmax, hostAbsmax, m_context);
    return outliers.list(threshold, m_context);
  }

  mutable Context m_context;
};

}  // namespace

std::unique_ptr<Backend> cudaBackend() {
  if (const char* const why = gpu::whyNoDevice()) throw std::runtime_error(std::string("no GPU: ") + why);
  return std::make_unique<CudaBackend>();
}

}  // namespace golden
}  // namespace EigenQ
