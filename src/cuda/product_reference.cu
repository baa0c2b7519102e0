// SPDX-License-Identifier: MPL-2.0
// product_reference.cu: the readable truth on the device. A thread computes one output after the other, in double sums
// with one rounding at the end, as src/cpu/product_reference.cpp does. Nothing here is meant to be fast: it answers for
// what no other kernel takes, and tests hold the others against it.
#include "product_reference.h"

#include <eigen_q/src/BlockScale.h>
#include <eigen_q/src/Int8Codec.h>
#include <eigen_q/src/ScalarConvert.h>

#include <algorithm>
#include <initializer_list>

#include "op_launch.cuh"
#include "scalar.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

using EigenQ::internal::BiasAxis;

constexpr int kThreads = 256;
constexpr Index kMostBlocks = 65535;

__device__ double readScalar(const void* data, ScalarType scalar, Index offset) {
  if (scalar == ScalarType::kFloat) return static_cast<double>(static_cast<const float*>(data)[offset]);
  const std::uint16_t bits = static_cast<const std::uint16_t*>(data)[offset];
  const bool half = scalar == ScalarType::kHalf;
  return static_cast<double>(half ? EigenQ::internal::halfToFloat(bits) : EigenQ::internal::bfloat16ToFloat(bits));
}

__device__ void writeScalar(void* data, ScalarType scalar, Index offset, double v) {
  if (scalar == ScalarType::kFloat) {
    static_cast<float*>(data)[offset] = static_cast<float>(v);
  } else {
    const bool half = scalar == ScalarType::kHalf;
    static_cast<std::uint16_t*>(data)[offset] =
        half ? EigenQ::internal::doubleToHalf(v) : EigenQ::internal::doubleToBFloat16(v);
  }
}

__device__ double at(const ConstDenseView& m, Index i, Index j) {
  return readScalar(m.data, m.scalar, i * m.rowStride + j * m.colStride);
}

__device__ double activateDouble(Activation activation, double v) {
  switch (activation) {
    case Activation::kRelu:
      return v < 0 ? 0 : v;
    case Activation::kGelu:
      return 0.5 * v * erfc(v * -0.70710678118654752440);
    case Activation::kSilu:
      return v / (1 + exp(-v));
    case Activation::kTanh:
      return tanh(v);
    case Activation::kNone:
      break;
  }
  return v;
}

__device__ void finish(const DenseView& y, const Epilogue& e, double acc, Index i, Index j) {
  double v = static_cast<double>(e.alpha) * acc;
  if (e.biasAxis != BiasAxis::kNone)
    v += readScalar(e.bias, y.scalar, (e.biasAxis == BiasAxis::kPerRow ? i : j) * e.biasStride);
  v = activateDouble(e.activation, v);
  if (v < static_cast<double>(e.lower)) v = static_cast<double>(e.lower);
  if (v > static_cast<double>(e.upper)) v = static_cast<double>(e.upper);
  v *= static_cast<double>(e.sign);
  if (e.residual.data) v += static_cast<double>(e.residualSign) * at(e.residual, i, j);
  writeScalar(y.data, y.scalar, i * y.rowStride + j * y.colStride, v);
}

/** The sums of a product: what differs between the kinds of them. */
struct DenseSum {
  ConstDenseView a, b;
  __device__ double operator()(Index i, Index j) const {
    double sum = 0;
    for (Index k = 0; k < a.cols; ++k) sum += at(a, i, k) * at(b, k, j);
    return sum;
  }
};

struct QuantizedSum {
  ConstDenseView x;
  WeightView w;
  bool transposed;
  __device__ double operator()(Index i, Index j) const {
    double sum = 0;
    for (Index k = 0; k < x.cols; ++k)
      sum += at(x, i, k) * static_cast<double>(transposed ? w.coeff(j, k) : w.coeff(k, j));
    return sum;
  }
};

/** X̂·Ŵᵀ by codes but for the outlier columns of X, which are multiplied as they are. */
struct DecomposedSum {
  ConstDenseView x;
  WeightView w;
  const std::int8_t* codes;  // of x, row-major; 0 in outlier columns
  const float* rowStats;
  const std::uint8_t* isOutlier;  // a column of x each

  __device__ double operator()(Index i, Index j) const {
    const std::int8_t* const weights = static_cast<const std::int8_t*>(w.codes) + w.offset + j * w.stride;
    long long sum = 0;
    double outliers = 0;
    for (Index k = 0; k < x.cols; ++k) {
      sum += codes[i * x.cols + k] * weights[k];
      if (isOutlier[k]) outliers += at(x, i, k) * static_cast<double>(w.coeff(j, k));
    }
    const double rowScale = static_cast<double>(rowStats[i]) / (127.0 * 127.0);
    return static_cast<double>(sum) * (rowScale * static_cast<double>(w.rowAbsmax[j])) + outliers;
  }
};

