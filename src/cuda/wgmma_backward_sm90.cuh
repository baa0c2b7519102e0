// SPDX-License-Identifier: MPL-2.0
// wgmma_backward_sm90.cuh: Y = X·W on Hopper for up to some thousand rows of X, W in NF4, FP4 or int8 as it is stored:
// the backward product dX = dY·W of a linear layer. Here: a block's shared memory, and what copies codes and X.
// *_scales.cuh has what brings absmax, *_fragments.cuh what decodes, *_multiply.cuh what multiplies.
//
//        columns of W = of Y: 128 or 256                   sums (columns × tokens), in registers:
//        ┌─────────────────────────────┐
//   64   │ codes of a stage, as stored │  rows of W          Yᵀ  +=  Ŵᵀ · Xᵀ      by wgmma or mma.sync, Ŵᵀ decoded in
//   rows ├──────────┬──────────────────┤                                          registers, never written
//        │ absmax   │ X: tokens × 64   │
//        └──────────┴──────────────────┘
//   ldmatrix.trans turns 8×8 pieces of 16 bits: a lane gets the bytes of codes of two neighbouring rows, of one column
//   pair in int8, of two in 4 bits. Decoded they are fragments whose order of columns is free.
//
//   warp 0 of the last warpgroup   has codes and X copied, a ring of stages ahead
//   warps 1…3 of it                load and decode absmax, three stages ahead each: the columns of blocks lie far apart
//   the other warpgroups           decode and multiply
//
// Traffic  0.5 B of codes and 4/64 B of absmax per weight, in int8 1 B; X once per tile of columns, Y once; where rows
//          of W are split over blocks for lack of tiles, 8 B of sums per slice and value of Y, added in ascending order
//          by a second kernel: the same bits in every run.
// Work     A lane decodes 32 weights at a time. 4 bits: 16 look-ups, 64 float operations, 16 packings. int8: 64 (half:
//          40) operations on bytes, bits and pairs, which make exact codes, and 32 on pairs for the scales. Weights
//          times scales are rounded once to X's scalar, as dequantising does. In bfloat16, up to 16 tokens, scales
//          multiply X instead, kept as two bfloat16: fewer operations, and a relative rms error of Y of 1.85e-3 in NF4,
//          1.64e-3 in int8, instead of 2.36e-3.
// Measured One H200, 8192×8192, µs per 64 rows of a tile: runFor() in wgmma_backward_fourbit_sm90.cu and
//          wgmma_backward_int8_sm90.cu. NF4, 256 tokens: 0.87; without decoding 0.70; without multiplying 0.54, what
//          the copies alone take, 8.6 TB/s from the second-level cache. 16 tokens by wgmma: 0.63; without either 0.26:
//          what costs is that each waits for the other. Committing once a unit or decoding it at once changes nothing;
//          tiles of 128 tokens with 64 columns a warpgroup take 15 % longer, shared float pairs instead of half ones up
//          to 10 %. int8: tiles of 32 or 64 tokens with 64 columns a warpgroup take up to a fifth longer where W is
//          large; such whose warpgroups take turns spill registers in bfloat16, and take up to twice as long.
// Needs    sm_90a, half or bfloat16. 4 bits: blocks of 64, rows of W at multiples of 256 values; int8: of 16.
#ifndef EIGENQ_CUDA_WGMMA_BACKWARD_SM90_CUH
#define EIGENQ_CUDA_WGMMA_BACKWARD_SM90_CUH

#include <cuda.h>

#include <eigen_q/src/Lowering.h>

#include "fourbit_operands.h"
#include "ptx_sm90.cuh"
#include "ring.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace backward {

using EigenQ::internal::ConstDenseView;
using EigenQ::internal::DenseView;
using EigenQ::internal::WeightView;

constexpr int kGroup = 128;     // threads of a warpgroup
constexpr int kStageRows = 64;  // rows of W in a stage: 128 bytes of X, the width of the swizzle
constexpr int kBlockSize = 64;  // 4-bit values that share an absmax
constexpr int kScaleWarps = 3;
constexpr int kMostSlots = 16;
constexpr int kTableBytes = 1 << 16;
constexpr int kSharedBytes = kHopperSharedBytes;

