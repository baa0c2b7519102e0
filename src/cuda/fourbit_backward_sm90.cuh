// SPDX-License-Identifier: MPL-2.0
// fourbit_backward_sm90.cuh: Y = X·W on Hopper for up to some hundred rows of X, W in NF4 or FP4 as it is stored: the
// backward product dX = dY·W of a linear layer. What loads; fourbit_backward_sm90_multiply.cuh has what multiplies.
//
//        columns of W = of Y: 128 or 256                   sums (columns × tokens), in registers:
//        ┌─────────────────────────────┐
//   64   │ codes of a stage, as stored │  rows of W          Yᵀ  +=  Ŵᵀ · Xᵀ      by wgmma or mma.sync, Ŵᵀ decoded in
//   rows ├──────────┬──────────────────┤                                          registers, never written
//        │ absmax   │ X: tokens × 64   │
//        └──────────┴──────────────────┘
//   ldmatrix.trans turns 8×8 pieces of 16 bits: a lane gets the bytes of codes of two neighbouring rows in one column
//   pair. Two look-ups and the packing of their results give both columns' fragments, whose order of columns is free.
//
//   warp 0 of the last warpgroup   has codes and X copied, a ring of stages ahead
//   warps 1…3 of it                load and decode absmax, three stages ahead each: the columns of blocks lie far apart
//   the other warpgroups           decode and multiply
//
// Traffic  0.5 B of codes and 4/64 B of absmax per weight; X once per tile of columns, Y once; where W's rows are split
//          over blocks for lack of tiles, 8 B of sums per slice and value of Y, added in ascending order by a second
//          kernel: the same bits in every run.
// Work     A lane decodes 32 weights at a time: 16 look-ups, 64 float operations, 16 packings. Weights times absmax are
//          rounded to X's scalar, as dequantising does. In bfloat16, up to 16 tokens, absmax multiplies X instead, kept
//          as two bfloat16: a third of the operations, and a relative rms error of Y of 1.85e-3 instead of 2.36e-3.
// Measured One H200, 8192×8192, µs per 64 rows of a tile: runFor() in fourbit_backward_sm90.cu. 256 tokens: 0.87;
//          without decoding 0.70; without multiplying 0.54, what the copies alone take, 8.6 TB/s from the second-level
//          cache. 16 tokens by wgmma: 0.63; without either 0.26: what costs is that each waits for the other.
//          Committing once a unit or decoding it at once changes nothing; tiles of 128 tokens with 64 columns a
//          warpgroup take 15 % longer, shared float pairs instead of half ones up to 10 %.
// Needs    sm_90a, blocks of 64, rows of W at multiples of 256 values, half or bfloat16.
#ifndef EIGENQ_CUDA_FOURBIT_BACKWARD_SM90_CUH
#define EIGENQ_CUDA_FOURBIT_BACKWARD_SM90_CUH

#include <cuda.h>

#include <eigen_q/src/Lowering.h>

#include "fourbit_operands.h"
#include "fourbit_pair_table.cuh"
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
constexpr int kBlockSize = 64;  // values that share an absmax
constexpr int kScaleWarps = 3;
constexpr int kMostSlots = 16;
constexpr int kTableBytes = 1 << 16;
constexpr int kSharedBytes = kHopperSharedBytes;

/** How a block computes its tile of kTokens rows of X by kCols columns of W. A warpgroup multiplies 64·kTiles columns.
 * Where \a kTurns_, warpgroups take the stages in turn and add their sums up at the end; otherwise each takes its own
 * columns of all stages. \a kFew_: by mma.sync, absmax times X. */
