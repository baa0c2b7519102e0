// SPDX-License-Identifier: MPL-2.0
// fourbit_gemm_sm90.cuh: Y = epilogue(X·Wᵀ) or epilogue(X·W) on Hopper for many rows of X, W in NF4 or FP4 as it is
// stored. W is decoded once for a team of clusters, a few steps before the tensor cores of all of them need it.
//
//                  tokens of members 0 … 7, 256 each
//                ┌───────┬───────┬───────┬─ ─ ─┬───────┐       A team: 1, 2, 4 or 8 clusters of two blocks, which have
//   rows of W:   │       │       │       │     │       │ 128   the same 256 rows of W (X·W: columns) and tokens of
//   256 a team   ├───────┼───────┼───────┼─ ─ ─┼───────┤       their own. Sums are those of Yᵀ. The blocks of a cluster
//                │       │       │       │     │       │ 128   share X by multicast.
//                └───────┴───────┴───────┴─ ─ ─┴───────┘
//
//   step n, 64 k   member n % 8: codes ── PRMT × absmax ──► ring of 32 steps in the second-level cache, a count each
//                  all members:  ring ──► 16 KiB of a stage; X ──► 32 KiB ── wgmma, both factors from shared memory
//
//   a block        2 warpgroups multiply, 64 × 256 each; 1 warp has X copied, 1 weights, 2 decode
//
// Traffic  A step of a block: 16 KiB of X and 16 of weights from the second-level cache, where they come to once a
//          team. Memory sees codes, and X once for all teams that run together.
// Work     2·m·n·k FLOP at nominally 989 TFLOP/s; 790 is what random data leave of it. wgmma takes 80 B a clock of
//          shared memory's 128, copies 48, so that tables there were too much; its sums take half of what registers can
//          be read and written, and decoding in the same warps, or for one block alone, costs all that it hides.
// Measured On an H200, 8192×8192 by 2048 tokens, in us: 342 without decoding; 376 with teams of 8, 488 with teams of 4
//          (a step takes its decoders 3.8 us). A block that decodes for itself: 451 by a warpgroup of its own, 465 in
//          the warps that multiply. One that asks for the count of each step by itself: 560.
// Order    Each sum is one wgmma after another in ascending k: the same bits in every run.
// Progress All blocks must be on the device at once: a cooperative launch, which waits for room or fails. Step n is
//          written when all members have read step n - 32, which they say when they come to step n - 28, and read when
//          it is written: every wait is for a step before it, or for X. The first 32 are written without waiting.
#ifndef EIGENQ_CUDA_FOURBIT_GEMM_SM90_CUH
#define EIGENQ_CUDA_FOURBIT_GEMM_SM90_CUH

#include <cuda.h>

#include "fourbit_gemm_sm90_decode.cuh"
#include "fourbit_gemm_sm90_tiles.cuh"
#include "ptx.cuh"
#include "ptx_sm90.cuh"
#include "ptx_team_sm90.cuh"
#include "ptx_wgmma_sm90.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace fourbit_gemm {

/** One thread has X copied, its share of each stage to all blocks of the cluster. */
__device__ __forceinline__ void copyActivations(const Problem& p, const CUtensorMap& x, const Place& place,
                                                const Memory& memory) {
  constexpr int kShare = kTileTokens / kCluster;
  Slot slot;
  for (int tile = place.team; tile < p.tiles; tile += p.teams) {
    const int token = place.token(p, tile) + place.rank * kShare;
    for (int step = 0; step < p.steps; ++step, slot.advance()) {
      const std::uint32_t full = memory.full(slot.index);
      ptx::wait(memory.empty(slot.index), slot.parity ^ 1);
      ptx::arriveExpecting(full, kXBytes);
      ptx::copyBoxToBlocks(memory.x(slot.index) + place.rank * kShare * 128, &x, step * 128, token, full,
                           (1 << kCluster) - 1);
    }
  }
}