/** NF4 and FP4: a byte of codes is looked up. */
struct FourBit {
  static constexpr int kBits = 4;
  static constexpr bool kHasTable = true;
};
/** Codes become 16-bit floats by themselves. */
struct Int8 {
  static constexpr int kBits = 8;
  static constexpr bool kHasTable = false;
};

/** How a block computes its tile of kTokens rows of X by kCols columns of W. A warpgroup multiplies 64·kTiles columns.
 * Where \a kTurns_, warpgroups take the stages in turn and add their sums up at the end; otherwise each takes its own
 * columns of all stages. \a kFew_: by mma.sync, scales times X. */
template <typename Weights_, int kTokens_, int kTiles_, int kGroups_, bool kTurns_, bool kFew_ = false>
struct Shape {
  using Weights = Weights_;
  static constexpr int kTokens = kTokens_, kTiles = kTiles_, kGroups = kGroups_;
  static constexpr bool kTurns = kTurns_, kFew = kFew_;
  static constexpr int kThreads = (kGroups + 1) * kGroup;
  static constexpr int kCols = 64 * kTiles * (kTurns ? 1 : kGroups);
  static constexpr int kScales = Weights::kBits == 4 ? kCols / kBlockSize : 1;  // of a row
  static constexpr int kSums = kTokens / 2;                                     // of a thread, for each of its kTiles
  static constexpr int kUnits = kTiles;  // of a stage: what is decoded at a time, 32 weights a lane
  static constexpr int kUnitRows = kStageRows / kUnits;
  static constexpr int kRun = Weights::kBits == 8 || kTiles == 1 ? 2 : 4;  // neighbours that a thread stores at once
  static constexpr int kLine = kCols * Weights::kBits / 8, kStrip = kLine < 128 ? kLine : 128;  // bytes
  static constexpr int kXBytes = kTokens * kStageRows * 2;
  static constexpr int kStageBytes = kXBytes + kStageRows * kLine;
  static constexpr int kScaleBytes = kStageRows * kScales * 4;
  static constexpr int kExchangeBytes = kTurns ? (kGroups - 1) * kTiles * kSums * kGroup * 4 : 0;
  static constexpr int kRound = kTiles == 1 ? 2 : kTiles;  // units after which the sets of fragments come round
  /** Of what the stages of a slice are a multiple: turns and sets of fragments come out even. */
  static constexpr int kStepMultiple = kTurns ? kGroups : kRound / kUnits;
  // Registers a thread that fit in what the block starts with: 168, 128 or 96 for 3, 4 or 5 warpgroups.
  static constexpr int kLoaderRegisters = kGroups == 3 ? 80 : 56;
  static constexpr int kMultiplierRegisters = kGroups == 2 ? 224 : kGroups == 3 ? 144 : 104;
  static_assert((kStrip == 64 || kStrip == 128) && kLine % kStrip == 0, "a row of codes is lines of the swizzle");
  static_assert(kStageBytes % 1024 == 0 && kXBytes % 1024 == 0, "lines of the swizzle begin at multiples of 1024");
};

struct Problem {
  WeightView w;
  DenseView y;
  ConstDenseView residual;  // no data: none
  float residualSign;
  float* sums;  // (slice, token, column); null: finish in place
  int steps;    // stages of a slice
  int slices;
  int tilesTokens;
  int tilesCols;
};

/** Where things lie in the shared window, of which the first KiB is the system's: slots before the table, if there is
 * one, and behind it. The table begins at a multiple of its size, so that a look-up's address is one permutation of
 * bytes. */
