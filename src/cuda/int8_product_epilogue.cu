// SPDX-License-Identifier: MPL-2.0
// int8_product_epilogue.cu: Y's window = epilogue(sum·(row stat·absmax/127²) + outliers), one pass over int32 sums.
//
//   sums   line 0  │ s s s s s s s s │ s …      a line is a row of Y, or a column of it where Y is column-major;
//          line 1  │ …               │          a thread takes kWidth neighbours in each of kLines lines
//                    one 16-byte store of Y
//
// Traffic  4 B of sums, which lie in the second-level cache, and 2 or 4 B of Y a value.
// Work     3 operations in double a value, and one conversion: H100 and A100 have half the rate of float for them.
//          Each outlier column adds one fmaf a value; its operands are dense copies, kLines + kWidth loads of them for
//          kLines·kWidth values.
// Needs    nothing: other strides of Y cost scattered stores.
#include <limits>

#include "epilogue.cuh"
#include "int8_kernels.h"
#include "int8_scale.cuh"
#include "op_launch.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kLines = 4;

/** Lines and positions on them stand for rows and columns of Y, or the other way round. */
struct ScaleSumsArgs {
  DeviceDecomposedProduct p;
  SumWindow window;
  GatheredOutliers outliers;
  Index linesOfTiles;  // tiles from one line of tiles to the next
  bool vectorStores;
};

template <typename T>
constexpr int kWidth = 16 / static_cast<int>(sizeof(T));

/** Where a thread's values lie within the window. */
struct Patch {
  Index line;
  Index at;
};

template <bool kColMajor>
__device__ __forceinline__ Index rowOf(const SumWindow& w, Index line, Index at) {
  return w.row + (kColMajor ? at : line);
}
template <bool kColMajor>
__device__ __forceinline__ Index colOf(const SumWindow& w, Index line, Index at) {
  return w.col + (kColMajor ? line : at);
}

/** acc += the gathered outlier columns. Copies have room behind the last value, so that reading past the window's
 * edge stays inside them; what is read there is not used. */
template <bool kColMajor, int kW>
__device__ __forceinline__ void addGathered(const ScaleSumsArgs& a, const Patch& patch, int lines, int count,
                                            float (&acc)[kLines][kW]) {
  const float* along = kColMajor ? a.outliers.x + a.window.row : a.outliers.w + a.window.col;
  const float* across = kColMajor ? a.outliers.w + a.window.col : a.outliers.x + a.window.row;
  const Index alongStride = kColMajor ? a.outliers.xStride : a.outliers.wStride;
  const Index acrossStride = kColMajor ? a.outliers.wStride : a.outliers.xStride;
  along += patch.at;
  across += patch.line;
#pragma unroll 2
  for (int o = 0; o < count; ++o, along += alongStride, across += acrossStride) {
    float v[kW];
#pragma unroll
    for (int i = 0; i < kW; i += 4) *reinterpret_cast<float4*>(v + i) = *reinterpret_cast<const float4*>(along + i);
#pragma unroll
    for (int l = 0; l < kLines; ++l) {
      const float u = l < lines ? across[l] : 0.0f;
#pragma unroll
      for (int i = 0; i < kW; ++i) acc[l][i] = fmaf(u, v[i], acc[l][i]);
    }
  }
}

/** acc += the outlier columns that were not gathered. */
template <bool kColMajor, int kW>
__device__ __forceinline__ void addOthers(const ScaleSumsArgs& a, const Patch& patch, int lines, int width, int count,
                                          float (&acc)[kLines][kW]) {
  const auto value = [&](bool ofX, Index at, Index k) {
    return ofX ? readFloat(a.p.x, a.window.row + at, k) : outlierWeight(a.p, a.window.col + at, k);
  };
  for (int o = static_cast<int>(kGatheredOutliers); o < count; ++o) {
    const Index k = a.p.activations.outliers[o];
    float v[kW];
#pragma unroll
    for (int i = 0; i < kW; ++i) v[i] = i < width ? value(kColMajor, patch.at + i, k) : 0.0f;
#pragma unroll
    for (int l = 0; l < kLines; ++l) {
      const float u = l < lines ? value(!kColMajor, patch.line + l, k) : 0.0f;
#pragma unroll
      for (int i = 0; i < kW; ++i) acc[l][i] = fmaf(u, v[i], acc[l][i]);
    }
  }
}

