// SPDX-License-Identifier: MPL-2.0
// host_backend.cpp: the public functions of the library.
#include "Backend.h"

namespace EigenQ {
namespace golden {
namespace {

template <typename Matrix>
std::vector<float> widened(const Matrix& m) {
  const RowMajorMatrix<float> values = m.template cast<float>();
  return {values.data(), values.data() + values.size()};
}

/** Calls \a f with a value of the type that \a scalar names. */
template <typename F>
decltype(auto) withScalar(ScalarType scalar, F&& f) {
  if (scalar == ScalarType::kHalf) return f(Eigen::half());
  if (scalar == ScalarType::kBFloat16) return f(Eigen::bfloat16());
  return f(float());
}

template <typename Scalar>
Eigen::Matrix<Scalar, Eigen::Dynamic, 1> biasAs(const Eigen::RowVectorXd* bias) {
  if (!bias) return {};
  return bias->transpose().cast<Scalar>();
}

MatrixMap<float> floats(const ConstDenseView& x) {
  eigen_assert(x.scalar == ScalarType::kFloat);
  return {static_cast<const float*>(x.data), x.rows, x.cols};
}

class HostBackend : public Backend {
 public:
  FourBitQuantized quantize4bit(const ConstDenseView& x, FourBitType type, Index blockSize) const override {
    return withMatrix(x, [&](const auto& m) -> FourBitQuantized { return EigenQ::quantize4bit(m, type, blockSize); });
  }
  std::vector<float> dequantize4bit(const ByteVector& packed, const QuantState& state,
                                    ScalarType scalar) const override {
    return withScalar(scalar, [&](auto s) { return widened(EigenQ::dequantize4bit<decltype(s)>(packed, state)); });
  }
  float meanOf(const Eigen::VectorXf& absmax) const override { return internal::meanOf(absmax.data(), absmax.size()); }
  NestedAbsmax quantizeAbsmax(const Eigen::VectorXf& absmax, float offset, Index blockSize) const override {
    NestedAbsmax nested;
    nested.codes.resize(absmax.size());
    nested.absmax.resize(internal::blockCount(absmax.size(), blockSize));
    internal::quantizeAbsmax(absmax.data(), absmax.size(), offset, blockSize, nested.codes.data(),
                             nested.absmax.data());
    return nested;
  }
  BlockwiseQuantized quantizeBlockwise(const ConstDenseView& x, Index blockSize) const override {
    return withMatrix(
        x, [&](const auto& m) -> BlockwiseQuantized { return EigenQ::quantizeBlockwise(m, dynamicMap(), blockSize); });
  }
  std::vector<float> dequantizeBlockwise(const BlockwiseQuantized& q, ScalarType scalar) const override {
    return withScalar(scalar, [&](auto s) { return widened(EigenQ::dequantizeBlockwise<decltype(s)>(q)); });
  }
  Int8Quantized int8VectorwiseQuant(const ConstDenseView& x, float threshold) const override {
    return withMatrix(x, [&](const auto& m) -> Int8Quantized { return EigenQ::int8VectorwiseQuant(m, threshold); });
  }
  Int8DoubleQuantized int8DoubleQuant(const ConstDenseView& x, float threshold) const override {
    return withMatrix(x, [&](const auto& m) -> Int8DoubleQuantized { return EigenQ::int8DoubleQuant(m, threshold); });
  }

  VectorwiseQuantized vectorwiseQuant(const ConstDenseView& x, VectorwiseType type, VectorAxis axis) const override {
    return withMatrix(x, [&](const auto& m) -> VectorwiseQuantized { return EigenQ::vectorwiseQuant(m, type, axis); });
  }
  TiledBuffer<std::int32_t> toTiles(const Int32Matrix& x, TileOrder order) const override {
    return EigenQ::toTiles(x, order);
  }
  Int32Matrix fromTiles(const TiledBuffer<std::int32_t>& tiled) const override { return EigenQ::fromTiles(tiled); }

  MatrixXdRow matMul8bit(const ConstDenseView& a, const ConstDenseView& b,
                         const MatMul8bitOptions& options) const override {
    return EigenQ::matMul8bit(floats(a), floats(b), options).cast<double>();
  }
  MatMul8bitGradients<double> matMul8bitBackward(const ConstDenseView& a, const ConstDenseView& b,
                                                 const ConstDenseView& g,
                                                 const MatMul8bitOptions& options) const override {
    const auto gradients = EigenQ::matMul8bitBackward(floats(a), floats(b), floats(g), options);
    return {gradients.a.cast<double>(), gradients.b.cast<double>()};
  }
  MatrixXdRow matMul4bit(const ConstDenseView& a, const ByteVector& packed, const QuantState& state,
                         const Eigen::RowVectorXd* bias) const override {
    return withMatrix(a, [&](const auto& x) -> MatrixXdRow {
      using Scalar = typename std::decay_t<decltype(x)>::Scalar;
      return matmul4bit(x, packed, state, biasAs<Scalar>(bias)).template cast<double>();
    });
  }
  MatrixXdRow matMul4bitGradA(const ConstDenseView& g, const ByteVector& packed,
                              const QuantState& state) const override {
    return withMatrix(g, [&](const auto& m) -> MatrixXdRow {
      return EigenQ::matMul4bitGradA(m, packed, state).template cast<double>();
    });
  }
  MatrixXdRow matMul8bitLt(const ConstDenseView& a, const ConstDenseView& w, MatmulLtState& state,
                           const Eigen::RowVectorXd* bias) const override {
    return withMatrix(a, [&](const auto& x) -> MatrixXdRow {
      const auto b = biasAs<typename std::decay_t<decltype(x)>::Scalar>(bias);
      if (!state.hasFp16Weights) return EigenQ::matMul8bitLt(x, state, b).template cast<double>();
      return withMatrix(w, [&](const auto& weight) -> MatrixXdRow {
        return EigenQ::matMul8bitLt(x, weight, state, b).template cast<double>();
      });
    });
  }
  MatrixXdRow matMul8bitLtGradA(const ConstDenseView& g, const MatmulLtState& state) const override {
    return withMatrix(
        g, [&](const auto& m) -> MatrixXdRow { return EigenQ::matMul8bitLtGradA(m, state).template cast<double>(); });
  }
  MatrixXdRow biasGradient(const ConstDenseView& g) const override {
    return withMatrix(
        g, [](const auto& m) -> MatrixXdRow { return EigenQ::biasGradient(m).transpose().template cast<double>(); });
  }

  void runAdam(const internal::AdamStep& step) const override { internal::runAdam(step); }
};

}  // namespace

const Backend& hostBackend() {
  static const HostBackend backend;
  return backend;
}

}  // namespace golden
}  // namespace EigenQ