template <typename S>
struct Memory {
  static constexpr std::uint32_t kStart = 1024, kEnd = kStart + kSharedBytes;
  static constexpr std::uint32_t kByteTable = kStart + 16 * kMostSlots;
  static constexpr std::uint32_t kScales = kByteTable + 1024;
  static constexpr std::uint32_t kExchange = kScales + kMostSlots * S::kScaleBytes;
  static constexpr std::uint32_t kFront = (kExchange + S::kExchangeBytes + 1023) & ~1023u;
  static constexpr std::uint32_t kTable = S::Weights::kHasTable ? 2 * kTableBytes : kFront;
  static constexpr std::uint32_t kBehind = S::Weights::kHasTable ? kTable + kTableBytes : kFront;
  static constexpr int kBefore = static_cast<int>((kTable - kFront) / S::kStageBytes);
  static constexpr int kAll = kBefore + static_cast<int>((kEnd - kBehind) / S::kStageBytes);
  static constexpr int kFit = kAll < kMostSlots ? kAll : kMostSlots;
  /** Where warpgroups take turns, a slot is always the same one's: it has seen all phases of the slot's barriers, and
   * one bit tells the next. */
  static constexpr int kSlots = S::kTurns ? kFit - kFit % S::kGroups : kFit;
  static_assert(kSlots >= kScaleWarps, "each of the warps that load absmax has a slot");

  __device__ __forceinline__ static std::uint32_t x(int slot) {
    return (slot < kBefore ? kFront : kBehind - kBefore * S::kStageBytes) + slot * S::kStageBytes;
  }
  __device__ __forceinline__ static std::uint32_t scale(int slot) { return kScales + slot * S::kScaleBytes; }
  __device__ __forceinline__ static std::uint32_t full(int slot) { return kStart + 16 * slot; }
  __device__ __forceinline__ static std::uint32_t empty(int slot) { return kStart + 16 * slot + 8; }
};

template <typename S>
using Slot = Ring<Memory<S>::kSlots>;

/** An item of work: a tile, of one slice of W's rows. */
struct Item {
  int token, col, step, slice;
};
template <typename S>
__device__ __forceinline__ Item itemAt(const Problem& p, int number) {
  constexpr int kColumn = 8;  // tiles of tokens that run together with as many columns as there are blocks for
  const int tiles = p.tilesTokens * p.tilesCols, slice = number / tiles, t = number % tiles;
  const int columnTiles = kColumn * p.tilesCols, first = t / columnTiles * kColumn, within = t % columnTiles;
  const int height = p.tilesTokens - first < kColumn ? p.tilesTokens - first : kColumn;
  return {(first + within % height) * S::kTokens, within / height * S::kCols, slice * p.steps, slice};
}
__device__ __forceinline__ int itemCount(const Problem& p) { return p.tilesTokens * p.tilesCols * p.slices; }

/** The stages of a block's items, one after the other. */
template <typename S>
struct StageWalk {
  __device__ __forceinline__ explicit StageWalk(const Problem& p, int first)
      : p(p), number(static_cast<int>(blockIdx.x)), item(itemAt<S>(p, number)) {
    advance(first);
  }
  __device__ __forceinline__ bool more() const { return number < itemCount(p); }
  __device__ __forceinline__ int step() const { return item.step + within; }
  __device__ __forceinline__ void advance(int by) {
    for (within += by; within >= p.steps; within -= p.steps) {
      number += static_cast<int>(gridDim.x);
      item = itemAt<S>(p, number);
    }
  }

  const Problem& p;
  int number;
  int within = 0;
  Item item;
};

template <typename S>
__device__ __forceinline__ void copyStages(const Problem& p, const CUtensorMap& codes, const CUtensorMap& x) {
  using M = Memory<S>;
  Slot<S> slot;
  for (StageWalk<S> walk(p, 0); walk.more(); walk.advance(1), slot.skip(1)) {
    const std::uint32_t full = M::full(slot.index), to = M::x(slot.index);
    ptx::wait(M::empty(slot.index), slot.parity ^ 1);
    ptx::arriveExpecting(full, S::kStageBytes);
    ptx::copyBox(to, &x, walk.step() * kStageRows * 2, walk.item.token, full);
#pragma unroll
    for (int at = 0; at < S::kLine; at += S::kStrip)
      ptx::copyBox(to + S::kXBytes + at * kStageRows, &codes, walk.item.col * S::Weights::kBits / 8 + at,
                   walk.step() * kStageRows, full);
  }
}

}  // namespace backward
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_WGMMA_BACKWARD_SM90_CUH
