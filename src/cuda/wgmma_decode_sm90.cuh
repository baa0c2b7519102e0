// SPDX-License-Identifier: MPL-2.0
// wgmma_decode_sm90.cuh: Y = epilogue(X·Wᵀ) on Hopper's tensor cores for 17 rows of X and more, W in NF4, FP4 or int8 as
// it is stored. W is decoded on its way into them and never lies decoded in memory.
//
//                 tokens: 32, 64, 128 or 256          Sums are those of Yᵀ = W·Xᵀ: 64 rows of W are what a warpgroup
//               ┌─────────────────────────┐           multiplies from its registers, so that they are decoded where
//   rows of W:  │ warpgroup 0             │ 64        they are used; X comes from shared memory.
//   64 each     ├─────────────────────────┤           One thread of the last warpgroup has the copy engine bring codes,
//               │ warpgroup 1   (… 3)     │ 64        128 B of a row at a time, and absmax; another X, 64 to 256 k at a
//               └─────────────────────────┘           time.
//
//   a step, 64 k      codes s + 1 ── PRMT, pair table or arithmetic ── fragments s + 1
//                     fragments s ── 4 wgmma, X from shared memory ── products s ── × absmax ── sums
//
// Traffic  0.5 B of codes + 4/64 B of absmax per 4-bit weight, 1 B per int8 weight, from memory; X and parts of sums from
//          the second-level cache. Passes of shared memory per 1024 weights of a tile of 128 rows: 16 for the pair
//          table, 4 + 4 for codes (int8: 8 + 8, no table), n/4 for wgmma's reads of X and n/8 for their copies, at n
//          tokens.
// Work     2·m·n·k FLOP at nominally 989 TFLOP/s, 790 with random data. A step takes 4 · n/2 clocks of the tensor cores
//          per warpgroup, and of each warp's slots about 100 + n/2: 16 PRMT, 16 lookups, n/2 FFMA; int8: 45.
// Scales   Of int8 those of rows multiply the sums in the end: codes are exact in 16 bits. Of 4 bits, up to 64 tokens,
//          in half up to 128, absmax multiplies float sums of a block of 64 (Plain): as in fourbit_decode_mma.cuh. That
//          waits for the products; with more tokens absmax multiplies the weights (Scaled), 80 slots more (half: 144),
//          with two steps under way: at 8192×8192 with 1024 rows 1.37 times as fast in half, and no worse than
//          dequantising first, which rounds the same.
// Measured On an H200 a step of a tile of 128 rows takes 0.25 us at 32 tokens, 0.30 at 64, 0.45 at 128 and 0.7 at 256,
//          of which the tensor cores need 0.07, 0.13, 0.26 and 0.52 at 1.98 GHz: its latencies are what is left,
//          barriers (50 clocks each), issue (100), decoding (200) and scaling (40). Blocks of two CTAs that share X by
//          multicast changed nothing; warpgroups that multiply in a fixed order neither; X loaded word by word with
//          cp.async took up to four times as long, and in its stored order, with codes read four times over, 5 to 10 %
//          longer; packed by idle warps of each block, from 16-byte loads, twice as long and more. A chunk of 128 k of
//          int8 takes 0.68 us at 64 tokens, 0.76 at 128 and 1.38 at 256; codes read a step ahead changed nothing.
// Order    Sums of shares of K are added in ascending order of k: the same bits in every run.
// Needs    What refuseFourBitWgmma() and refuseInt8WeightOnlyWgmma() say.
#ifndef EIGENQ_CUDA_WGMMA_DECODE_SM90_CUH
#define EIGENQ_CUDA_WGMMA_DECODE_SM90_CUH

#include <type_traits>

#include "wgmma_decode_sm90_exchange.cuh"
#include "ptx_wgmma_sm90.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace wgmma_decode {

/** One thread copies codes and absmax. */
template <typename Tiles>
__device__ __forceinline__ void copyCodes(const Problem& p, const CUtensorMap& codes, const CUtensorMap& scales,
                                          const Memory<Tiles>& memory) {
  Ring<Tiles::kCodeStages> slot;
  Units units(p);
  for (Unit unit; units.next(unit);) {
    const int row = unit.rowTile * Tiles::kRows;
    for (int chunk = unit.firstChunk; chunk < unit.lastChunk; ++chunk, slot.advance()) {
      const std::uint32_t full = memory.codesFull(slot.index);
      ptx::wait(memory.codesEmpty(slot.index), slot.parity ^ 1);
      ptx::arriveExpecting(full, Tiles::kCodeStageBytes);
      ptx::copyBox(memory.codes(slot.index), &codes, chunk * kLine, row, full);
      if constexpr (Tiles::Weights::kScaleBytes > 0)
        ptx::copyBox(memory.scales(slot.index), &scales, chunk * Tiles::Weights::kScaleBytes, row, full);
    }
  }
}

