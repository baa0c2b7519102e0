// SPDX-License-Identifier: MPL-2.0
// wgmma_decode_pack.cu: X and absmax as the kernel of wgmma_decode_sm90.cuh takes them.
//
//   64 k of a token, 4 B units 8c + 2j + h       │ c = 0: 0 1 2 3 4 5 6 7 │ c = 1: 8 … 15 │ c = 2 │ c = 3 │
//   as wgmma reads them, pieces 2j + h of 16 B   │ 0 8 16 24 │ 1 9 17 25 │ … │ 7 15 23 31 │    swizzled by t % 8
//
// Traffic  X is read once and written once: 4 B a value. absmax: 1 B read and 4 B written for the 64 weights of a
//          block, beside the 32 B of their codes; nothing where they are floats of blocks of 64.
// Measured On an H200 packing adds 2.1 us to a product of 64 rows by 4096, 3 of 128, 4 to 5 of 512.

#include "alignment.h"
#include "wgmma_decode.h"
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

/** Eight values from column \a col on; K is a multiple of 8. */
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

/** Of four values the i-th. */
__device__ __forceinline__ std::uint32_t wordOf(const uint4& v, int i) {
  const std::uint32_t low = i % 2 ? v.y : v.x, high = i % 2 ? v.w : v.z;
  return i < 2 ? low : high;
}

/** Eight lanes have words 4·piece + {0, 1, 2, 3} of a row, and get {d, 8 + d, 16 + d, 24 + d}. In each of four turns a
 * lane hands out another of its words, and takes one from another lane. */
__device__ __forceinline__ uint4 exchangeWords(const uint4& v, int piece, int d) {
  std::uint32_t got[4];
#pragma unroll
  for (int turn = 0; turn < 4; ++turn)
    got[turn] = __shfl_sync(0xffffffffu, wordOf(v, (turn + piece / 2) % 4), ((d - turn) & 3) * 2 + d / 4, 8);
  // got[turn] is of c = (d - turn) % 4.
  const uint4 all = make_uint4(got[0], got[1], got[2], got[3]);
  return make_uint4(wordOf(all, d % 4), wordOf(all, (d + 3) % 4), wordOf(all, (d + 2) % 4), wordOf(all, (d + 1) % 4));
}

constexpr int kPackThreads = 128, kBlockTokens = kPackThreads / 8;

/** A block for 64 k (x) of 16 tokens (y). Eight lanes read the 128 bytes of a token, and write 128 bytes. */
template <bool kVectors>
__global__ void __launch_bounds__(kPackThreads)
    packTokensKernel(const __grid_constant__ ConstDenseView x, uint4* packed, int tileTokens) {
  joinStreamThenAllow();
  const int thread = static_cast<int>(threadIdx.x), piece = thread % 8;
  const int token = static_cast<int>(blockIdx.y) * kBlockTokens + thread / 8;
  const Index col = blockIdx.x * kPackedDepth + piece * 8;
  const uint4 v = token < x.rows && col < x.cols ? loadEight<kVectors>(x, token, col) : make_uint4(0, 0, 0, 0);
  const Index tile = token / tileTokens, row = (tile * gridDim.x + blockIdx.x) * tileTokens + token % tileTokens;
  packed[row * 8 + piece] = exchangeWords(v, piece, piece ^ token % 8);
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

const void* packTokens(const ConstDenseView& x, Index tileTokens, Index chunk, Scratch& scratch, Context& context) {
  const Index depths = ceilDiv(x.cols, chunk) * (chunk / kPackedDepth);
  const Index tokens = roundUp(x.rows, tileTokens);
  uint4* const packed = static_cast<uint4*>(scratch.bytes(static_cast<std::size_t>(tokens * depths) * 128));
  const bool vectors = x.colStride == 1 && isAligned(x.data, 16) && x.rowStride % 8 == 0;
  const dim3 grid(static_cast<unsigned>(depths), static_cast<unsigned>(tokens / kBlockTokens));
  launchEarly("packTokens", vectors ? packTokensKernel<true> : packTokensKernel<false>, {grid, kPackThreads}, context,
              x, packed, static_cast<int>(tileTokens));
  return packed;
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
