// SPDX-License-Identifier: MPL-2.0
// fourbit_wgmma_pack.cu: X and absmax as the kernel of fourbit_wgmma_sm90.cuh takes them.
//
//   64 k of a token, 4 B units 8c + 2j + h       │ c = 0: 0 1 2 3 4 5 6 7 │ c = 1: 8 … 15 │ c = 2 │ c = 3 │
//   as wgmma reads them, pieces 2j + h of 16 B   │ 0 8 16 24 │ 1 9 17 25 │ … │ 7 15 23 31 │    swizzled by t % 8
//
// Traffic  X is read once and written once: 4 B a value. absmax: 1 B read and 4 B written for the 64 weights of a
//          block, beside the 32 B of their codes; nothing where they are floats of blocks of 64.

#include "alignment.h"
#include "fourbit_wgmma.h"
#include "op_launch.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

constexpr int kThreads = 256;
constexpr Index kBlock = 64, kFour = 4;  // values of a block; floats of 16 bytes

unsigned blocksFor(Index items) { return static_cast<unsigned>(ceilDiv(items, kThreads)); }

/** A thread writes four neighbours of a row. */
__global__ void __launch_bounds__(kThreads) packAbsmaxKernel(const __grid_constant__ WeightView w, float4* packed) {
  joinStreamThenAllow();
  const Index perRow = ceilDiv(w.cols / kBlock, kFour), at = Index{blockIdx.x} * kThreads + threadIdx.x;
  if (at >= w.rows * perRow) return;
  const Index row = at / perRow, first = at % perRow * kFour;
  float v[kFour];
#pragma unroll
  for (int i = 0; i < kFour; ++i) {
    const Index col = (first + i) * kBlock;
    v[i] = col < w.cols ? w.absmax((w.offset + row * w.stride + col) >> w.blockShift) : 0.0f;
  }
  packed[at] = make_float4(v[0], v[1], v[2], v[3]);
}

using Word = std::uint16_t;

/** Eight values from column \a col on; K is a multiple of 64. */
template <bool kVectors>
__device__ __forceinline__ uint4 loadEight(const ConstDenseView& x, Index token, Index col) {
  const Word* const from = static_cast<const Word*>(x.data) + token * x.rowStride + col * x.colStride;
  if constexpr (kVectors) {
    return __ldg(reinterpret_cast<const uint4*>(from));
  } else {
    std::uint32_t v[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = from[2 * i * x.colStride] | std::uint32_t{from[(2 * i + 1) * x.colStride]} << 16;
    return make_uint4(v[0], v[1], v[2], v[3]);
  }
}

/** A thread per token and half h of its 64 k: four pieces from four, transposed. */
template <bool kVectors>
__global__ void __launch_bounds__(kThreads) packTokensKernel(const __grid_constant__ ConstDenseView x, uint4* packed,
                                                             Index tileTokens, Index depths, Index items) {
  joinStreamThenAllow();
  const Index item = Index{blockIdx.x} * kThreads + threadIdx.x;
  if (item >= items) return;
  const Index row = item / 2, inTile = row % tileTokens, depth = row / tileTokens % depths;
  const Index token = row / tileTokens / depths * tileTokens + inTile, h = item % 2;
  uint4 v[4];
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    const Index col = depth * kPackedDepth + 16 * c + 8 * h;
    v[c] = token < x.rows && col < x.cols ? loadEight<kVectors>(x, token, col) : make_uint4(0, 0, 0, 0);
  }
  uint4* const to = packed + row * 8;
  const Index swizzle = inTile % 8;
  to[(4 * h + 0) ^ swizzle] = make_uint4(v[0].x, v[1].x, v[2].x, v[3].x);
  to[(4 * h + 1) ^ swizzle] = make_uint4(v[0].y, v[1].y, v[2].y, v[3].y);
  to[(4 * h + 2) ^ swizzle] = make_uint4(v[0].z, v[1].z, v[2].z, v[3].z);
  to[(4 * h + 3) ^ swizzle] = make_uint4(v[0].w, v[1].w, v[2].w, v[3].w);
}

}  // namespace

bool absmaxLiesPacked(const WeightView& w) {
  return w.absmax.plain && (Index{1} << w.blockShift) == kBlock && w.stride % (kBlock * kFour) == 0 &&
         isAligned(w.absmax.plain + w.offset / kBlock, 16);
}

PackedAbsmax packAbsmax(const WeightView& w, Scratch& scratch, Context& context) {
  if (absmaxLiesPacked(w)) return {w.absmax.plain + w.offset / kBlock, w.stride / kBlock};
  const Index perRow = ceilDiv(w.cols / kBlock, kFour), count = w.rows * perRow;
  float* const packed = scratch.array<float>(count * kFour);
  launchEarly("packAbsmax", packAbsmaxKernel, {blocksFor(count), kThreads}, context, w,
              reinterpret_cast<float4*>(packed));
  return {packed, perRow * kFour};
}

const void* packTokens(const ConstDenseView& x, Index tileTokens, Scratch& scratch, Context& context) {
  const Index depths = ceilDiv(x.cols, kPackedChunk) * (kPackedChunk / kPackedDepth);
  const Index rows = roundUp(x.rows, tileTokens) * depths, items = 2 * rows;
  uint4* const packed = static_cast<uint4*>(scratch.bytes(static_cast<std::size_t>(rows) * 128));
  const bool vectors = x.colStride == 1 && isAligned(x.data, 16) && x.rowStride % 8 == 0;
  launchEarly("packTokens", vectors ? packTokensKernel<true> : packTokensKernel<false>, {blocksFor(items), kThreads},
              context, x, packed, tileTokens, depths, items);
  return packed;
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
