// SPDX-License-Identifier: MPL-2.0
// What the two decoding kernels share: how 16 rows of int8 codes of W meet up to 16 rows of X.
//
//   row g of W   │ lane 4g: 16 codes │ lane 4g+1 │ lane 4g+2 │ lane 4g+3 │    a step of a warp: 64 columns of 16 rows,
//   row g + 8    │ 16 codes          │ …                                     two 16-byte loads a lane, whole sectors
//
// A product does not care in which order its terms come. So a lane keeps its 16 consecutive columns and feeds them to
// the tensor cores as the places a fragment has for it, the same for W and X: no shuffle, no shared memory, no repacked
// copy. The eight warps of a block take steps in turn and add up their sums at the end, in a fixed order.
#ifndef EIGENQ_CUDA_INT8_DECODE_CUH
#define EIGENQ_CUDA_INT8_DECODE_CUH

#include "int8_kernels.h"
#include "ptx.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace decode {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;
constexpr int kRows = 16;       // of W a block
constexpr int kMaxTokens = 16;  // rows of X
constexpr int kStep = 64;       // columns

/** \a count < 16 codes, or 16 at any address; zeros behind them. */
__device__ __forceinline__ uint4 loadCodesBytewise(const std::int8_t* from, Index count) {
  std::uint32_t words[4] = {};
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    if (i < count) words[i / 4] |= static_cast<std::uint32_t>(static_cast<std::uint8_t>(from[i])) << (8 * (i % 4));
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}

/** 16 codes of a row of W from column \a k on; zeros beyond the \a depth columns. kAligned: hasAlignedRows(). */
template <bool kAligned>
__device__ __forceinline__ uint4 loadCodes(const std::int8_t* row, Index k, Index depth) {
  if (k >= depth) return make_uint4(0, 0, 0, 0);
  if (kAligned) return ptx::loadStreaming(row + k);
  return loadCodesBytewise(row + k, depth - k);
}

constexpr int kUnroll = 4;  // steps whose loads are under way together
constexpr Index kTurn = static_cast<Index>(kWarps) * kUnroll * kStep;

/** The rows of W that a lane reads; rows beyond the last are the last, and what comes of them is not stored. */
struct WeightRows {
  const std::int8_t* low;
  const std::int8_t* high;

  __device__ __forceinline__ WeightRows(const WeightView& w, Index firstRow, int g) {
    const std::int8_t* const codes = static_cast<const std::int8_t*>(w.codes) + w.offset;
    low = codes + (firstRow + g < w.rows ? firstRow + g : w.rows - 1) * w.stride;
    high = codes + (firstRow + g + 8 < w.rows ? firstRow + g + 8 : w.rows - 1) * w.stride;
  }
};

/** What a lane reads of W in kUnroll steps: 16 columns of two rows each. */
struct WeightBatch {
  uint4 low[kUnroll];
  uint4 high[kUnroll];
};

template <bool kAligned>
__device__ __forceinline__ void load(const WeightRows& rows, Index k, Index depth, WeightBatch& batch) {
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    batch.low[u] = loadCodes<kAligned>(rows.low, k + u * kStep, depth);
    batch.high[u] = loadCodes<kAligned>(rows.high, k + u * kStep, depth);
  }
}

/** sums += a step of int8 codes. \param x  16 columns of row g of X */
__device__ __forceinline__ void multiplyCodes(const uint4& low, const uint4& high, const uint4& x, int (&sums)[4]) {
  ptx::mmaS8(sums, low.x, high.x, low.y, high.y, x.x, x.y);
  ptx::mmaS8(sums, low.z, high.z, low.w, high.w, x.z, x.w);
}

/** The sum over the warps of what each wrote, in their order. \a parts  (warp, token, row) */
template <typename Sum>
__device__ __forceinline__ Sum sumOfWarps(const Sum* parts, int token, int row) {
  Sum sum = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) sum += parts[(w * kMaxTokens + token) * kRows + row];
  return sum;
}

/** Writes a warp's fragments, 16 rows by kTiles·8 tokens, for sumOfWarps(). */
template <int kTiles, typename Sum>
__device__ __forceinline__ void storeParts(const Sum (&sums)[kTiles][4], int warp, int lane, Sum* parts) {
  const int g = lane / 4, c = lane % 4;
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
    Sum* const to = parts + (warp * kMaxTokens + t * 8 + 2 * c) * kRows + g;
    to[0] = sums[t][0];
    to[kRows] = sums[t][1];
    to[8] = sums[t][2];
    to[kRows + 8] = sums[t][3];
  }
}

inline unsigned blocksFor(Index rows) { return static_cast<unsigned>((rows + kRows - 1) / kRows); }

/** Calls \a launch with the TypeTag of Y's scalar, unless Y is empty. */
template <typename Launch>
void forResult(const DenseView& y, const Launch& launch) {
  if (y.rows > 0 && y.cols > 0) dispatchDeviceScalar(y.scalar, launch);
}

}  // namespace decode
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_INT8_DECODE_CUH