/** How many steps from \a n on have been decoded, at least one; a lane looks at each. What it takes to ask the
 * second-level cache is shared among them. */
__device__ __forceinline__ int decodedSteps(const Counters& counters, int n, int lane) {
  static_assert(kRing == 32, "a slot a lane");
  const int slot = (n + lane) % kRing;
  const unsigned least = static_cast<unsigned>((n + lane) / kRing + 1) * kDecodingWarps;
  unsigned ready;
  do {
    ready = __ballot_sync(0xffffffffu, ptx::loadCount(&counters.written[slot]) >= least);
  } while ((ready & 1) == 0);
  __syncwarp();  // what any lane sees, the one that copies does
  return ready == 0xffffffffu ? kRing : __ffs(static_cast<int>(~ready)) - 1;
}

/** A warp that has weights copied as soon as they have been decoded. */
__device__ __forceinline__ void copyWeights(const Problem& p, const Place& place, const Memory& memory, int lane) {
  Counters& counters = place.counters(p);
  const int steps = stepsOf(p, place.team);
  Slot slot;
  for (int n = 0; n < steps;) {
    const int decoded = decodedSteps(counters, n, lane), end = n + decoded < steps ? n + decoded : steps;
    ptx::fenceAsyncProxyEverywhere();
    for (; n < end; ++n, slot.advance()) {
      if (lane != 0) continue;
      const std::uint32_t full = memory.full(slot.index);
      ptx::wait(memory.empty(slot.index), slot.parity ^ 1);
      if (n >= kStages) ptx::count(&counters.read[(n - kStages) % kRing]);  // what this stage held
      ptx::arriveExpecting(full, kWBytes);
      ptx::copyBulk(memory.w(slot.index), place.weights(p, n), kWBytes, full);
    }
    __syncwarp();
  }
}

/** Codes of a line and their absmax. */
struct Codes {
  uint4 words[2];
  float absmax;
};

/** What a lane decodes: a line of each step. */
template <bool kColumns>
class Line {
 public:
  __device__ __forceinline__ Line(const Problem& p, const Place& place, int number)
      : m_p(p),
        m_place(place),
        m_number(number),
        // Physical rows 16i + g and 16i + g + 8 are rows 16i + 2g and 16i + 2g + 1.
        m_row(kColumns ? number % kDeep : number / 16 * 16 + number % 8 * 2 + number / 8 % 2) {}

  /** Of step \a n, counted through the team's tiles; zeros behind W's rows and columns. */
  __device__ __forceinline__ void load(int n, Codes& codes) const {
    const int tile = m_place.team + n / m_p.steps * m_p.teams, step = n % m_p.steps, row = m_place.row(m_p, tile);
    const int i = kColumns ? step * kDeep + m_row : row + m_row;
    const int j = kColumns ? row + m_number / kDeep * kDeep : step * kDeep;
    codes = {};
    if (i >= m_p.rows || j >= m_p.cols) return;
    const std::uint8_t* const from = m_p.codes + i * m_p.codeStride + j / 2;
    codes.words[0] = ptx::loadCached(from);
    codes.words[1] = ptx::loadCached(from + 16);
    codes.absmax = __ldg(m_p.absmax + i * m_p.absmaxStride + j / kDeep);
  }

  template <typename T>
  __device__ __forceinline__ void decode(const float (&levels)[16], const Codes& codes, uint4* weights,
                                         TypeTag<T> tag) const {
    decodeLine<kColumns>(weights + m_number * 8, m_number, codes.words, BlockLevels(levels, codes.absmax, tag));
  }

 private:
  const Problem& m_p;
  const Place& m_place;
  int m_number, m_row;
};

/** Warps that decode each step that is the cluster's turn, for all of the team. Codes are loaded a turn ahead, so that
 * counting what was written waits for no loads. */
