// SPDX-License-Identifier: MPL-2.0
// fourbit_wgmma_sm90.cuh: Y = epilogue(X·Wᵀ) on Hopper's tensor cores for 17 rows of X and more, W in NF4 or FP4 as it
// is stored. W is decoded on its way into them and never lies decoded in memory.
//
//                 tokens: 32, 64, 128 or 256          Sums are those of Yᵀ = W·Xᵀ: 64 rows of W are what a warpgroup
//               ┌─────────────────────────┐           multiplies from its registers, so that they are decoded where
//   rows of W:  │ warpgroup 0             │ 64        they are used; X comes from shared memory.
//   64 each     ├─────────────────────────┤           One thread of the last warpgroup has the copy engine bring codes
//               │ warpgroup 1   (… 3)     │ 64        and absmax, 256 k at a time; another X, 64 to 256 k at a time.
//               └─────────────────────────┘
//
//   a step, 64 k      codes s + 1 ── PRMT, pair table ── fragments s + 1
//                     fragments s ── 4 wgmma, X from shared memory ── products s ── × absmax ── sums
//
// Traffic  0.5 B of codes + 4/64 B of absmax per weight from memory, X and parts of sums from the second-level cache.
//          Passes of shared memory per 1024 weights of a tile of 128 rows: 16 for the pair table, 4 + 4 for codes,
//          n/4 for wgmma's reads of X and n/8 for their copies, at n tokens.
// Work     2·m·n·k FLOP at nominally 989 TFLOP/s, 790 with random data. A step takes 4 · n/2 clocks of the tensor cores
//          per warpgroup, and of each warp's slots about 100 + n/2: 16 PRMT, 16 lookups, n/2 FFMA.
// Scales   Up to 64 tokens, and in half always, absmax multiplies float sums of a block of 64 (Plain): as in
//          fourbit_decode_mma.cuh. That waits for the products; from 65 bfloat16 tokens on absmax multiplies the
//          weights (Scaled), 80 slots more, with two steps under way: 7 % faster at 128 tokens, and no worse than
//          dequantising first, which rounds the same.
// Measured On an H200 a step of a tile of 128 rows takes 0.25 us at 32 tokens, 0.30 at 64, 0.45 at 128 and 0.7 at 256,
//          of which the tensor cores need 0.07, 0.13, 0.26 and 0.52 at 1.98 GHz: its latencies are what is left,
//          barriers (50 clocks each), issue (100), decoding (200) and scaling (40). Blocks of two CTAs that share X by
//          multicast changed nothing; warpgroups that multiply in a fixed order neither; X loaded word by word with
//          cp.async took up to four times as long, and in its stored order, with codes read four times over, 5 to 10 %
//          longer; packed by idle warps of each block, from 16-byte loads, twice as long and more.
// Order    Sums of shares of K are added in ascending order of k: the same bits in every run.
// Needs    What refuseFourBitWgmma() says.
#ifndef EIGENQ_CUDA_FOURBIT_WGMMA_SM90_CUH
#define EIGENQ_CUDA_FOURBIT_WGMMA_SM90_CUH

#include <type_traits>

#include "fourbit_wgmma_sm90_exchange.cuh"
#include "ptx_wgmma_sm90.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace fourbit_wgmma {

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
      ptx::copyBox(memory.scales(slot.index), &scales, chunk * kSteps * 4, row, full);
    }
  }
}

/** One thread copies X, which lies packed as stages are. */
template <typename Tiles>
__device__ __forceinline__ void copyActivations(const Problem& p, const Memory<Tiles>& memory) {
  constexpr int kPerChunk = kSteps / Tiles::kXSteps;
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

/** What a warpgroup multiplies: the sums of a unit. */
template <typename T, typename Tiles>
class Consumer {
 public:
  using Sums = float[Tiles::kSums];

  __device__ __forceinline__ Consumer(const Memory<Tiles>& memory, float factor)
      : m_memory(memory),
        m_lane(static_cast<int>(threadIdx.x) % 32),
        m_warpRow(static_cast<int>(threadIdx.x) / 32 * 16),
        m_place(memory.table | static_cast<std::uint32_t>(m_lane) * 4),
        m_factor(factor) {}

  __device__ __forceinline__ void sum(const Unit& unit, Sums& acc) {
#pragma unroll
    for (int v = 0; v < Tiles::kSums; ++v) acc[v] = 0;
    if constexpr (Tiles::kScaled) {
      sumScaled(unit, acc);
    } else {
      sumPlain(unit, acc);
    }
  }

 private:
  /** Of the tile: the first of two. */
  __device__ __forceinline__ int row() const { return m_warpRow + m_lane / 4 * 2; }

  /** Waits for codes. \param absmax  of the lane's two rows, of each step; \returns where the warp's codes are */
  __device__ __forceinline__ std::uint32_t startChunk(float (&absmax)[2][kSteps]) {
    ptx::wait(m_memory.codesFull(m_codes.index), m_codes.parity);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float4 v = loadFloats(m_memory.scales(m_codes.index) + (row() + i) * kSteps * 4);
      absmax[i][0] = v.x * m_factor;
      absmax[i][1] = v.y * m_factor;
      absmax[i][2] = v.z * m_factor;
      absmax[i][3] = v.w * m_factor;
    }
    return m_memory.codes(m_codes.index) + m_warpRow * kLine;
  }
  __device__ __forceinline__ void endChunk() {
    __syncwarp();
    if (m_lane == 0) ptx::arrive(m_memory.codesEmpty(m_codes.index));
    m_codes.advance();
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
  __device__ __forceinline__ void sumPlain(const Unit& unit, Sums& acc) {
    Fragments a[2];
    float absmax[2][kSteps];
    std::uint32_t stage = startChunk(absmax);
    decodeStep(Codes(stage, m_lane, 0), m_place, Plain(), a[0]);
#pragma unroll 1
    for (int chunk = unit.firstChunk; chunk < unit.lastChunk; ++chunk) {
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        const float first = absmax[0][step], second = absmax[1][step];
        Sums products;
        if (step < kSteps - 1) {
          const Codes codes(stage, m_lane, step + 1);
          multiply(products, a[step % 2], step, false);
          decodeStep(codes, m_place, Plain(), a[(step + 1) % 2]);
        } else {
          multiply(products, a[step % 2], step, false);
          endChunk();
          if (chunk + 1 < unit.lastChunk) {
            stage = startChunk(absmax);
            decodeStep(Codes(stage, m_lane, 0), m_place, Plain(), a[0]);
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
    for (int chunk = unit.firstChunk; chunk < unit.lastChunk; ++chunk) {
      float absmax[2][kSteps];
      const std::uint32_t stage = startChunk(absmax);
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        const Codes codes(stage, m_lane, step);
        decodeStep(codes, m_place, Scaled<T>{{absmax[0][step], absmax[1][step]}}, a[step % 2]);
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
  Consumer<T, Tiles> consumer(memory, factor);
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
    const Place at = placeOf(row, Index{unit.tokenTile} * Tiles::kTokens);
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
  using Level = std::conditional_t<Tiles::kScaled, __half, T>;
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
    const float factor = fourbit::fillPairTable<Level>(memory.table, p.codeTable, kConsumers);
    ptx::syncThreads(kConsumerBarrier, kConsumers);
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

}  // namespace fourbit_wgmma
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_FOURBIT_WGMMA_SM90_CUH