/** One thread copies X, which lies packed as stages are. */
template <typename Tiles>
__device__ __forceinline__ void copyActivations(const Problem& p, const Memory<Tiles>& memory) {
  constexpr int kPerChunk = Tiles::Weights::kSteps / Tiles::kXSteps;
  Ring<Tiles::kXStages> slot;
  Units units(p);
  std::uint32_t drained = 1;
  for (Unit unit; units.next(unit); drained ^= 1) {
    if (p.schedule.cluster > 1) ptx::wait(memory.drained(), drained);
    const Index first = (Index{unit.tokenTile} * p.schedule.chunks + unit.firstChunk) * kPerChunk;
    const char* from = static_cast<const char*>(p.x) + first * Tiles::kXStageBytes;
    for (int stage = unit.firstChunk * kPerChunk; stage < unit.lastChunk * kPerChunk; ++stage, slot.advance()) {
      const std::uint32_t full = memory.xFull(slot.index);
      ptx::wait(memory.xEmpty(slot.index), slot.parity ^ 1);
      ptx::arriveExpecting(full, Tiles::kXStageBytes);
      ptx::copyBulk(memory.x(slot.index), from, Tiles::kXStageBytes, full);
      from += Tiles::kXStageBytes;
    }
  }
}

template <typename T, typename Weights>
using ScaleOf = std::conditional_t<Weights::kScalesSums, Plain<T>, Scaled<T>>;

/** What a warpgroup multiplies: the sums of a unit. */
template <typename T, typename Tiles>
class Consumer {
 public:
  using Sums = float[Tiles::kSums];

  /** \param factor  what 4-bit weights' absmax have to be multiplied by */
  __device__ __forceinline__ Consumer(const Problem& problem, const Memory<Tiles>& memory, float factor)
      : m_problem(problem),
        m_memory(memory),
        m_lane(static_cast<int>(threadIdx.x) % 32),
        m_warpRow(static_cast<int>(threadIdx.x) / 32 * 16),
        m_place(memory.table | static_cast<std::uint32_t>(m_lane) * 4),
        m_factor(factor) {}

  __device__ __forceinline__ void sum(const Unit& unit, Sums& acc) {
#pragma unroll
    for (int v = 0; v < Tiles::kSums; ++v) acc[v] = 0;
    if constexpr (Weights::kScalesSums) {
      sumAndScale(unit, acc);
    } else {
      sumScaled(unit, acc);
    }
    if constexpr (!Weights::kHasTable) scaleRows(unit, acc);
  }

 private:
  using Weights = typename Tiles::Weights;
  using Codes = typename Weights::Codes;
  using Scale = ScaleOf<T, Weights>;
  static constexpr int kSteps = Weights::kSteps;

  /** Of the tile: the first of two. */
  __device__ __forceinline__ int row() const { return m_warpRow + Weights::pairOf(m_lane / 4) * 2; }