template <typename T, bool kColumns>
__device__ __forceinline__ void decodeWeights(const Problem& p, const Place& place, int thread) {
  constexpr int kLanes = kDecodingWarps * 32;
  static_assert(2 * kLanes == kBlockRows, "two lines a lane");
  float levels[16];
#pragma unroll
  for (int i = 0; i < 16; ++i) levels[i] = p.codeTable[i];
  Counters& counters = place.counters(p);
  const int steps = stepsOf(p, place.team);
  const Line<kColumns> first(p, place, thread), second(p, place, thread + kLanes);
  Codes next[2] = {};
  if (place.member < steps) {
    first.load(place.member, next[0]);
    second.load(place.member, next[1]);
  }
  unsigned read = 0;  // times that blocks had read the slot by the time of the turn before
#pragma unroll 1
  for (int n = place.member; n < steps; n += p.members) {
    const Codes codes[2] = {next[0], next[1]};
    if (n + p.members < steps) {
      first.load(n + p.members, next[0]);
      second.load(n + p.members, next[1]);
    }
    const int slot = n % kRing;
    const unsigned least = static_cast<unsigned>(n / kRing * p.members);
    // No acquire: what is written below hangs on this count, and the reads that it counts have arrived.
    while (read < least) read = ptx::peekCount(&counters.read[slot]);
    read = ptx::peekCount(&counters.read[(n + p.members) % kRing]);
    uint4* const weights = place.weights(p, n);
    first.decode(levels, codes[0], weights, TypeTag<T>());
    second.decode(levels, codes[1], weights, TypeTag<T>());
    __syncwarp();
    if (thread % 32 == 0) ptx::countWritten(&counters.written[slot]);
  }
}

/** Hands a stage back to all blocks that copy to it. */
__device__ __forceinline__ void release(const Memory& memory, int slot) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (lane < kCluster) ptx::arriveAtBlock(memory.empty(slot), lane);
}

/** Sums of a tile, by a warpgroup. A stage goes back a step late, when the products that read it are over. */
template <typename T, bool kColumns>
__device__ __forceinline__ void multiply(const Memory& memory, int group, int steps, Slot& slot, float (&sums)[kSums]) {
  constexpr int kSliceOfW = kColumns ? 16 * 128 / 16 : 2;  // 16 k, in units of the operand's address
  int previous = 0;
  for (int step = 0; step < steps; ++step, slot.advance()) {
    ptx::wait(memory.full(slot.index), slot.parity);
    const std::uint64_t w = ptx::swizzledOperand(memory.w(slot.index) + group * kGroupRows * 128);
    const std::uint64_t x = ptx::swizzledOperand(memory.x(slot.index));
    ptx::wgmmaFence();
#pragma unroll
    for (int j = 0; j < kDeep / 16; ++j)
      ptx::wgmmaShared<kColumns>(sums, w + j * kSliceOfW, x + 2 * j, step > 0 || j > 0, TypeTag<T>());
    ptx::wgmmaCommit();
    ptx::wgmmaWait<1>();
    if (step > 0) release(memory, previous);
    previous = slot.index;
  }
  ptx::wgmmaWait<0>();
  ptx::settle(sums);
  release(memory, previous);
}

/** Stores a warpgroup's sums, 32 tokens after 32, by way of shared memory: the copy engine takes them from there while
 * the next ones are written. A line of 128 bytes is a token's 64 values, swizzled as boxes are. */
