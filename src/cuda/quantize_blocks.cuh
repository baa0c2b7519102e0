// SPDX-License-Identifier: MPL-2.0
// quantize_blocks.cuh: blockwise quantisation of a contiguous run, for any encoder of eight values.
//
//   run │ tile of a thread block: 8192 values │ …        a warp owns 1024 of them, a lane 4 vectors of 8:
//
//         vector 0: lane 0: v0 … v7 │ lane 1 │ … │ lane 31      256 values, one coalesced load
//         vector 1: …                                           a block of 32 to 256 values is 4 to 32 lanes of a
//         vector 2: …                                           vector; one of 512 or 1024 is 2 or 4 vectors; one of
//         vector 3: …                                           2048 or 4096 is 2 or 4 warps
//
//   load → |·| maximum: lane, vector, warp, neighbouring warps → 1/absmax → codes of a lane's 8 values → one store each
//
// Traffic  each value read once, each code and absmax written once: from 16-bit values to 4 bits 2.56 B a value, so
//          4096² take 10 us at 4.3 TB/s.
// Work     instructions a value: 1 to unpack, 1 for absmax, ~1.5 for reductions and reciprocals, and the encoder's.
// Shape    persistent blocks, since an encoder may fill tables. Four loads of 16 B a lane are in flight.
// Needs    16-byte-aligned values and codes as aligned as their stores; else both go one by one.
#ifndef EIGENQ_CUDA_QUANTIZE_BLOCKS_CUH
#define EIGENQ_CUDA_QUANTIZE_BLOCKS_CUH

#include <eigen_q/src/BlockScale.h>
#include <eigen_q/src/FourBit.h>

#include <numeric>

#include "eight_values.cuh"
#include "op_launch.cuh"
#include "row_panels.h"