  /** A chunk that has arrived: where the warp's codes are, and the absmax of the lane's two rows, of each step. */
  struct Chunk {
    std::uint32_t codes;
    float absmax[2][kSteps];
  };
  __device__ __forceinline__ Chunk startChunk() {
    ptx::wait(m_memory.codesFull(m_codes.index), m_codes.parity);
    Chunk chunk;
    chunk.codes = m_memory.codes(m_codes.index) + m_warpRow * kLine;
    if constexpr (Weights::kHasTable) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const float4 v = loadFloats(m_memory.scales(m_codes.index) + (row() + i) * Weights::kScaleBytes);
        chunk.absmax[i][0] = v.x * m_factor;
        chunk.absmax[i][1] = v.y * m_factor;
        chunk.absmax[i][2] = v.z * m_factor;
        chunk.absmax[i][3] = v.w * m_factor;
      }
    }
    return chunk;
  }
  __device__ __forceinline__ void endChunk() {
    __syncwarp();
    if (m_lane == 0) ptx::arrive(m_memory.codesEmpty(m_codes.index));
    m_codes.advance();
  }

  /** A step's weights as they are summed, but for the scales of int8. */
  __device__ __forceinline__ void decode(const Chunk& chunk, int step, Fragments& a) const {
    const Codes codes(chunk.codes, m_lane, step);
    if constexpr (Weights::kHasTable) {
      decodeStep(codes, m_place, Scale{{chunk.absmax[0][step], chunk.absmax[1][step]}}, a);
    } else {
      decodeStep<T>(codes, a);
    }
  }

  /** Queues the products of a step. */
  __device__ __forceinline__ void multiply(Sums& d, Fragments& a, int step, bool accumulate) {
#pragma unroll
    for (int j = 0; j < kMmas; ++j) ptx::settle(a[j]);
    if (step % Tiles::kXSteps == 0) ptx::wait(m_memory.xFull(m_x.index), m_x.parity);
    const std::uint64_t b = ptx::swizzledOperand(m_memory.x(m_x.index) + step % Tiles::kXSteps * Tiles::kXStepBytes);
    ptx::wgmmaFence();
#pragma unroll
    for (int j = 0; j < kMmas; ++j) ptx::wgmma(d, a[j], b + 2 * j, accumulate || j > 0, TypeTag<T>());
    ptx::wgmmaCommit();
    if (step % Tiles::kXSteps == Tiles::kXSteps - 1) m_x.advance();
  }
  /** The products of a step are over. */
  __device__ __forceinline__ void release(int step) {
    if (step % Tiles::kXSteps != Tiles::kXSteps - 1) return;
    if (m_lane == 0) ptx::arrive(m_memory.xEmpty(m_used.index));
    m_used.advance();
  }

  /** Adds a step's products with levels, times absmax. */
  __device__ __forceinline__ void retire(Sums& acc, Sums& products, const Fragments& a, int step, float first,
                                         float second) {
    ptx::wgmmaWait<0>();
    ptx::settle(products);
#pragma unroll
    for (int j = 0; j < kMmas; ++j) ptx::keep(a[j]);
    release(step);
#pragma unroll
    for (int v = 0; v < Tiles::kSums; ++v) acc[v] = fmaf(products[v], v % 4 < 2 ? first : second, acc[v]);
  }

  /** While a step is multiplied, the next is decoded. Nothing is under way from one turn of the loop to the next: the
   * compiler would wait for each product by itself. */
  __device__ __forceinline__ void sumAndScale(const Unit& unit, Sums& acc) {
    Fragments a[2];
    Chunk chunk = startChunk();
    decodeStep(Codes(chunk.codes, m_lane, 0), m_place, Scale(), a[0]);
#pragma unroll 1
    for (int i = unit.firstChunk; i < unit.lastChunk; ++i) {
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        const float first = chunk.absmax[0][step], second = chunk.absmax[1][step];
        Sums products;
        if (step < kSteps - 1) {
          const Codes codes(chunk.codes, m_lane, step + 1);
          multiply(products, a[step % 2], step, false);
          decodeStep(codes, m_place, Scale(), a[(step + 1) % 2]);
        } else {
          multiply(products, a[step % 2], step, false);
          endChunk();
          if (i + 1 < unit.lastChunk) {
            chunk = startChunk();
            decodeStep(Codes(chunk.codes, m_lane, 0), m_place, Scale(), a[0]);
          }
        }
        retire(acc, products, a[step % 2], step, first, second);
      }
    }
  }

  /** Two steps are under way: one is multiplied while the next is decoded and queued. */
  __device__ __forceinline__ void sumScaled(const Unit& unit, Sums& acc) {
    Fragments a[2];
    bool any = false;
#pragma unroll 1
    for (int i = unit.firstChunk; i < unit.lastChunk; ++i) {
      const Chunk chunk = startChunk();
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        decode(chunk, step, a[step % 2]);
        multiply(acc, a[step % 2], step, true);
        if (step == kSteps - 1) endChunk();
        ptx::wgmmaWait<1>();
#pragma unroll
        for (int j = 0; j < kMmas; ++j) ptx::keep(a[(step + 1) % 2][j]);
        if (any) release((step + kSteps - 1) % kSteps);
        any = true;
      }
    }
    ptx::wgmmaWait<0>();
    ptx::settle(acc);
    release(kSteps - 1);
  }

  /** What int8 codes lack. First the absmax: sums with small ones may be beyond float without it. */
  __device__ __forceinline__ void scaleRows(const Unit& unit, Sums& acc) const {
    const int first = unit.rowTile * Tiles::kRows + row(), rows = static_cast<int>(m_problem.out.y.cols);
    float scale[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) scale[i] = first + i < rows ? m_problem.rowAbsmax[first + i] * (1.0f / 127) : 0.0f;
#pragma unroll
    for (int v = 0; v < Tiles::kSums; ++v) acc[v] = acc[v] * scale[v / 2 % 2] * CodePairs<T>::kUnit;
  }

  const Problem& m_problem;
  const Memory<Tiles>& m_memory;
  int m_lane, m_warpRow;
  std::uint32_t m_place;
  float m_factor;
  Ring<Tiles::kCodeStages> m_codes;
  Ring<Tiles::kXStages> m_x, m_used;
};

