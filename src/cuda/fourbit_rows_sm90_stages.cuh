// SPDX-License-Identifier: MPL-2.0
// fourbit_rows_sm90_stages.cuh: how a product of fourbit_rows_sm90.cuh is cut into blocks' shares and stages, and how
// these arrive.
//
//   a stage   │ codes: 1, 2 or 4 lines of 128 bytes a row, line after line │ X: 4, 8 or 16 parts of 64 k │ absmax │
//
// A line of a row has the codes of 256 k; a part of X its tokens, 128 bytes each. In both, pieces of 16 bytes change
// places from row to row, as the copy engine's 128-byte swizzle has it.
#ifndef EIGENQ_CUDA_FOURBIT_ROWS_SM90_STAGES_CUH
#define EIGENQ_CUDA_FOURBIT_ROWS_SM90_STAGES_CUH

#include "epilogue.cuh"
#include "fourbit_operands.h"
#include "fourbit_pair_table.cuh"
#include "ptx_sm90.cuh"
#include "ring.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace fourbit_rows {

constexpr int kTileRows = 16;
constexpr int kDeep = 64;   // k of a part of a stage: a block of W, 128 bytes of X
constexpr int kLine = 128;  // bytes of codes of a row that lie together, swizzled
constexpr int kLineParts = 2 * kLine / kDeep;
constexpr int kWarps = 16, kConsumers = 32 * kWarps, kThreads = kConsumers + 128;
constexpr int kConsumerBarrier = 1;
// Registers of a thread: at the start those of an equal share, then the copying warps give theirs away.
constexpr int kGivenRegisters = 32, kTakenRegisters = 112;

constexpr int kSharedBytes = kHopperSharedBytes;
constexpr int kTableAt = 1024;  // of the shared window: where a block's own memory begins
constexpr int kStagesAt = kTableAt + fourbit::kTableBytes;
constexpr int kMostStages = 8;

/** \tparam kTokens_  rows of X, a multiple of 8; \tparam kGroups_  of warps that share the rows of W */
template <int kTokens_, int kGroups_>
struct Tiling {
  static constexpr int kTokens = kTokens_, kGroups = kGroups_, kColumns = kTokens / 8;
  static constexpr int kTilesOfWarp =
      kTokens > 16 ? 3 : 4;  // most; sums of four by 32 tokens do not fit into registers
  static constexpr int kMostTiles = kTilesOfWarp * kGroups;
  static constexpr int kParts = kWarps / kGroups, kLines = kParts / kLineParts;  // of a stage
  static constexpr int kXPartBytes = kTokens * 2 * kDeep, kXBytes = kParts * kXPartBytes;
  static constexpr int kGroupRows = kGroups * kTileRows;  // from a warp's tile to its next
};

struct Problem {
  const float* codeTable = nullptr;
  DenseView y;
  EigenQ::internal::Epilogue epilogue;
  int tiles = 0;         // of all rows of W
  int tilesOfBlock = 0;  // most
  int parts = 0;         // of K
  bool pairs = false;    // two neighbours of a row of Y are written at a time
};

/** Arrays for the copy engine. */
struct Maps {
  CUtensorMap codes;   // byte of a row, row: boxes of a line of a block's rows
  CUtensorMap absmax;  // the same
  CUtensorMap x;       // byte of 64 k, token, 64 k: a box for a stage
};

/** Bytes of a stage of \a rows rows of W. */
template <typename Tiles>
EIGENQ_HOST_DEVICE constexpr int stageBytes(int rows) {
  return Tiles::kLines * rows * kLine + Tiles::kXBytes + (Tiles::kLines * rows * kLineParts * 4 + 1023) / 1024 * 1024;
}
template <typename Tiles>
EIGENQ_HOST_DEVICE constexpr int stagesFor(int rows) {
  const int fit = (kTableAt + kSharedBytes - kStagesAt) / stageBytes<Tiles>(rows);
  return fit < kMostStages ? fit : kMostStages;
}

