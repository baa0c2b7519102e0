// SPDX-License-Identifier: MPL-2.0
// fourbit_decode_sm90_stages.cuh: how a product of fourbit_decode_sm90.cuh is cut into slices of K and stages, where
// these lie in shared memory, and how they arrive.
#ifndef EIGENQ_CUDA_FOURBIT_DECODE_SM90_STAGES_CUH
#define EIGENQ_CUDA_FOURBIT_DECODE_SM90_STAGES_CUH

#include <eigen_q/src/Lowering.h>

#include "fourbit_decode.h"
#include "fourbit_operands.h"
#include "fourbit_pair_table.cuh"
#include "ptx_sm90.cuh"
#include "ring.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace fourbit {

using EigenQ::internal::WeightView;

constexpr int kConsumers = 16, kConsumerThreads = 32 * kConsumers, kStreamThreads = kConsumerThreads + 32;
constexpr int kConsumerBarrier = 1;
constexpr int kStreamTokens = 8;  // most rows of X
constexpr int kTileRows = kDecodeTileRows;
constexpr int kBlock = 64;  // values that share an absmax; k of four MMAs
constexpr int kUnit = 128;  // k that a warp takes of a stage
constexpr int kStageValues = kConsumers * kUnit;

// A stage. Lines of 128 bytes, swizzled, begin at multiples of 1024.
constexpr int kLine = 128, kLineValues = 2 * kLine;
constexpr int kCodeBytes = kTileRows * kStageValues / 2;
constexpr int kScalesAt = kCodeBytes;
constexpr int kScalesPerRow = kStageValues / kBlock;
constexpr int kScaleBytes = kTileRows * kScalesPerRow * 4, kNestedScaleBytes = kTileRows * kScalesPerRow;
constexpr int kSecondAt = kScalesAt + kScaleBytes;  // nested: second-level absmax of the tile
constexpr int kStageBytes = kSecondAt + 1024;

constexpr int kMostStages = 8;
constexpr int kByteTableBytes = 256 * 4;
constexpr int kXPadding = 16;  // two rows of X in different banks
constexpr int kTableAlignment = 1 << 16;
constexpr Index kMostXBytes = 64 << 10;
constexpr int kStreamSharedBytes = kHopperSharedBytes;
// Nested: 1024 bytes hold the second level of 16 rows, 16·2^17/64/256 values.
constexpr int kLeastNestedShift = 8;
constexpr Index kMostNestedStride = 1 << 17;
static_assert(kStageBytes % 1024 == 0 && kScalesPerRow * 4 == kLine, "swizzled lines");

struct StreamProblem {
  WeightView w;
  const void* x = nullptr;  // rows at multiples of 16 bytes
  Index xStride = 0;
  DenseView y;
  Epilogue epilogue;
  float* sums = nullptr;  // (slice, token, row) where K is split over CTAs; null: finish in place
};

/** W for the copy engine. */
struct StreamMaps {
  CUtensorMap codes;   // byte of a line, row, line: boxes of a stage's codes
  CUtensorMap scales;  // byte, row: boxes of a stage's absmax, floats or codes
};

/** Where things lie in the shared window. The table begins at a multiple of its size, so that a lookup's address is one
 * permutation of bytes; stages fill what is left before and behind it. */
struct StreamMemory {
  std::uint32_t front, table, x, byteTable, barriers;
  int xStride, before, stages;

  __device__ __forceinline__ StreamMemory(const void* memory, Index tokens, int depth) {
    const std::uint32_t start = ptx::sharedAddress(memory), end = start + kStreamSharedBytes;
    table = (start + kTableAlignment - 1) & ~static_cast<std::uint32_t>(kTableAlignment - 1);
    barriers = start;
    byteTable = start + 1024;
    front = byteTable + kByteTableBytes;
    xStride = 2 * depth + kXPadding;
    x = end - static_cast<std::uint32_t>(tokens) * static_cast<std::uint32_t>(xStride);
    before = static_cast<int>((table - front) / kStageBytes);
    const int behind = static_cast<int>((x - table - kTableBytes) / kStageBytes);
    stages = before + behind < kMostStages ? before + behind : kMostStages;
  }
  __device__ __forceinline__ std::uint32_t stage(int slot) const {
    return slot < before ? front + slot * kStageBytes : table + kTableBytes + (slot - before) * kStageBytes;
  }
  __device__ __forceinline__ std::uint32_t full(int slot) const { return barriers + 16 * slot; }
  __device__ __forceinline__ std::uint32_t empty(int slot) const { return barriers + 16 * slot + 8; }
  __device__ __forceinline__ std::uint32_t xArrived() const { return barriers + 16 * kMostStages; }
};