template <int kTokens_, int kTiles_, int kGroups_, bool kTurns_, bool kFew_ = false>
struct Shape {
  static constexpr int kTokens = kTokens_, kTiles = kTiles_, kGroups = kGroups_;
  static constexpr bool kTurns = kTurns_, kFew = kFew_;
  static constexpr int kThreads = (kGroups + 1) * kGroup;
  static constexpr int kCols = 64 * kTiles * (kTurns ? 1 : kGroups);
  static constexpr int kBlocks = kCols / kBlockSize;
  static constexpr int kSums = kTokens / 2;  // of a thread, for each of its kTiles
  static constexpr int kUnits = kTiles;      // of a stage: what is decoded at a time, 32 weights a lane
  static constexpr int kUnitRows = kStageRows / kUnits;
  static constexpr int kLine = kCols / 2;  // bytes
  static constexpr int kXBytes = kTokens * kStageRows * 2;
  static constexpr int kStageBytes = kXBytes + kStageRows * kLine;
  static constexpr int kScaleBytes = kStageRows * kBlocks * 4;
  static constexpr int kExchangeBytes = kTurns ? (kGroups - 1) * kTiles * kSums * kGroup * 4 : 0;
  static constexpr int kRound = kTiles == 1 ? 2 : kTiles;  // units after which the sets of fragments come round
  /** Of what the stages of a slice are a multiple: turns and sets of fragments come out even. */
  static constexpr int kStepMultiple = kTurns ? kGroups : kRound / kUnits;
  // Registers a thread that fit in what the block starts with: 168, 128 or 96 for 3, 4 or 5 warpgroups.
  static constexpr int kLoaderRegisters = kGroups == 3 ? 80 : 56;
  static constexpr int kMultiplierRegisters = kGroups == 2 ? 224 : kGroups == 3 ? 144 : 104;
  static_assert(kLine == 64 || kLine == 128, "a row of codes is a line of the swizzle");
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

/** Where things lie in the shared window, of which the first KiB is the system's: slots before the table and behind it.
 * The table begins at a multiple of its size, so that a look-up's address is one permutation of bytes. */
template <typename S>
struct Memory {
  static constexpr std::uint32_t kStart = 1024, kTable = 2 * kTableBytes, kEnd = kStart + kSharedBytes;
  static constexpr std::uint32_t kByteTable = kStart + 16 * kMostSlots;
  static constexpr std::uint32_t kScales = kByteTable + 1024;
  static constexpr std::uint32_t kExchange = kScales + kMostSlots * S::kScaleBytes;
  static constexpr std::uint32_t kFront = (kExchange + S::kExchangeBytes + 1023) & ~1023u;
  static constexpr int kBefore = static_cast<int>((kTable - kFront) / S::kStageBytes);
  static constexpr int kAll = kBefore + static_cast<int>((kEnd - kTable - kTableBytes) / S::kStageBytes);
  static constexpr int kFit = kAll < kMostSlots ? kAll : kMostSlots;
  /** Where warpgroups take turns, a slot is always the same one's: it has seen all phases of the slot's barriers, and
   * one bit tells the next. */
  static constexpr int kSlots = S::kTurns ? kFit - kFit % S::kGroups : kFit;
  static_assert(kSlots >= kScaleWarps, "each of the warps that load absmax has a slot");

  __device__ __forceinline__ static std::uint32_t x(int slot) {
    return (slot < kBefore ? kFront : kTable + kTableBytes - kBefore * S::kStageBytes) + slot * S::kStageBytes;
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
    ptx::copyBox(to + S::kXBytes, &codes, walk.item.col / 2, walk.step() * kStageRows, full);
  }
}

/** Absmax of a stage, or what it is decoded from, of two rows a lane. Their blocks are as many as one load brings. */
template <typename S, bool kNested>
struct StageScales {
  static constexpr int kBlocks = S::kBlocks;
  float values[2][kNested ? 1 : kBlocks];  // nested: of the second level
  std::uint32_t codes[2];                  // nested: a byte a block

