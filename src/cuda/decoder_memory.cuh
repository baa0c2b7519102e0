// SPDX-License-Identifier: MPL-2.0
// Where the decoder's kernel keeps things in shared memory, and the way of its work: who has which tile when.
#ifndef EIGENQ_CUDA_DECODER_MEMORY_CUH
#define EIGENQ_CUDA_DECODER_MEMORY_CUH

#include "decoder.h"
#include "fourbit_decode_sm90.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace decoder {

using fourbit::kBlock;
using fourbit::kConsumerBarrier;
using fourbit::kConsumerThreads;
using fourbit::kLine;
using fourbit::kLineValues;
using fourbit::kTableBytes;
using fourbit::rowOf;

constexpr int kThreads = kConsumerThreads + 32;
constexpr int kHalfWarps = kWarps / 2;  // that share a stage
constexpr int kStageValues = kHalfWarps * kLineValues;
constexpr int kScalesPerRow = kStageValues / kBlock;
constexpr int kMostStages = 12;
static_assert(32 * kWarps == kConsumerThreads && kStageValues == fourbit::kStageValues, "the same boxes of codes");

/** A stage: codes, absmax, and where that is nested its second level. */
template <bool kNested>
struct Stage {
  static constexpr int kScalesAt = fourbit::kCodeBytes;
  static constexpr int kScaleBytes = kTileRows * kScalesPerRow * (kNested ? 1 : 4);
  static constexpr int kSecondAt = kScalesAt + kScaleBytes, kSecondBytes = kNested ? 512 : 0;
  static constexpr int kBytes = kSecondAt + kSecondBytes;
  static_assert(kBytes % 1024 == 0, "swizzled lines begin at multiples of 1024");
};

/** As StreamMemory: stages fill what is left before and behind the table, which begins at a multiple of its size. */
struct Memory {
  std::uint32_t barriers, byteTable, blocks, front, table, x;
  int before, stages, stageBytes;

  __device__ __forceinline__ Memory(const void* memory, const Problem& p, int stageBytes) : stageBytes(stageBytes) {
    const std::uint32_t start = ptx::sharedAddress(memory);
    constexpr std::uint32_t kTable = fourbit::kTableAlignment;
    barriers = start;
    byteTable = start + 1024;
    blocks = byteTable + fourbit::kByteTableBytes;
    front = (blocks + p.blockCount * static_cast<int>(sizeof(BlockData)) + 1023) & ~1023u;
    table = (front + kTable - 1) & ~(kTable - 1);
    x = start + kSharedBytes - p.xBytes;
    before = static_cast<int>(table - front) / stageBytes;
    // Even, so that a slot is always the same half's: a phase is known by its parity alone, and only who has seen the
    // last one of a slot may wait for the next.
    stages = min(before + static_cast<int>(x - table - kTableBytes) / stageBytes, kMostStages) & ~1;
  }
  __device__ __forceinline__ std::uint32_t stage(int slot) const {
    return slot < before ? front + slot * stageBytes : table + kTableBytes + (slot - before) * stageBytes;
  }
  __device__ __forceinline__ std::uint32_t full(int slot) const { return barriers + 16 * slot; }
  __device__ __forceinline__ std::uint32_t empty(int slot) const { return barriers + 16 * slot + 8; }
  __device__ __forceinline__ std::uint32_t sums() const { return barriers + 512; }  // two floats a warp
};

/** A generic pointer to what lies at an address of the shared window. */
template <typename T>
__device__ __forceinline__ T* sharedPointer(std::uint32_t address) {
  return static_cast<T*>(__cvta_shared_to_generic(address));
}

/** Keeps a value in its register: what the compiler could compute anew from special registers or indexed constants, it
 * would, at a cost of some 50 clocks each time. */
__device__ __forceinline__ int kept(int v) {
  asm volatile("" : "+r"(v));
  return v;
}

/** A thread's place among the consumers. */
struct Lane {
  int warp, lane;
  int g, c;  // of the fragments of an MMA
  int half;  // which stages its warp takes
  int line;  // of 256 k, of such a stage

  __device__ __forceinline__ Lane()
      : warp(kept(static_cast<int>(threadIdx.x / 32))),
        lane(kept(static_cast<int>(threadIdx.x % 32))),
        g(kept(lane >> 2)),
        c(kept(lane & 3)),
        half(kept(warp >> 3)),
        line(kept(warp & 7)) {}
};

struct Tile {
  int matrix;
  int row;     // the first of kTileRows, in the matrix
  int result;  // where its products begin among those of the group
};

/** Products of the same X, computed together. */
enum Products { kAttentionProducts, kOutputProduct, kFfnProducts, kDownProduct, kProductGroups };

struct Group {
  Products kind;
  int depth;    // values of X
  int results;  // of a token
  int tiles;    // of this CTA: every gridDim.x-th; gate's and up's in turn
  int cta, ctas;

  __device__ __forceinline__ Group(const Problem& p, int products) : kind(static_cast<Products>(products)) {
    results = kind == kAttentionProducts ? p.queries + 2 * p.keys : kind == kFfnProducts ? p.ffn : p.hidden;
    depth = kind == kOutputProduct ? p.queries : kind == kDownProduct ? p.ffn : p.hidden;
    cta = kept(static_cast<int>(blockIdx.x));
    ctas = kept(static_cast<int>(gridDim.x));
    results = kept(results);
    depth = kept(depth);
    const int left = (results >> 4) - cta;
    tiles = kept((left > 0 ? (left + ctas - 1) / ctas : 0) << pairs());
  }
  __device__ __forceinline__ bool norms() const { return kind == kAttentionProducts || kind == kFfnProducts; }
  __device__ __forceinline__ bool adds() const { return kind == kOutputProduct || kind == kDownProduct; }
  /** log2 of the tiles that one result needs. */
  __device__ __forceinline__ int pairs() const { return kind == kFfnProducts ? 1 : 0; }

  /** Number \a n of this CTA's. */
  __device__ __forceinline__ Tile tile(const Problem& p, int n) const {
    const int row = (cta + (n >> pairs()) * ctas) * kTileRows;
    Tile t = {kind == kOutputProduct ? kOutput : kind == kFfnProducts ? kGate + n % 2 : kDown, row, row};
    if (kind != kAttentionProducts) return t;
    t.matrix = row < p.queries ? kQuery : row < p.queries + p.keys ? kKey : kValue;
    t.row -= t.matrix == kQuery ? 0 : t.matrix == kKey ? p.queries : p.queries + p.keys;
    return t;
  }
};

}  // namespace decoder
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_DECODER_MEMORY_CUH