/** Of what the values of a row, and of a slice of K, have to be multiples: boxes begin at multiples of 16 bytes of
 * codes and of absmax. */
constexpr int sliceMultiple(bool nested) { return nested ? 16 * kBlock : kLineValues; }

/** The slice of K of a CTA. */
struct Slice {
  int begin, depth;

  __device__ __forceinline__ Slice(Index cols, bool nested) {
    const int multiple = sliceMultiple(nested);
    const Index parts = cols / multiple;
    begin = static_cast<int>(parts * blockIdx.y / gridDim.y * multiple);
    depth = static_cast<int>(parts * (blockIdx.y + 1) / gridDim.y * multiple) - begin;
  }
};

/** The second-level absmax of a tile's rows: a run of the array, from a multiple of 16 bytes on. */
struct SecondLevel {
  const float* from;
  std::uint32_t bytes;

  __device__ __forceinline__ SecondLevel(const WeightView& w, int tile) {
    const Index firstRow = Index{tile} * kTileRows, last = firstRow + kTileRows - 1;
    const Index lastRow = last < w.rows ? last : w.rows - 1;
    const Index begin = firstElement(w, firstRow) & ~Index{3};
    const Index end = blockOf(w, lastRow, w.cols - 1) + 1;
    from = w.absmax.absmax2 + begin;
    bytes = static_cast<std::uint32_t>((end - begin + 3) / 4 * 16);
  }
  __device__ __forceinline__ static Index firstElement(const WeightView& w, Index row) { return blockOf(w, row, 0); }
  __device__ __forceinline__ static Index blockOf(const WeightView& w, Index row, Index col) {
    return (w.offset + row * w.stride + col) / kBlock >> w.absmax.nestedBlockShift;
  }
};

/** Has W copied, stage after stage, by one thread. */
__device__ __forceinline__ void copyWeights(const StreamProblem& p, const StreamMaps& maps, const StreamMemory& memory,
                                            const Slice& slice, int tiles) {
  const bool nested = p.w.absmax.plain == nullptr;
  Slot slot;
  for (int tile = static_cast<int>(blockIdx.x); tile < tiles; tile += static_cast<int>(gridDim.x)) {
    const int row = tile * kTileRows;
    for (int k = slice.begin; k < slice.begin + slice.depth; k += kStageValues, slot.advance(memory.stages)) {
      const std::uint32_t full = memory.full(slot.index), stage = memory.stage(slot.index);
      ptx::wait(memory.empty(slot.index), slot.parity ^ 1);
      if (nested) {
        const SecondLevel second(p.w, tile);
        ptx::arriveExpecting(full, kCodeBytes + kNestedScaleBytes + second.bytes);
        ptx::copyBox(stage, &maps.codes, 0, row, k / kLineValues, full);
        ptx::copyBox(stage + kScalesAt, &maps.scales, k / kBlock, row, full);
        ptx::copyBulk(stage + kSecondAt, second.from, second.bytes, full);
      } else {
        ptx::arriveExpecting(full, kCodeBytes + kScaleBytes);
        ptx::copyBox(stage, &maps.codes, 0, row, k / kLineValues, full);
        ptx::copyBox(stage + kScalesAt, &maps.scales, k / kBlock * 4, row, full);
      }
    }
  }
}

/** Has X copied, a row by each lane of a warp. */
__device__ __forceinline__ void copyActivations(const StreamProblem& p, const StreamMemory& memory,
                                                const Slice& slice) {
  const int token = static_cast<int>(threadIdx.x) % 32;
  if (token >= p.y.rows) return;
  const std::uint32_t bytes = 2 * static_cast<std::uint32_t>(slice.depth);
  ptx::arriveExpecting(memory.xArrived(), bytes);
  ptx::copyBulk(memory.x + token * memory.xStride,
                static_cast<const std::uint16_t*>(p.x) + token * p.xStride + slice.begin, bytes, memory.xArrived());
}

}  // namespace fourbit
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_FOURBIT_DECODE_SM90_STAGES_CUH