/** Where things lie in the shared window. */
template <typename Tiles>
struct Memory {
  std::uint32_t window;
  int rows, bytes, stages;

  __device__ __forceinline__ Memory(const void* memory, int tiles)
      : window(ptx::sharedAddress(memory) - kTableAt),
        rows(tiles * kTileRows),
        bytes(stageBytes<Tiles>(rows)),
        stages(stagesFor<Tiles>(rows)) {
    if (window % fourbit::kTableBytes != 0) __trap();
  }
  __device__ __forceinline__ std::uint32_t codes(int slot, int line) const {
    return window + kStagesAt + slot * bytes + line * rows * kLine;
  }
  __device__ __forceinline__ std::uint32_t x(int slot) const { return codes(slot, Tiles::kLines); }
  __device__ __forceinline__ std::uint32_t absmax(int slot, int line) const {
    return x(slot) + Tiles::kXBytes + line * rows * kLineParts * 4;
  }
  /** Sums of a part of K, token after token; behind the last stage. */
  __device__ __forceinline__ std::uint32_t sums(int part, int token) const {
    return window + kStagesAt + 4 * (part * Tiles::kTokens + token) * (rows + 4);
  }
  // Barriers lie in the halves of the table's entries that are free.
  __device__ __forceinline__ std::uint32_t full(int slot) const { return barrier(2 * slot); }
  __device__ __forceinline__ std::uint32_t empty(int slot) const { return barrier(2 * slot + 1); }

 private:
  __device__ __forceinline__ std::uint32_t barrier(int i) const {
    return window + kTableAt + fourbit::kFreeOffset + i * fourbit::kEntryBytes;
  }
};

/** Tiles of a block: shares as even as whole tiles allow. */
struct Share {
  int first, tiles;
  __device__ __forceinline__ explicit Share(const Problem& p) {
    const int block = static_cast<int>(blockIdx.x), blocks = static_cast<int>(gridDim.x);
    first = static_cast<int>(std::int64_t{p.tiles} * block / blocks);
    tiles = static_cast<int>(std::int64_t{p.tiles} * (block + 1) / blocks) - first;
  }
};

/** The one thread that has stages copied. */
template <typename Tiles>
class Copier {
 public:
  __device__ __forceinline__ Copier(const Problem& p, const Maps& maps, const Memory<Tiles>& memory, int firstTile)
      : m_maps(maps), m_memory(memory), m_row(firstTile * kTileRows), m_parts(p.parts) {}

  __device__ __forceinline__ void run() const {
    const int stages = (m_parts + Tiles::kParts - 1) / Tiles::kParts;
    Slot slot;
    for (int i = 0; i < stages; ++i, slot.advance(m_memory.stages)) {
      ptx::wait(m_memory.empty(slot.index), slot.parity ^ 1);
      copyStage(i, slot.index);
    }
  }

 private:
  __device__ __forceinline__ void copyStage(int stage, int slot) const {
    const std::uint32_t full = m_memory.full(slot);
    constexpr int kBytesOfRow = Tiles::kLines * (kLine + kLineParts * 4);
    ptx::arriveExpecting(full, m_memory.rows * kBytesOfRow + Tiles::kXBytes);
#pragma unroll
    for (int line = 0; line < Tiles::kLines; ++line) {
      const int part = stage * Tiles::kParts + line * kLineParts;
      ptx::copyBox(m_memory.codes(slot, line), &m_maps.codes, part * (kDeep / 2), m_row, full);
      ptx::copyBox(m_memory.absmax(slot, line), &m_maps.absmax, part * 4, m_row, full);
    }
    ptx::copyBox(m_memory.x(slot), &m_maps.x, 0, 0, stage * Tiles::kParts, full);
  }

  const Maps& m_maps;
  const Memory<Tiles>& m_memory;
  int m_row, m_parts;
};

}  // namespace fourbit_rows
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_FOURBIT_ROWS_SM90_STAGES_CUH