template <typename T, bool kColMajor>
__device__ __forceinline__ void scaleLine(const ScaleSumsArgs& a, Index line, Index at, int width,
                                          const float (&outliers)[kWidth<T>]) {
  constexpr int kW = kWidth<T>;
  std::int32_t sums[kW];
  const std::int32_t* const from = a.window.sums + line * a.window.stride + at;
#pragma unroll
  for (int i = 0; i < kW; i += 4) *reinterpret_cast<int4*>(sums + i) = __ldg(reinterpret_cast<const int4*>(from + i));

  alignas(16) T results[kW];
#pragma unroll
  for (int i = 0; i < kW; ++i) {
    if (i >= width) break;
    const Index row = rowOf<kColMajor>(a.window, line, at + i), col = colOf<kColMajor>(a.window, line, at + i);
    const float v =
        scaledSum(exactDouble(sums[i]), rowScale(a.p.activations.rowStats[row]), a.p.w.rowAbsmax[col], outliers[i]);
    results[i] = fromFloat<T>(applyEpilogue<T>(a.p.epilogue, v, row, col));
  }

  const DenseView& y = a.p.y;
  const Index step = kColMajor ? y.rowStride : y.colStride;
  T* const to = static_cast<T*>(y.data) + rowOf<kColMajor>(a.window, line, at) * y.rowStride +
                colOf<kColMajor>(a.window, line, at) * y.colStride;
  if (a.vectorStores && width == kW) {
    *reinterpret_cast<int4*>(to) = *reinterpret_cast<const int4*>(results);
    return;
  }
#pragma unroll
  for (int i = 0; i < kW; ++i) {
    if (i < width) to[i * step] = results[i];
  }
}

template <typename T, bool kColMajor>
__global__ void __launch_bounds__(kThreads) scaleSumsKernel(const __grid_constant__ ScaleSumsArgs a) {
  constexpr int kW = kWidth<T>;
  const Index lines = kColMajor ? a.window.cols : a.window.rows, length = kColMajor ? a.window.rows : a.window.cols;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const Index tile = blockIdx.x;
  const Patch patch = {(tile / a.linesOfTiles * kWarps + warp) * kLines, (tile % a.linesOfTiles * 32 + lane) * kW};
  if (patch.line >= lines || patch.at >= length) return;
  const int myLines = static_cast<int>(lines - patch.line < kLines ? lines - patch.line : kLines);
  const int width = static_cast<int>(length - patch.at < kW ? length - patch.at : kW);

  float outliers[kLines][kW] = {};
  if (const int count = outlierCount(a.p.activations)) {
    const int gathered = count < kGatheredOutliers ? count : static_cast<int>(kGatheredOutliers);
    addGathered<kColMajor, kW>(a, patch, myLines, gathered, outliers);
    addOthers<kColMajor, kW>(a, patch, myLines, width, count, outliers);
  }
#pragma unroll
  for (int l = 0; l < kLines; ++l) {
    if (l < myLines) scaleLine<T, kColMajor>(a, patch.line + l, patch.at, width, outliers[l]);
  }
}

/** Whether every kWidth values from a multiple of kWidth on can be stored at once. */
template <typename T>
bool takesVectorStores(const DenseView& y, const SumWindow& w) {
  const Index lineStride = w.colMajor ? y.colStride : y.rowStride, step = w.colMajor ? y.rowStride : y.colStride;
  const Index first = w.row * y.rowStride + w.col * y.colStride;
  return step == 1 && lineStride % kWidth<T> == 0 && first % kWidth<T> == 0 && isAligned(y.data, 16);
}

template <typename T, bool kColMajor>
void launchAs(const DeviceDecomposedProduct& p, const SumWindow& w, const GatheredOutliers& outliers,
              Context& context) {
  const Index lines = w.colMajor ? w.cols : w.rows, length = w.colMajor ? w.rows : w.cols;
  const Index across = (length + 32 * kWidth<T> - 1) / (32 * kWidth<T>);
  const Index down = (lines + kWarps * kLines - 1) / (kWarps * kLines);
  const ScaleSumsArgs args = {p, w, outliers, across, takesVectorStores<T>(p.y, w)};
  launch("int8 epilogue", scaleSumsKernel<T, kColMajor>, {static_cast<unsigned>(across * down), kThreads}, context,
         args);
}

}  // namespace

void scaleSums(const DeviceDecomposedProduct& p, const SumWindow& window, const GatheredOutliers& outliers,
               Context& context) {
  const DeviceGuard guard(context.device());
  dispatchDeviceScalar(p.y.scalar, [&](auto tag) {
    using T = typename decltype(tag)::type;
    window.colMajor ? launchAs<T, true>(p, window, outliers, context)
                    : launchAs<T, false>(p, window, outliers, context);
  });
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
