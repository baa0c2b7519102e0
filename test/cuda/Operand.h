// SPDX-License-Identifier: MPL-2.0
// Dense operands on both sides, the epilogues that tests walk through, and the exact result of one in double.
#ifndef EIGENQ_TEST_CUDA_OPERAND_H
#define EIGENQ_TEST_CUDA_OPERAND_H

#include <eigen_q/Core>

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "Mirror.h"
#include "support/Bounds.h"

namespace EigenQ {
namespace test {

constexpr ScalarType kScalars[] = {ScalarType::kFloat, ScalarType::kHalf, ScalarType::kBFloat16};

inline double roundoffOf(ScalarType scalar) {
  return scalar == ScalarType::kFloat  ? unitRoundoff<float>()
         : scalar == ScalarType::kHalf ? unitRoundoff<Eigen::half>()
                                       : unitRoundoff<Eigen::bfloat16>();
}

/** How far the sums of a row of the device's tables may be from the exact ones, in units of Σ|x||w|. Tensor cores
 * truncate what they add, which costs up to 2⁻²² a term; the others round to nearest. Weights that are rounded to X's
 * scalar cost its roundoff. */
inline double relativeError(const std::string& row, ScalarType scalar, Index depth) {
  const double roundedSum = gammaFloat(depth + 32), u = roundoffOf(scalar);
  const double tensorSum = scalar == ScalarType::kFloat ? roundedSum : static_cast<double>(depth + 64) * 0x1p-22;
  if (row == "reference") return 0;
  if (row == "cublaslt" || row == "mma.update") return tensorSum;
  if (row == "dequantize+cublaslt") return tensorSum + u;
  // Wide tiles round a weight after its level, which is half.
  if (row == "wgmma.decode") return tensorSum + u + roundoffOf(ScalarType::kHalf);
  if (row == "mma.decode" || row == "rows.decode" || row == "stream.decode" || row == "wgmma.backward" ||
      row == "int8.wgmma.backward" || row == "wgmma.team")
    return static_cast<double>(depth + 64) * 0x1p-22 + u;
  return roundedSum;  // simt.decode, int8.*: exact integers, outliers in float
}

/** How a matrix lies in memory; flipped: its transpose lies so. */
struct Place {
  Layout layout = Layout::kRowMajor;
  bool flipped = false;
};
constexpr Place kPlaces[] = {{Layout::kRowMajor, false}, {Layout::kRowMajor, true}, {Layout::kPadded, false},
                             {Layout::kPadded, true},    {Layout::kStrided, false}, {Layout::kReversed, false}};
constexpr Place kContiguousPlaces[] = {
    {Layout::kRowMajor, false}, {Layout::kRowMajor, true}, {Layout::kPadded, false}, {Layout::kPadded, true}};

/** What an operand holds before it is uploaded: normal numbers, and what this makes of them. */
using Prepare = std::function<void(Frame&)>;

/** A matrix in a frame of other values, on the host and as it was at first on the device. */
class Operand {
 public:
  Operand(Index rows, Index cols, Place place, ScalarType scalar, unsigned seed, gpu::Context& context,
          const Prepare& prepare = nullptr)
      : m_flipped(place.flipped),
        m_frame(prepared(Frame(m_flipped ? cols : rows, m_flipped ? rows : cols, place.layout, scalar, seed), prepare)),
        m_scalar(scalar),
        m_device(m_frame.bytes().data(), m_frame.bytes().size(), context) {}

  ScalarType scalar() const { return m_scalar; }
  const Frame& frame() const { return m_frame; }
  double at(Index i, Index j) const { return at(m_frame, i, j); }
  double at(const Frame& frame, Index i, Index j) const { return m_flipped ? frame.at(j, i) : frame.at(i, j); }
  internal::DenseView host() { return flip(m_frame.view()); }
  internal::DenseView hostAt(Frame& copy) const { return flip(copy.view()); }
  internal::DenseView device() const { return deviceAt(m_device); }
  /** The same matrix in a copy of the frame. */
  internal::DenseView deviceAt(const DeviceBytes& copy) const { return flip(m_frame.viewAt(copy.data())); }

 private:
  static Frame prepared(Frame frame, const Prepare& prepare) {
    if (prepare) prepare(frame);
    return frame;
  }
  internal::DenseView flip(const internal::DenseView& v) const { return m_flipped ? v.transpose() : v; }

