// SPDX-License-Identifier: MPL-2.0
// quantize_int8_cols.cu: column-wise int8.
//
//             │ 8 columns a lane, 256 a warp │        strip: 64 rows, dealt out to the 8 warps of a thread block
//   strip 0   │ maxima in registers → shared memory → one atomic maximum a column │
//   strip 1   │ …                                                                  │
//
//   then the codes, of the same strips, with each lane's 8 scales in registers.
//
// Traffic  values are read twice, from L2 the second time where they fit; codes are written once.
// Shape    the maximum is one of the values, whatever the order of the atomics: the bits of magnitudes order as
//          integers do, so an integer maximum makes it.
// Needs    as quantize_int8.cu.
#include <eigen_q/src/Int8Codec.h>

#include <cassert>

#include "int8_codes.cuh"
#include "op_launch.cuh"
#include "outliers.h"
#include "quantizers.h"
#include "row_panels.h"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

constexpr int kColWarps = 8, kStripRows = 64, kStripCols = 32 * kEight;
constexpr unsigned kColThreads = kColWarps * 32;
static_assert(kColThreads == kStripCols, "a thread for each column of a strip");

template <typename T>
struct ColsProblem {
  const T* values;
  Index rows, cols, rowStride;
  Int8Codes codes;
  float* absmax;
  float threshold;  // infinite where there are no outliers to be found
  bool findsOutliers;
  std::uint8_t* outlierMask;
  bool alignedValues, alignedCodes;
};

template <typename T>
__device__ __forceinline__ EightValues<T> loadAt(const ColsProblem<T>& p, Index row, Index col) {
  return loadEight(p.values + row * p.rowStride + col, p.cols - col, p.alignedValues);
}

template <typename T>
__global__ void __launch_bounds__(kColThreads) findColumnAbsmax(const ColsProblem<T> p) {
  __shared__ float warpLargest[kColWarps][kStripCols];
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const Index firstCol = static_cast<Index>(blockIdx.x) * kStripCols, col = firstCol + lane * kEight;
  float largest[kEight] = {};
  for (Index strip = blockIdx.y; strip * kStripRows < p.rows; strip += gridDim.y) {
    const Index end = min(p.rows, (strip + 1) * kStripRows);
#pragma unroll 4
    for (Index row = strip * kStripRows + warp; row < end; row += kColWarps) {
      float f[kEight];
      toFloats(loadAt(p, row, col), f);
#pragma unroll
      for (int k = 0; k < kEight; ++k) {
        const float magnitude = fabsf(f[k]);
        if (p.findsOutliers && magnitude >= p.threshold) {
          p.outlierMask[col + k] = 1;  // by any number of threads, the same value
        } else {
          largest[k] = fmaxf(largest[k], magnitude);
        }
      }
    }
  }
#pragma unroll
  for (int k = 0; k < kEight; ++k) warpLargest[warp][lane * kEight + k] = largest[k];
  __syncthreads();
  float all = 0;
  for (int w = 0; w < kColWarps; ++w) all = fmaxf(all, warpLargest[w][threadIdx.x]);
  all = flushedAbsmax(all);
  if (all > 0 && firstCol + threadIdx.x < p.cols)
    atomicMax(reinterpret_cast<int*>(p.absmax + firstCol + threadIdx.x), __float_as_int(all));
}

/** 0 in outlier columns: finite products are then 0 and others NaN, and the code of both is 0. */
template <typename T>
__device__ __forceinline__ float scaleOf(const ColsProblem<T>& p, Index col) {
  if (col >= p.cols || (p.findsOutliers && p.outlierMask[col])) return 0;
  return EigenQ::internal::int8Scale(p.absmax[col]);
}

template <typename T>
__global__ void __launch_bounds__(kColThreads) encodeColumns(const ColsProblem<T> p) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const Index col = static_cast<Index>(blockIdx.x) * kStripCols + lane * kEight;
  float scale[kEight];
#pragma unroll
  for (int k = 0; k < kEight; ++k) scale[k] = scaleOf(p, col + k);
  for (Index strip = blockIdx.y; strip * kStripRows < p.rows; strip += gridDim.y) {
    const Index end = min(p.rows, (strip + 1) * kStripRows);
#pragma unroll 4
    for (Index row = strip * kStripRows + warp; row < end; row += kColWarps) {
      std::uint8_t* const to = reinterpret_cast<std::uint8_t*>(p.codes.data) + row * p.codes.stride + col;
      storeCodes<8>(to, encodeEight(loadAt(p, row, col), scale), p.codes.stride - col, p.alignedCodes);
    }
  }
}

/** \param encode  false: statistics and outliers; true: codes from them */
void runPanel(const ConstDenseView& a, bool encode, float threshold, const Int8Codes& codes, float* colAbsmax,
              std::uint8_t* outlierMask, Context& context) {
  const Index strips = (a.rows + kStripRows - 1) / kStripRows;
  const Index width = encode ? codes.stride : a.cols;
  const dim3 grid(static_cast<unsigned>((width + kStripCols - 1) / kStripCols),
                  static_cast<unsigned>(std::min<Index>(strips, 65535)));
  dispatchDeviceScalar(a.scalar, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const ColsProblem<T> p{static_cast<const T*>(a.data),
                           a.rows,
                           a.cols,
                           a.rowStride,
                           codes,
                           colAbsmax,
                           threshold,
                           threshold > 0,
                           outlierMask,
                           hasAlignedRows(a),
                           hasAlignedRows(codes)};
    if (encode) {
      launch("encodeColumns", encodeColumns<T>, {grid, kColThreads}, context, p);
    } else {
      launch("findColumnAbsmax", findColumnAbsmax<T>, {grid, kColThreads}, context, p);
    }
  });
}

}  // namespace

void quantizeInt8Cols(const ConstDenseView& a, float threshold, const Int8Codes& codes, float* colAbsmax,
                      const DeviceOutliers& outliers, Context& context) {
  assert(codes.stride >= a.cols);
  const DeviceGuard guard(context.device());
  if (a.cols > 0)
    EIGENQ_CUDA_CHECK(
        cudaMemsetAsync(colAbsmax, 0, static_cast<std::size_t>(a.cols) * sizeof(float), context.stream()));
  if (threshold > 0) clearOutliers(outliers, a.cols, context);
  if (a.rows == 0 || codes.stride == 0) return;
  for (const bool encode : {false, true}) {
    if (!encode && a.cols == 0) continue;
    const auto run = [&](const ConstDenseView& panel, Index row) {
      runPanel(panel, encode, threshold, {codes.data + row * codes.stride, codes.stride}, colAbsmax, outliers.mask,
               context);
    };
    if (a.cols == 0 || hasContiguousRows(a)) {
      run(a, 0);
    } else {
      forEachCopiedPanel(a, 1, context, run);
    }
  }
  if (threshold > 0 && a.cols > 0) listOutliers(a.cols, outliers, context);
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