/** What becomes of the sums of a cluster's tile. \param parity  of the cluster's tiles before */
template <typename T, typename Tiles, int kBlocks>
__device__ __forceinline__ void finishTogether(const Problem& p, const Memory<Tiles>& memory, const Unit& unit,
                                               const Place& at, const float (&sums)[Tiles::kSums],
                                               std::uint32_t parity) {
  using Shared = Exchange<Tiles, kBlocks>;
  Shared(memory, unit.share).run(sums, parity, [&](int token, const typename Shared::Piece& total) {
    finish<T>(p.out, {at.col, at.token + token}, total);
  });
}

template <typename T, typename Tiles>
__device__ __forceinline__ void consume(const Problem& p, const Memory<Tiles>& memory, float factor) {
  Consumer<T, Tiles> consumer(p, memory, factor);
  Units units(p);
  std::uint32_t parity = 0;
  for (Unit unit; units.next(unit); parity ^= 1) {
    float sums[Tiles::kSums];
    consumer.sum(unit, sums);
    if (unit.part != Unit::kWhole) {
      storePart<Tiles>(p.out, unit.part, sums);
      continue;
    }
    const Index row = Index{unit.rowTile} * Tiles::kRows + threadIdx.x / kGroup * kGroupRows;
    const Place at = placeOf(row, Index{unit.tokenTile} * Tiles::kTokens, Tiles::Weights::pairOf(groupOfLane()));
    switch (p.schedule.cluster) {
      case 2:
        finishTogether<T, Tiles, 2>(p, memory, unit, at, sums, parity);
        break;
      case 3:
        finishTogether<T, Tiles, 3>(p, memory, unit, at, sums, parity);
        break;
      default:
        finish<T>(p.out, at, sums);
    }
  }
}

template <typename Tiles>
__device__ __forceinline__ void initBarriers(const Memory<Tiles>& memory, int cluster) {
  constexpr int kWarps = Tiles::kGroups * 4;
  for (int slot = 0; slot < Tiles::kCodeStages; ++slot) {
    ptx::initBarrier(memory.codesFull(slot), 1);
    ptx::initBarrier(memory.codesEmpty(slot), kWarps);
  }
  for (int slot = 0; slot < Tiles::kXStages; ++slot) {
    ptx::initBarrier(memory.xFull(slot), 1);
    ptx::initBarrier(memory.xEmpty(slot), kWarps);
  }
  ptx::initBarrier(memory.ready(), cluster * kWarps);
  ptx::initBarrier(memory.received(), 1);
  ptx::initBarrier(memory.drained(), kWarps);
  ptx::fenceBarrierInit();
}

constexpr int kConsumerBarrier = 1;

/** Persistent blocks, in clusters where these share tiles. The kernel before packs X; what came before that is over by
 * the time it lets this one begin. */
template <typename T, typename Tiles>
__global__ void __maxnreg__(Tiles::kRegisters)
    wgmmaProduct(const __grid_constant__ Problem p, const __grid_constant__ CUtensorMap codes,
                 const __grid_constant__ CUtensorMap scales) {
  extern __shared__ __align__(1024) unsigned char bytes[];
  constexpr int kConsumers = Tiles::kGroups * kGroup;
  const bool clustered = p.schedule.cluster > 1;
  const Memory<Tiles> memory(bytes);
  if (threadIdx.x == kConsumers) initBarriers(memory, p.schedule.cluster);
  ptx::allowNextKernel();
  __syncthreads();
  if (clustered) ptx::arriveAtCluster();
  const int copier = static_cast<int>(threadIdx.x) - kConsumers;
  if (copier < 0) {
    ptx::takeRegisters<Tiles::kTakenRegisters>();
    float factor = 1;
    if constexpr (Tiles::Weights::kHasTable) {
      factor = ScaleOf<T, typename Tiles::Weights>::fillTable(memory.table, p.codeTable, kConsumers);
      ptx::syncThreads(kConsumerBarrier, kConsumers);
    }
    if (clustered) ptx::waitForCluster();  // others' barriers are initialised
    consume<T>(p, memory, factor);
    return;
  }
  ptx::giveRegisters<Tiles::kGivenRegisters>();
  if (copier == 0) copyCodes(p, codes, scales, memory);
  if (copier == 32) {
    ptx::waitForLastKernel();
    copyActivations(p, memory);
  }
  __syncwarp();
  if (clustered) ptx::waitForCluster();
}

}  // namespace wgmma_decode
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_WGMMA_DECODE_SM90_CUH