namespace EigenQ {
namespace gpu {
namespace internal {

constexpr unsigned kQuantizeThreads = 256;
constexpr int kQuantizeWarps = kQuantizeThreads / 32;
constexpr int kVectors = 4;
constexpr int kVectorValues = 32 * kEight;  // of a warp
constexpr int kWarpValues = kVectors * kVectorValues;
constexpr int kTileValues = kQuantizeWarps * kWarpValues;
constexpr int kVectorShift = 8, kWarpShift = 10;
static_assert(1 << kVectorShift == kVectorValues && 1 << kWarpShift == kWarpValues, "the drawing above");
static_assert(kTileValues % EigenQ::internal::kMaxBlockSize == 0, "a tile holds whole blocks");

/** Thread blocks a multiprocessor holds at once; __launch_bounds__ makes it so. Values wait in registers, and floats
 * need twice as many. */
template <typename T>
constexpr int kQuantizeResidents = sizeof(T) == 2 ? 4 : 3;

template <typename T>
struct BlockRun {
  const T* values;
  Index size;
  int blockShift;
  std::uint8_t* codes;
  float* absmax;
  bool alignedValues;
  bool alignedCodes;
};

/** largest[k], of a lane's vector k, becomes that of its block. \a warpLargest  shared */
__device__ __forceinline__ void reduceBlocks(float (&largest)[kVectors], int blockShift,
                                             float (&warpLargest)[kQuantizeWarps]) {
  static_assert(kVectors == 4, "two steps join four vectors");
  const int lanes = 1 << min(blockShift - 3, 5);
  for (int distance = 1; distance < lanes; distance *= 2) {
#pragma unroll
    for (int k = 0; k < kVectors; ++k)
      largest[k] = fmaxf(largest[k], __shfl_xor_sync(0xffffffffu, largest[k], distance));
  }
  if (blockShift > kVectorShift) {
    largest[0] = largest[1] = fmaxf(largest[0], largest[1]);
    largest[2] = largest[3] = fmaxf(largest[2], largest[3]);
  }
  if (blockShift > kVectorShift + 1) largest[0] = largest[1] = largest[2] = largest[3] = fmaxf(largest[0], largest[2]);
  if (blockShift > kWarpShift) {
    const int warp = static_cast<int>(threadIdx.x) / 32, warps = 1 << (blockShift - kWarpShift);
    if (threadIdx.x % 32 == 0) warpLargest[warp] = largest[0];
    __syncthreads();
    float all = 0;
    for (int w = warp & -warps, end = w + warps; w < end; ++w) all = fmaxf(all, warpLargest[w]);
    __syncthreads();  // the next tile writes warpLargest again
    largest[0] = largest[1] = largest[2] = largest[3] = all;
  }
}

/** \tparam Encoder  what quantize_blocks.cu and quantize_blockwise.cu define:
 *   Shared, fill(Shared&): tables, by all threads, ending with a barrier
 *   prepare(values, count): what happens to a lane's values before their absmax
 *   kBytes, encode(shared, floats, reciprocal): the codes of eight values
 *   needsFlush<T>(absmax): whether subnormal values of such a block could be told from zeros */
template <typename T, typename Encoder>
__global__ void __launch_bounds__(kQuantizeThreads, kQuantizeResidents<T>)
    quantizeBlocks(const BlockRun<T> run, const __grid_constant__ Encoder encoder) {
  __shared__ typename Encoder::Shared shared;
  __shared__ float warpLargest[kQuantizeWarps];
  encoder.fill(shared);
  const Index lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const Index blockMask = (Index{1} << run.blockShift) - 1;
  for (Index tile = static_cast<Index>(blockIdx.x) * kTileValues; tile < run.size;
       tile += static_cast<Index>(gridDim.x) * kTileValues) {
    const Index begin = tile + warp * kWarpValues + lane * kEight;
    EightValues<T> values[kVectors];
    float largest[kVectors];
#pragma unroll
    for (int k = 0; k < kVectors; ++k) {
      const Index at = begin + k * kVectorValues;
      values[k] = loadEight(run.values + at, run.size - at, run.alignedValues);
    }
#pragma unroll
    for (int k = 0; k < kVectors; ++k) {
      encoder.prepare(values[k], run.size - (begin + k * kVectorValues));
      largest[k] = absmaxOf(values[k]);
    }
    reduceBlocks(largest, run.blockShift, warpLargest);
#pragma unroll
    for (int k = 0; k < kVectors; ++k) {
      const Index at = begin + k * kVectorValues;
      if (at >= run.size) break;
      const float absmax = flushedAbsmax(largest[k]);
      if ((at & blockMask) == 0) run.absmax[at >> run.blockShift] = absmax;
      float f[kEight];
      toFloats(values[k], f);
      if (Encoder::template needsFlush<T>(absmax)) {
#pragma unroll
        for (int e = 0; e < kEight; ++e) f[e] = fabsf(f[e]) < FLT_MIN ? 0.0f : f[e];
      }
      const std::uint64_t codes = encoder.encode(shared, f, EigenQ::internal::blockReciprocal(absmax));
      constexpr int perByte = kEight / Encoder::kBytes;
      storeCodes<Encoder::kBytes>(run.codes + at / perByte, codes, (run.size - at + perByte - 1) / perByte,
                                  run.alignedCodes);
    }
  }
}

template <typename T, typename Encoder>
void launchQuantizeBlocks(const BlockRun<T>& run, const Encoder& encoder, Context& context) {
  const Index tiles = (run.size + kTileValues - 1) / kTileValues;
  const Index residents = static_cast<Index>(context.multiprocessors()) * kQuantizeResidents<T>;
  launch("quantizeBlocks", quantizeBlocks<T, Encoder>,
         {static_cast<unsigned>(std::min(tiles, residents)), kQuantizeThreads}, context, run, encoder);
}

/** Quantises any view; blocks run along its row-major flattening. */
template <typename Encoder>
void quantizeView(const ConstDenseView& a, const Encoder& encoder, Index blockSize, std::uint8_t* codes, float* absmax,
                  Context& context) {
  if (a.rows == 0 || a.cols == 0) return;
  const auto quantizeRun = [&](const ConstDenseView& panel, Index row) {
    const Index begin = row * a.cols;  // a multiple of the block size
    dispatchDeviceScalar(a.scalar, [&](auto tag) {
      using T = typename decltype(tag)::type;
      std::uint8_t* const to = codes + begin * Encoder::kBytes / kEight;
      launchQuantizeBlocks<T>(
          {static_cast<const T*>(panel.data), panel.rows * panel.cols, EigenQ::internal::blockShift(blockSize), to,
           absmax + begin / blockSize, isAligned(panel.data, 16), isAligned(to, Encoder::kBytes)},
          encoder, context);
    });
  };
  if (isRowMajorRun(a)) return quantizeRun(a, 0);
  forEachCopiedPanel(a, blockSize / std::gcd(blockSize, a.cols), context, quantizeRun);
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_QUANTIZE_BLOCKS_CUH
