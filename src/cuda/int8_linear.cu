// SPDX-License-Identifier: MPL-2.0
// int8_linear.cu: the passes of an int8 linear layer, from the quantisers and products of this folder, and what only
// they need: rows that drop out of a product, and the weight gradient of outlier columns.
//
//   dW(:, k) (+)= Gᵀ·X(:, k)    a thread an output, that walks along the tokens; a row of thread blocks a column. How
//                               many columns there are is known to the device only: the grid has room for
//                               kColumnsAtOnce, and each walks on by as many.
//
// Traffic  G once a column: outliers are few (a handful in thousands of features), so this vanishes beside the product.
#include <eigen_q/src/gpu/Int8LinearKernels.h>

#include <algorithm>
#include <cassert>

#include "int8_kernels.h"
#include "int8_scale.cuh"
#include "op_launch.cuh"
#include "outliers.h"
#include "scalar.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

constexpr unsigned kThreads = 256;
constexpr unsigned kColumnsAtOnce = 64;

DeviceOutliers deviceOutliers(const OutlierMemory& m) { return {m.mask, m.columns, m.count}; }

__global__ void __launch_bounds__(kThreads)
    clearListedRows(std::int8_t* codes, Index stride, float* stats, const OutlierList rows) {
  const int count = *rows.count;
  for (int at = static_cast<int>(blockIdx.x); at < count; at += static_cast<int>(gridDim.x)) {
    const Index row = rows.columns[at];
    for (Index k = threadIdx.x; k < stride; k += kThreads) codes[row * stride + k] = 0;
    if (threadIdx.x == 0) stats[row] = 0;
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    sumOutlierColumns(const ConstDenseView g, const ConstDenseView x, const OutlierList outliers, const DenseView dw,
                      bool accumulate) {
  const Index j = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
  if (j >= dw.rows) return;
  const int count = *outliers.count;
  for (int at = static_cast<int>(blockIdx.y); at < count; at += static_cast<int>(gridDim.y)) {
    const Index k = outliers.columns[at];
    T& target = static_cast<T*>(dw.data)[j * dw.rowStride + k * dw.colStride];
    double sum = 0;
#pragma unroll 4
    for (Index t = 0; t < x.rows; ++t)
      sum += static_cast<double>(readFloat(g, t, j)) * static_cast<double>(readFloat(x, t, k));
    if (accumulate) sum += static_cast<double>(toFloat(target));
    target = fromFloat<T>(static_cast<float>(sum));
  }
}

/** Rows of nothing have no codes, and the quantiser's threads are dealt out by codes. */
void quantizeWithoutGaps(const ConstDenseView& x, float threshold, bool markNaN, std::int8_t* codes, float* rowStats,
                         const OutlierMemory& outliers, Context& context) {
  if (x.rows > 0 && x.cols == 0) {
    const DeviceGuard guard(context.device());
    EIGENQ_CUDA_CHECK(
        cudaMemsetAsync(rowStats, 0, static_cast<std::size_t>(x.rows) * sizeof *rowStats, context.stream()));
  }
  if (x.cols == 0) return;
  quantizeInt8Rows(x, threshold, markNaN, {codes, x.cols}, rowStats, deviceOutliers(outliers), context);
}

}  // namespace

struct QuantizedActivations::State {
  Context& context;
  Scratch scratch;
  ConstDenseView x;
  Int8Codes codes;
  float* rowStats = nullptr;
  OutlierMemory outliers;

  explicit State(Context& c) : context(c), scratch(c) {}
};

QuantizedActivations::QuantizedActivations(const ConstDenseView& x, float threshold, const OutlierMemory& outliers,
                                           Context& context)
    : m_state(std::make_unique<State>(context)) {
  State& s = *m_state;
  s.x = x;
  s.outliers = outliers;
  s.codes = newCodes(x, s.scratch);
  s.rowStats = s.scratch.array<float>(x.rows);
  assert(!(threshold > 0) || outliers.mask);
  if (!(threshold > 0) && outliers.mask) clearOutliers(deviceOutliers(outliers), x.cols, context);
  quantizeInt8Rows(x, threshold, /*markNaN=*/true, s.codes, s.rowStats, deviceOutliers(outliers), context);
}

QuantizedActivations::~QuantizedActivations() = default;

void QuantizedActivations::addOutliers(const int* columns, Index count) {
  const State& s = *m_state;
  assert(s.outliers.mask);
  internal::addOutliers(columns, count, s.x.rows, s.x.cols, s.codes, deviceOutliers(s.outliers), s.context);
}

void QuantizedActivations::clearRows(const OutlierList& rows) {
  const State& s = *m_state;
  if (!rows.count || s.x.rows == 0) return;
  launch("clearListedRows", clearListedRows, {kColumnsAtOnce, kThreads}, s.context, s.codes.data, s.codes.stride,
         s.rowStats, rows);
}

WeightView QuantizedActivations::asWeight() const {
  const State& s = *m_state;
  return WeightView::int8(s.codes.data, s.x.rows, s.codes.stride, s.codes.stride, s.rowStats);
}

void QuantizedActivations::multiply(const WeightView& w, const ConstDenseView& outlierWeights, const DenseView& y,
                                    const Epilogue& epilogue) const {
  const State& s = *m_state;
  const DeviceGuard guard(s.context.device());
  DeviceDecomposedProduct p;
  p.activations = {s.codes.data, s.codes.stride, s.rowStats, s.outliers.columns, s.outliers.count};
  p.x = s.x;
  p.w = w;
  p.outlierWeights = outlierWeights;
  p.y = y;
  p.epilogue = epilogue;
  if (w.cols == 0) return runDecomposedReference(p, s.context);  // a sum of nothing; there may be no codes at all
  multiplyDecomposed(p, s.context);
}

void quantizeWeight(const ConstDenseView& w, std::int8_t* codes, float* rowStats, Context& context) {
  quantizeWithoutGaps(w, 0, /*markNaN=*/true, codes, rowStats, {}, context);
}

void quantizeRows(const ConstDenseView& x, float threshold, std::int8_t* codes, float* rowStats,
                  const OutlierMemory& outliers, Context& context) {
  quantizeWithoutGaps(x, threshold, /*markNaN=*/false, codes, rowStats, outliers, context);
}

void quantizeCols(const ConstDenseView& x, float threshold, std::int8_t* codes, float* colStats,
                  const OutlierMemory& outliers, Context& context) {
  if (x.cols == 0) return;
  quantizeInt8Cols(x, threshold, {codes, x.cols}, colStats, deviceOutliers(outliers), context);
}

void outlierGradient(const ConstDenseView& g, const ConstDenseView& x, const OutlierList& outliers, const DenseView& dw,
                     bool accumulate, Context& context) {
  if (!outliers.count || dw.rows == 0 || dw.cols == 0) return;
  const dim3 grid(static_cast<unsigned>(ceilDiv(dw.rows, kThreads)), kColumnsAtOnce);
  dispatchDeviceScalar(dw.scalar, [&](auto tag) {
    launch("sumOutlierColumns", sumOutlierColumns<typename decltype(tag)::type>, {grid, kThreads}, context, g, x,
           outliers, dw, accumulate);
  });
}

void multiply(const QuantizedProduct& product, Context& context) { lower(product, context); }

void multiply(const ConstDenseView& a, const ConstDenseView& b, const DenseView& y, Context& context) {
  lower(DenseProduct{a, b, y, Epilogue()}, context);
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