template <typename T, bool kPlain>
__device__ __forceinline__ void storeBoxes(const Problem& p, const CUtensorMap& y, const Memory& memory, int group,
                                           Index row, int token, const float (&sums)[kSums]) {
  constexpr int kPieces = kTileTokens / kStoreTokens, kWords = kSums / 2 / kPieces;
  const wgmma_decode::Output& out = p.out;
  const int thread = static_cast<int>(threadIdx.x) % kGroup, warp = thread / 32, g = thread % 32 / 4, c = thread % 4;
  const wgmma_decode::Place place = wgmma_decode::placeOf(row, token);
  const float2 bias = place.col < out.y.cols ? columnBiases<T>(out.epilogue, place.col) : float2{0, 0};
#pragma unroll
  for (int piece = 0; piece < kPieces; ++piece) {
    const std::uint32_t buffer = memory.store(group, piece % kStores);
#pragma unroll
    for (int v = 0; v < kWords; ++v) {
      const int line = v / 2 * 8 + c * 2 + v % 2, i = piece * kWords / 2 + v / 2;
      const Index at = place.token - 2 * c + piece * kStoreTokens + line;
      if (!kPlain && (at >= out.y.rows || place.col >= out.y.cols)) continue;  // not copied either
      const float2 sum = {sums[4 * i + v % 2], sums[4 * i + 2 + v % 2]};
      storeShared(buffer + line * 128 + (((warp * 2 + g / 4) ^ line % 8) << 4) + g % 4 * 4,
                  kPlain ? packPair<T>(sum.x, sum.y) : pairOf<T>(out.epilogue, sum, bias, at, place.col));
    }
    ptx::fenceAsyncProxy();
    if (thread == 0) ptx::waitForReads<0>();  // of the other buffer, which is written next
    ptx::syncThreads(1 + group, kGroup);
    if (thread == 0 && row < out.y.cols) {
      ptx::storeBox(&y, static_cast<int>(row) * 2, token + piece * kStoreTokens, buffer);
      ptx::commitStores();
    }
  }
}

template <typename T, bool kColumns>
__device__ __forceinline__ void consume(const Problem& p, const CUtensorMap& y, const Place& place,
                                        const Memory& memory) {
  const int group = static_cast<int>(threadIdx.x) / kGroup;
  Slot slot;
  for (int tile = place.team; tile < p.tiles; tile += p.teams) {
    float sums[kSums];
    multiply<T, kColumns>(memory, group, p.steps, slot, sums);
    const Index row = place.row(p, tile) + group * kGroupRows;
    const int token = place.token(p, tile);
    if (!p.boxes) {
      wgmma_decode::storeSlowly<T>(p.out, wgmma_decode::placeOf(row, token), sums);
    } else if (p.plain) {
      storeBoxes<T, true>(p, y, memory, group, row, token, sums);
    } else {
      storeBoxes<T, false>(p, y, memory, group, row, token, sums);
    }
  }
  if (threadIdx.x % kGroup == 0) ptx::waitForReads<0>();  // before the block's memory is another's
}

__device__ __forceinline__ void initBarriers(const Memory& memory) {
  for (int slot = 0; slot < kStages; ++slot) {
    ptx::initBarrier(memory.full(slot), 2);  // X and weights
    ptx::initBarrier(memory.empty(slot), kCluster * kConsumers * kGroup / 32);
  }
  ptx::fenceBarrierInit();
}

/** Persistent blocks, all of them at once. */
template <typename T, bool kColumns>
__global__ void __launch_bounds__(kThreads, 1)
    multiplyFourBit(const __grid_constant__ Problem p, const __grid_constant__ CUtensorMap x,
                    const __grid_constant__ CUtensorMap y) {
  extern __shared__ __align__(1024) unsigned char bytes[];
  const Memory memory(bytes);
  const Place place(p);
  if (threadIdx.x == 0) initBarriers(memory);
  ptx::meetCluster();
  // Registers: 168 a thread at the start; 2·184 + 136 are three times that.
  if (threadIdx.x < kConsumers * kGroup) {
    ptx::takeRegisters<184>();
    consume<T, kColumns>(p, y, place, memory);
  } else {
    ptx::giveRegisters<136>();
    const int thread = static_cast<int>(threadIdx.x) - kConsumers * kGroup;
    if (thread == 0) copyActivations(p, x, place, memory);
    if (thread / 32 == 1) copyWeights(p, place, memory, thread % 32);
    if (thread >= 64) decodeWeights<T, kColumns>(p, place, thread - 64);
    __syncwarp();
  }
  ptx::meetCluster();  // nothing arrives at a block that has left
}

}  // namespace fourbit_gemm
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_FOURBIT_GEMM_SM90_CUH