  bool m_flipped;
  Frame m_frame;
  ScalarType m_scalar;
  DeviceBytes m_device;
};

/** An epilogue before it has operands. */
struct EpilogueCase {
  enum Residual { kNone, kItself, kOther };
  const char* name;
  internal::Epilogue epilogue;  // without bias and residual
  Residual residual = kNone;
};

inline std::vector<EpilogueCase> epilogueCases() {
  using internal::BiasAxis;
  std::vector<EpilogueCase> cases;
  const auto add = [&](const char* name, EpilogueCase::Residual residual, float residualSign,
                       float sign) -> internal::Epilogue& {
    EpilogueCase c;
    c.name = name;
    c.residual = residual;
    c.epilogue.sign = sign;
    c.epilogue.residualSign = residualSign;
    cases.push_back(c);
    return cases.back().epilogue;
  };
  add("none", EpilogueCase::kNone, 1, 1);
  add("scaled", EpilogueCase::kNone, 1, 1).alpha = -1.5f;
  add("scaled by zero", EpilogueCase::kNone, 1, 1).alpha = 0;
  add("added", EpilogueCase::kItself, 1, 1).alpha = 0.75f;
  add("subtracted", EpilogueCase::kItself, 1, -1);
  add("reflected", EpilogueCase::kItself, -1, 1).alpha = 2;
  add("plus another", EpilogueCase::kOther, 0.5f, 1);
  add("bias per row, relu", EpilogueCase::kNone, 1, 1).biasAxis = BiasAxis::kPerRow;
  cases.back().epilogue.activation = Activation::kRelu;
  add("bias per column, gelu, subtracted", EpilogueCase::kItself, 1, -1).biasAxis = BiasAxis::kPerCol;
  cases.back().epilogue.activation = Activation::kGelu;
  add("silu minus another", EpilogueCase::kOther, -1, 1).activation = Activation::kSilu;
  add("bias per column, tanh, clamped", EpilogueCase::kNone, 1, -1).biasAxis = BiasAxis::kPerCol;
  cases.back().epilogue.activation = Activation::kTanh;
  cases.back().epilogue.lower = -0.25f;
  cases.back().epilogue.upper = 0.5f;
  return cases;
}

/** The operands of a result: where it starts, its bias, another matrix as its residual. */
struct ResultOperands {
  Operand y, other, bias;

  ResultOperands(Index rows, Index cols, Place place, Place otherPlace, ScalarType scalar, gpu::Context& context,
                 const Prepare& prepare = nullptr)
      : y(rows, cols, place, scalar, 31, context, prepare),
        other(rows, cols, otherPlace, scalar, 32, context, prepare),
        bias(1, std::max(rows, cols), {Layout::kStrided, false}, scalar, 33, context, prepare) {}

  /** The epilogue of a run that writes to \a result, in device memory. */
  internal::Epilogue on(const internal::DenseView& result, const EpilogueCase& c) const {
    return with(c, result, bias.device(), other.device());
  }
  internal::Epilogue onHost(const internal::DenseView& result, const EpilogueCase& c) {
    return with(c, result, bias.host(), other.host());
  }

  /** y(i, j) before it is rounded. */
  double exact(const EpilogueCase& c, double acc, Index i, Index j) const {
    const internal::Epilogue& e = c.epilogue;
    double v = static_cast<double>(e.alpha) * acc;
    if (e.biasAxis != internal::BiasAxis::kNone) v += bias.at(0, e.biasAxis == internal::BiasAxis::kPerRow ? i : j);
    internal::dispatchActivation(e.activation, [&](auto a) { v = internal::activate<decltype(a)::value>(v); });
    v = std::fmin(std::fmax(v, static_cast<double>(e.lower)), static_cast<double>(e.upper));
    v *= static_cast<double>(e.sign);
    if (c.residual == EpilogueCase::kItself) v += static_cast<double>(e.residualSign) * y.at(i, j);
    if (c.residual == EpilogueCase::kOther) v += static_cast<double>(e.residualSign) * other.at(i, j);
    return v;
  }

  /** Empty where \a found agrees with the exact sums \a acc; else what is wrong.
   * \param error  how far a sum may be from its exact value */
  template <typename Sum, typename Error>
  std::string compare(const EpilogueCase& c, const Frame& found, const Sum& acc, const Error& error) const {
    const double u = roundoffOf(y.scalar()), alpha = std::abs(static_cast<double>(c.epilogue.alpha));
    const internal::DenseView shape = y.device();
    Index wrong = 0;
    std::string first;
    for (Index i = 0; i < shape.rows; ++i) {
      for (Index j = 0; j < shape.cols; ++j) {
        const double expected = exact(c, acc(i, j), i, j), f = y.at(found, i, j);
        // Slopes of activations are at most 1.13; the epilogue's few float operations are on values of this size.
        const double size = alpha * std::abs(acc(i, j)) + 8;
        const double bound = 1.2 * alpha * error(i, j) + 16 * unitRoundoff<float>() * size;
        if (std::abs(f - expected) <= bound + u * (std::abs(expected) + bound) + 0x1p-25) continue;
        if (wrong++ == 0)
          first = "(" + std::to_string(i) + ", " + std::to_string(j) + "): expected " + std::to_string(expected) +
                  ", found " + std::to_string(f) + ", bound " + std::to_string(bound);
      }
    }
    if (wrong > 0) return std::to_string(wrong) + " entries are wrong, the first is " + first;
    return found.sameOutside(y.frame()) ? "" : "something is written outside of the result";
  }

 private:
  static internal::Epilogue with(const EpilogueCase& c, const internal::DenseView& result,
                                 const internal::DenseView& bias, const internal::DenseView& other) {
    internal::Epilogue e = c.epilogue;
    e.bias = bias.data;
    e.biasStride = bias.colStride;
    if (c.residual == EpilogueCase::kItself) e.residual = constant(result);
    if (c.residual == EpilogueCase::kOther) e.residual = constant(other);
    return e;
  }
};

}  // namespace test
}  // namespace EigenQ

#endif  // EIGENQ_TEST_CUDA_OPERAND_H
