// SPDX-License-Identifier: MPL-2.0
// What computes the results that are compared with the recorded ones: the library on the host, or its device part.
// Operands and results lie in host memory.
#ifndef EIGENQ_TEST_GOLDEN_RUNNER_BACKEND_H
#define EIGENQ_TEST_GOLDEN_RUNNER_BACKEND_H

#include <memory>
#include <string>
#include <vector>

#include <eigen_q/Core>
#include <eigen_q/src/OptimizerKernels.h>

namespace EigenQ {
namespace golden {

using internal::ConstDenseView;
using MatrixXdRow = RowMajorMatrix<double>;
template <typename Scalar>
using MatrixMap = Eigen::Map<const RowMajorMatrix<Scalar>>;

/** Calls \a f with a map of a row-major matrix without gaps, of its own scalar type. */
template <typename F>
decltype(auto) withMatrix(const ConstDenseView& x, F&& f) {
  eigen_assert((x.rows <= 1 || x.rowStride == x.cols) && (x.cols <= 1 || x.colStride == 1));
  const auto map = [&x](auto scalar) {
    return MatrixMap<decltype(scalar)>(static_cast<const decltype(scalar)*>(x.data), x.rows, x.cols);
  };
  if (x.scalar == ScalarType::kHalf) return f(map(Eigen::half()));
  if (x.scalar == ScalarType::kBFloat16) return f(map(Eigen::bfloat16()));
  eigen_assert(x.scalar == ScalarType::kFloat);
  return f(map(float()));
}

/** How a backend's products round before their result is rounded. */
struct Arithmetic {
  double unit = 0x1p-24;       // of one addition to a float sum
  bool roundsWeights = false;  // to the activations' scalar
  bool ordersFreely = false;   // float sums in another order than the original's may be a little worse, or better
};

/** Each function computes what the library's function of that name does. A bias that is null is none. */
class Backend {
 public:
  virtual ~Backend() = default;
  /** Empty for the host. */
  virtual std::string device() const { return {}; }
  bool isHost() const { return device().empty(); }
  virtual Arithmetic arithmetic() const { return {}; }

  virtual FourBitQuantized quantize4bit(const ConstDenseView& x, FourBitType type, Index blockSize) const = 0;
  /** Decoded values, rounded to \a scalar and widened. */
  virtual std::vector<float> dequantize4bit(const ByteVector& packed, const QuantState& state,
                                            ScalarType scalar) const = 0;
  virtual float meanOf(const Eigen::VectorXf& absmax) const = 0;
  /** Codes and absmax of absmax - offset. */
  virtual NestedAbsmax quantizeAbsmax(const Eigen::VectorXf& absmax, float offset, Index blockSize) const = 0;
  /** By the signed dynamic map. */
  virtual BlockwiseQuantized quantizeBlockwise(const ConstDenseView& x, Index blockSize) const = 0;
  virtual std::vector<float> dequantizeBlockwise(const BlockwiseQuantized& q, ScalarType scalar) const = 0;
  virtual Int8Quantized int8VectorwiseQuant(const ConstDenseView& x, float threshold) const = 0;
  virtual Int8DoubleQuantized int8DoubleQuant(const ConstDenseView& x, float threshold) const = 0;

  virtual VectorwiseQuantized vectorwiseQuant(const ConstDenseView& x, VectorwiseType type, VectorAxis axis) const = 0;
  virtual TiledBuffer<std::int32_t> toTiles(const Int32Matrix& x, TileOrder order) const = 0;
  virtual Int32Matrix fromTiles(const TiledBuffer<std::int32_t>& tiled) const = 0;

  virtual MatrixXdRow matMul8bit(const ConstDenseView& a, const ConstDenseView& b,
                                 const MatMul8bitOptions& options) const = 0;
  virtual MatMul8bitGradients<double> matMul8bitBackward(const ConstDenseView& a, const ConstDenseView& b,
                                                         const ConstDenseView& g,
                                                         const MatMul8bitOptions& options) const = 0;
  virtual MatrixXdRow matMul4bit(const ConstDenseView& a, const ByteVector& packed, const QuantState& state,
                                 const Eigen::RowVectorXd* bias) const = 0;
  virtual MatrixXdRow matMul4bitGradA(const ConstDenseView& g, const ByteVector& packed,
                                      const QuantState& state) const = 0;
  /** The codes of \a w are made where the state says that it has the weight in float. */
  virtual MatrixXdRow matMul8bitLt(const ConstDenseView& a, const ConstDenseView& w, MatmulLtState& state,
                                   const Eigen::RowVectorXd* bias) const = 0;
  virtual MatrixXdRow matMul8bitLtGradA(const ConstDenseView& g, const MatmulLtState& state) const = 0;
  /** 1×n. */
  virtual MatrixXdRow biasGradient(const ConstDenseView& g) const = 0;

  virtual void runAdam(const internal::AdamStep& step) const = 0;
};

const Backend& hostBackend();

/** Throws std::runtime_error where this executable is built without the device part or there is no device. */
std::unique_ptr<Backend> cudaBackend();

}  // namespace golden
}  // namespace EigenQ

#endif  // EIGENQ_TEST_GOLDEN_RUNNER_BACKEND_H
