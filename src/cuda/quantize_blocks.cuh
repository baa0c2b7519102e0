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
// Shape    persistent blocks, since an encoder may fill tables. A thread asks for its next four vectors, 64 B, before
//          it encodes these. Tiles that lie within the run go a way of their own without any check: with checks
//          everywhere NF4 took 16 instructions a value, and 210 us for 28672×8192 in bfloat16 instead of 152.
// Needs    16-byte-aligned values and codes as aligned as their stores; else both go one by one.
#ifndef EIGENQ_CUDA_QUANTIZE_BLOCKS_CUH
#define EIGENQ_CUDA_QUANTIZE_BLOCKS_CUH

#include <eigen_q/src/BlockScale.h>
#include <eigen_q/src/FourBit.h>

#include <cassert>
#include <numeric>
#include <type_traits>

#include "eight_values.cuh"
#include "op_launch.cuh"
#include "row_panels.h"

namespace EigenQ {
namespace gpu {
namespace internal {

constexpr unsigned kQuantizeThreads = 256;
constexpr int kQuantizeWarps = kQuantizeThreads / 32;
constexpr int kVectorShift = 8;
constexpr int kVectorValues = 1 << kVectorShift;  // of a warp
static_assert(kVectorValues == 32 * kEight, "the drawing above");

/** \tparam kVectors  of a lane: 1, 2 or 4 */
template <int kVectors>
constexpr Index kTileValues = Index{kQuantizeWarps} * kVectors* kVectorValues;
constexpr int kMostVectors = 4;
static_assert(kTileValues<kMostVectors> % EigenQ::internal::kMaxBlockSize == 0, "a tile holds whole blocks");

/** Thread blocks a multiprocessor holds at once; __launch_bounds__ makes it so. */
constexpr int kQuantizeResidents = 3;

/** Whether a thread asks for its next tile before it encodes this one: where both fit in its registers. */
template <typename T, int kVectors>
constexpr bool kLoadsAhead = sizeof(T) * kVectors <= 8;

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
template <int kVectors>
__device__ __forceinline__ void reduceBlocks(float (&largest)[kVectors], int blockShift,
                                             float (&warpLargest)[kQuantizeWarps]) {
  const int lanes = 1 << min(blockShift - 3, 5);
  for (int distance = 1; distance < lanes; distance *= 2) {
#pragma unroll
    for (int k = 0; k < kVectors; ++k)
      largest[k] = fmaxf(largest[k], __shfl_xor_sync(0xffffffffu, largest[k], distance));
  }
  int shift = kVectorShift;  // of the blocks that are done
#pragma unroll
  for (int apart = 1; apart < kVectors; apart *= 2, ++shift) {
    if (blockShift <= shift) break;
    float other[kVectors];
#pragma unroll
    for (int k = 0; k < kVectors; ++k) other[k] = largest[k ^ apart];
#pragma unroll
    for (int k = 0; k < kVectors; ++k) largest[k] = fmaxf(largest[k], other[k]);
  }
  if (blockShift <= shift) return;
  const int warp = static_cast<int>(threadIdx.x) / 32, warps = 1 << (blockShift - shift);
  if (threadIdx.x % 32 == 0) warpLargest[warp] = largest[0];
  __syncthreads();
  float all = 0;
  for (int w = warp & -warps, end = w + warps; w < end; ++w) all = fmaxf(all, warpLargest[w]);
  __syncthreads();  // the next tile writes warpLargest again
#pragma unroll
  for (int k = 0; k < kVectors; ++k) largest[k] = all;
}

/** A thread's vectors from \a begin on. \tparam kWhole  nothing ends there and all is aligned; else zeros stand behind
 * the end of the run */
template <bool kWhole, typename T, int kVectors>
__device__ __forceinline__ void loadVectors(const BlockRun<T>& run, Index begin, EightValues<T> (&values)[kVectors]) {
#pragma unroll
  for (int k = 0; k < kVectors; ++k) {
    const Index at = begin + k * kVectorValues;
    values[k] = kWhole ? loadEight(run.values + at) : loadEight(run.values + at, run.size - at, run.alignedValues);
  }
}

/** Which values a codec could tell from zero although they count as zero: subnormal ones... */
enum class Flush {
  kNever,        // ...none
  kSmallBlocks,  // ...where their block has no larger value than 2⁻¹²⁰
  kEverywhere
};

/** blockReciprocal() of an absmax in [2⁻¹²⁰, 2¹²⁰], with its one rounding: an estimate and a step of Newton's, as the
 * compiler divides, without its detour for other divisors. */
__device__ __forceinline__ float ordinaryReciprocal(float absmax) {
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(absmax));
  return fmaf(r, fmaf(-absmax, r, 1.0f), r);
}

/** The codes and the absmax of a vector. */
template <bool kWhole, typename T, typename Encoder>
__device__ __forceinline__ void encodeVector(const BlockRun<T>& run, const Encoder& encoder,
                                             const typename Encoder::Shared& shared, Index at,
                                             const EightValues<T>& values, float largest) {
  constexpr int perByte = kEight / Encoder::kBytes;
  constexpr Flush kFlush = Encoder::template kFlush<T>;
  if (!kWhole && at >= run.size) return;
  const float absmax = flushedAbsmax(largest);
  if ((static_cast<std::uint32_t>(at) & ((1u << run.blockShift) - 1)) == 0) run.absmax[at >> run.blockShift] = absmax;
  float f[kEight];
  toFloats(values, f);
  float reciprocal = ordinaryReciprocal(absmax);
  const bool ordinary = absmax >= 0x1p-120f && absmax <= 0x1p120f;
  if (!ordinary) reciprocal = EigenQ::internal::blockReciprocal(absmax);
  if (kFlush == Flush::kEverywhere || (kFlush == Flush::kSmallBlocks && !ordinary)) {
#pragma unroll
    for (int e = 0; e < kEight; ++e) f[e] = fabsf(f[e]) < FLT_MIN ? 0.0f : f[e];
  }
  const std::uint64_t codes = encoder.encode(shared, f, reciprocal);
  storeCodes<Encoder::kBytes>(run.codes + at / perByte, codes,
                              kWhole ? kEight : (run.size - at + perByte - 1) / perByte, kWhole || run.alignedCodes);
}

/** \tparam Encoder  what quantize_blocks.cu and byte_encoder.cuh define:
 *   Shared, fill(Shared&): tables from parameters, by all threads
 *   join(Shared&): what comes from memory, ending with a barrier
 *   prepare(shared, values, count): what happens to a lane's values before their absmax
 *   kBytes, encode(shared, floats, reciprocal): the codes of eight values
 *   kFlush<T> */
template <typename T, typename Encoder, int kVectors>
__global__ void __launch_bounds__(kQuantizeThreads, kQuantizeResidents)
    quantizeBlocks(const BlockRun<T> run, const __grid_constant__ Encoder encoder) {
  __shared__ typename Encoder::Shared shared;
  __shared__ float warpLargest[kQuantizeWarps];
  encoder.fill(shared);
  joinStreamThenAllow();
  const Index lane = threadIdx.x % 32, warp = threadIdx.x / 32, step = gridDim.x * kTileValues<kVectors>;
  const Index wholeEnd = run.alignedValues && run.alignedCodes ? run.size - kTileValues<kVectors> : -1;
  Index tile = blockIdx.x * kTileValues<kVectors>, begin = tile + warp * kVectors * kVectorValues + lane * kEight;
  EightValues<T> values[kVectors];
  const auto load = [&](Index ahead, EightValues<T>(&to)[kVectors]) {
    if (tile + ahead <= wholeEnd) {
      loadVectors<true>(run, begin + ahead, to);
    } else {
      loadVectors<false>(run, begin + ahead, to);
    }
  };
  load(0, values);
  encoder.join(shared);
  for (; tile < run.size; tile += step, begin += step) {
    float largest[kVectors];
#pragma unroll
    for (int k = 0; k < kVectors; ++k) {
      encoder.prepare(shared, values[k], run.size - (begin + k * kVectorValues));
      largest[k] = absmaxOf(values[k]);
    }
    reduceBlocks(largest, run.blockShift, warpLargest);
    EightValues<T> next[kVectors];
    if (kLoadsAhead<T, kVectors>) load(step, next);
    const auto encode = [&](auto whole) {
#pragma unroll
      for (int k = 0; k < kVectors; ++k)
        encodeVector<decltype(whole)::value>(run, encoder, shared, begin + k * kVectorValues, values[k], largest[k]);
    };
    if (tile <= wholeEnd) {
      encode(std::true_type());
    } else {
      encode(std::false_type());
    }
    if (!kLoadsAhead<T, kVectors>) load(step, next);
#pragma unroll
    for (int k = 0; k < kVectors; ++k) values[k] = next[k];
  }
}

template <typename T, typename Encoder, int kVectors = kMostVectors>
void launchQuantizeBlocks(const BlockRun<T>& run, const Encoder& encoder, Context& context) {
  assert(kTileValues<kVectors> >> run.blockShift > 0);
  const Index tiles = ceilDiv(run.size, kTileValues<kVectors>);
  const Index residents = static_cast<Index>(context.multiprocessors()) * kQuantizeResidents;
  launchEarly("quantizeBlocks", quantizeBlocks<T, Encoder, kVectors>,
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