template <typename Sum>
__global__ void __launch_bounds__(kThreads) productKernel(Sum sum, DenseView y, Epilogue e) {
  const Index step = static_cast<Index>(gridDim.x) * kThreads;
  for (Index t = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x; t < y.rows * y.cols; t += step) {
    const Index i = t / y.cols, j = t % y.cols;
    finish(y, e, sum(i, j), i, j);
  }
}

/** A column of X a thread. */
__global__ void __launch_bounds__(kThreads)
    findOutliersKernel(ConstDenseView x, float threshold, std::uint8_t* isOutlier) {
  const Index step = static_cast<Index>(gridDim.x) * kThreads;
  for (Index k = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x; k < x.cols; k += step) {
    bool found = false;
    for (Index i = 0; threshold > 0 && i < x.rows; ++i) found = found || fabs(at(x, i, k)) >= threshold;
    isOutlier[k] = found;
  }
}

/** A row of X a thread: its absmax but for outliers (NaN where the row holds one, so that its products show it), then
 * its codes. */
__global__ void __launch_bounds__(kThreads)
    quantizeRowsKernel(ConstDenseView x, float threshold, const std::uint8_t* isOutlier, std::int8_t* codes,
                       float* rowStats) {
  const Index step = static_cast<Index>(gridDim.x) * kThreads;
  for (Index i = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x; i < x.rows; i += step) {
    std::int32_t largest = 0;
    bool holdsNaN = false;
    for (Index k = 0; k < x.cols; ++k) {
      const float v = static_cast<float>(at(x, i, k));
      const bool counts = !(threshold > 0 && fabsf(v) >= threshold);
      largest = max(largest, counts ? EigenQ::internal::magnitudeBits(v) : 0);
      holdsNaN = holdsNaN || isnan(v);
    }
    const float absmax = EigenQ::internal::floatOf(static_cast<std::uint32_t>(largest));
    const float scale = EigenQ::internal::int8Scale(absmax);
    for (Index k = 0; k < x.cols; ++k) {
      const std::int8_t code = EigenQ::internal::encodeInt8(static_cast<float>(at(x, i, k)), scale);
      codes[i * x.cols + k] = isOutlier[k] ? 0 : code;
    }
    rowStats[i] = holdsNaN ? nanf("") : absmax;
  }
}

unsigned blocksFor(Index items) {
  return static_cast<unsigned>(std::clamp<Index>((items + kThreads - 1) / kThreads, 1, kMostBlocks));
}

template <typename Sum>
void launchProduct(const Sum& sum, const DenseView& y, const Epilogue& e, Context& context) {
  launch("reference product", productKernel<Sum>, {blocksFor(y.rows * y.cols), kThreads}, context, sum, y, e);
}

void runDecomposed(const QuantizedProduct& p, Context& context) {
  Scratch scratch(context);
  std::int8_t* const codes = scratch.array<std::int8_t>(p.x.rows * p.x.cols);
  float* const rowStats = scratch.array<float>(p.x.rows);
  std::uint8_t* const isOutlier = scratch.array<std::uint8_t>(p.x.cols);
  const float threshold = p.w.outlierThreshold;
  launch("reference search for outliers", findOutliersKernel, {blocksFor(p.x.cols), kThreads}, context, p.x, threshold,
         isOutlier);
  launch("reference quantiser of rows", quantizeRowsKernel, {blocksFor(p.x.rows), kThreads}, context, p.x, threshold,
         isOutlier, codes, rowStats);
  launchProduct(DecomposedSum{p.x, p.w, codes, rowStats, isOutlier}, p.y, p.epilogue, context);
}

void requireDeviceScalars(std::initializer_list<ScalarType> scalars) {
  for (const ScalarType scalar : scalars) dispatchDeviceScalar(scalar, [](auto) {});
}

}  // namespace

void runReference(const QuantizedProduct& p, Context& context) {
  requireDeviceScalars({p.x.scalar, p.y.scalar});
  if (p.y.rows == 0 || p.y.cols == 0) return;
  const DeviceGuard guard(context.device());
  if (p.w.int8Activations && p.transposed) return runDecomposed(p, context);
  launchProduct(QuantizedSum{p.x, p.w, p.transposed}, p.y, p.epilogue, context);
}

void runReference(const DenseProduct& p, Context& context) {
  requireDeviceScalars({p.a.scalar, p.b.scalar, p.y.scalar});
  if (p.y.rows == 0 || p.y.cols == 0) return;
  const DeviceGuard guard(context.device());
  launchProduct(DenseSum{p.a, p.b}, p.y, p.epilogue, context);
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
