// SPDX-License-Identifier: MPL-2.0
// dequantize_blockwise.cu: values of 8-bit codes.
//
//   codes of a lane: 8 B │ levels, 1 KB in shared memory │ one absmax for the eight → 8 values, stored at once
//
// Traffic  1 B a code in, 2 or 4 B a value out, 4/blockSize B of absmax.
// Shape    a run is written eight values a lane; any other view tile by tile through shared memory, along the dimension
//          in which it lies contiguous.
#include <eigen_q/src/FourBit.h>

#include <cassert>

#include "byte_levels.cuh"
#include "eight_values.cuh"
#include "op_launch.cuh"
#include "quantizers.h"
#include "row_panels.h"
#include "tile_walk.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

static_assert(kTileThreads == kLevelThreads, "both kernels fill the table with a thread for each level");

struct CodedValues {
  const std::uint8_t* codes;
  const float* codeTable;
  AbsmaxView absmax;
  int blockShift;

  __device__ __forceinline__ float operator()(const float* level, Index i) const {
    return level[codes[i]] * absmax(i >> blockShift);
  }
};

__device__ __forceinline__ void loadLevels(const float* codeTable, float* level) {
  level[threadIdx.x] = codeTable[threadIdx.x];
  __syncthreads();
}

template <typename T>
__global__ void __launch_bounds__(kLevelThreads)
    dequantizeRun(const CodedValues coded, Index size, T* out, bool alignedCodes, bool alignedOut) {
  __shared__ float level[kByteLevels];
  loadLevels(coded.codeTable, level);
  const Index step = static_cast<Index>(gridDim.x) * kLevelThreads * kEight;
  for (Index i = (static_cast<Index>(blockIdx.x) * kLevelThreads + threadIdx.x) * kEight; i < size; i += step) {
    const std::uint64_t codes = loadCodes(coded.codes + i, size - i, alignedCodes);
    const float absmax = coded.absmax(i >> coded.blockShift);
    float f[kEight];
#pragma unroll
    for (int k = 0; k < kEight; ++k) f[k] = level[codes >> (8 * k) & 0xff] * absmax;
    EightValues<T> values;
    fromFloats(f, values);
    storeEight(values, out + i, size - i, alignedOut);
  }
}

template <typename T>
__global__ void __launch_bounds__(kTileThreads)
    dequantizeTiles(const CodedValues coded, const DenseView out, bool down) {
  __shared__ float level[kByteLevels];
  loadLevels(coded.codeTable, level);
  T* const data = static_cast<T*>(out.data);
  walkTiles<T>(
      out.rows, out.cols, false, [&](Index i, Index j) { return fromFloat<T>(coded(level, i * out.cols + j)); }, down,
      [&](Index i, Index j, T v) { data[i * out.rowStride + j * out.colStride] = v; });
}

constexpr Index kResidents = 8;  // thread blocks a multiprocessor holds of dequantizeRun

}  // namespace

void dequantizeBlockwise(const std::uint8_t* codes, const float* codeTable, const AbsmaxView& absmax, Index blockSize,
                         const DenseView& out, Context& context) {
  assert(EigenQ::internal::isBlockSize(blockSize));
  const Index size = out.rows * out.cols;
  if (size == 0) return;
  const CodedValues coded{codes, codeTable, absmax, EigenQ::internal::blockShift(blockSize)};
  dispatchDeviceScalar(out.scalar, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (!isRowMajorRun(out))
      return launch("dequantizeTiles", dequantizeTiles<T>, {tileGrid(out.rows, out.cols), kTileThreads}, context, coded,
                    out, liesAlongColumns(out.rowStride, out.colStride));
    const Index blocks = std::min((size + kLevelThreads * kEight - 1) / (kLevelThreads * kEight),
                                  kResidents * context.multiprocessors());
    launch("dequantizeRun", dequantizeRun<T>, {static_cast<unsigned>(blocks), kLevelThreads}, context, coded, size,
           static_cast<T*>(out.data), isAligned(codes, 8), isAligned(out.data, 16));
  });
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