  __device__ __forceinline__ void load(const WeightView& w, const Item& item, int step, int lane) {
    Index row = Index{step} * kStageRows + lane, block = (w.offset + row * w.stride + item.col) / kBlockSize;
#pragma unroll
    for (int h = 0; h < 2; ++h, row += 32, block += w.stride * 32 / kBlockSize) {
      const bool inside = row < w.rows;
      if (kNested) {
        codes[h] = 0;
        values[h][0] = 0;
        if (!inside) continue;
        values[h][0] = w.absmax.absmax2[block >> w.absmax.nestedBlockShift];
        if (kBlocks == 2) codes[h] = *reinterpret_cast<const std::uint16_t*>(w.absmax.codes + block);
        if (kBlocks == 4) codes[h] = *reinterpret_cast<const std::uint32_t*>(w.absmax.codes + block);
      } else if (kBlocks == 4) {
        float4 v = make_float4(0, 0, 0, 0);
        if (inside) v = *reinterpret_cast<const float4*>(w.absmax.plain + block);
        values[h][0] = v.x;
        values[h][1] = v.y;
        values[h][kBlocks - 2] = v.z;
        values[h][kBlocks - 1] = v.w;
      } else {
        float2 v = make_float2(0, 0);
        if (inside) v = *reinterpret_cast<const float2*>(w.absmax.plain + block);
        values[h][0] = v.x;
        values[h][1] = v.y;
      }
    }
  }
  /** In the order in which lanes of the multiplying warps read them: of a unit, lane c's rows 8o + 2c + e together. */
  __device__ __forceinline__ void store(std::uint32_t to, int lane, float offset, float factor) const {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = lane + 32 * h, unit = row / S::kUnitRows, within = row % S::kUnitRows;
      const int at = unit * S::kUnitRows + within % 8 / 2 * (S::kUnitRows / 4) + within / 8 * 2 + within % 2;
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) {
        float v = values[h][kNested ? 0 : b];
        if (kNested) {
          const float code = fourbit::loadSharedFloat(Memory<S>::kByteTable + 4 * (codes[h] >> 8 * b & 255));
          v = EigenQ::internal::roundedProduct(code, v) + offset;  // AbsmaxView's roundings
        }
        fourbit::storeShared(to + 4 * (b * kStageRows + at), v * factor);
      }
    }
  }
};

/** Warp \a warp of kScaleWarps takes the slots warp, warp + kScaleWarps, …; kAhead of its stages are being loaded. */
template <typename S, bool kNested>
__device__ __forceinline__ void loadScales(const Problem& p, int warp, float factor) {
  using M = Memory<S>;
  constexpr int kAhead = 3, kOwn = kScaleWarps;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const EigenQ::internal::AbsmaxView& absmax = p.w.absmax;
  const float offset = kNested ? (absmax.offsetAt ? *absmax.offsetAt : absmax.offset) : 0.0f;
  StageWalk<S> walk(p, warp);
  Slot<S> loading, storing;
  loading.index = storing.index = warp;
  // From one of the warp's slots to its next; behind the last one follows its first.
  const auto distance = [&](int slot) { return slot + kOwn < M::kSlots ? kOwn : M::kSlots - slot + warp; };
  StageScales<S, kNested> ahead[kAhead];
  bool there[kAhead];
  const auto load = [&](int d) {
    there[d] = walk.more();
    if (!there[d]) return;
    ahead[d].load(p.w, walk.item, walk.step(), lane);
    walk.advance(distance(loading.index));
    loading.skip(distance(loading.index));
  };
#pragma unroll
  for (int d = 0; d < kAhead; ++d) load(d);
  while (true) {
#pragma unroll
    for (int d = 0; d < kAhead; ++d) {
      if (!there[d]) return;
      ptx::wait(M::empty(storing.index), storing.parity ^ 1);
      ahead[d].store(M::scale(storing.index), lane, offset, factor);
      __syncwarp();
      if (lane == 0) ptx::arrive(M::full(storing.index));
      storing.skip(distance(storing.index));
      load(d);
    }
  }
}

}  // namespace backward
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_FOURBIT_BACKWARD_SM90_CUH
