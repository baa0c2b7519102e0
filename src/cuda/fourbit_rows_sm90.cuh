// SPDX-License-Identifier: MPL-2.0
// fourbit_rows_sm90.cuh: Y = epilogue(X·Wᵀ) for up to 32 rows of X on Hopper, W in NF4 or FP4 as it is stored.
//
//              k:  part 0 │ part 1 │ … 4, 8 or 16 parts of 64       A block owns up to 256 rows of W and passes once
//            ┌──────────┬──────────┬──────────┐                     through K, a stage after another. Rows are shared
//   rows of  │ warp 0   │ warp 1   │ …        │  group 0            among groups of warps and the 64 k of a part among
//   W, 16 a  ├──────────┼──────────┼──────────┤                     its tiles: X read from shared memory serves up to
//   tile     │ …        │          │          │  group 1 (… 3)      four of them. Parts' sums meet once, at the end.
//            └──────────┴──────────┴──────────┘
//
//   a warp, 16 rows × 64 k:  codes ── PRMT, pair table ── A of four MMA m16n8k16 ── sums of the block × absmax
//   shared memory            │ 64 KiB: 256 × [ pair table: 32 copies │ barriers ] │ stages: codes │ X │ absmax │
//
// Order of k and rows: as in fourbit_decode_sm90.cuh. Lane c of a row's four has the 8 bytes of k 16c + {0 … 15} of its
//          64, lanes of group g have rows 2(g % 4) + g / 4 and that + 8.
// Traffic  0.5 B of codes + 4/64 B of absmax per weight from memory; X from the second-level cache for each block:
//          2m bytes for its rows · 0.5625 of W.
// Work     Passes of the load/store pipe per 1024 weights: 16 for the pair table, 4 + 4 for codes, m/8 · 8/tiles for X,
//          2 + 0.5 for absmax; with four tiles a warp 29 for 8 rows of X, 31 for 16, 37 for 32.
// Scales   absmax multiplies the float sums of its block; see fourbit_decode_mma.cuh.
// Order    Parts of K are added in ascending order: the same bits in every run.
// Needs    What refuseFourBitRows() says.
#ifndef EIGENQ_CUDA_FOURBIT_ROWS_SM90_CUH
#define EIGENQ_CUDA_FOURBIT_ROWS_SM90_CUH

#include "fourbit_rows_sm90_stages.cuh"
#include "mma.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace fourbit_rows {

// Reads of what has arrived. Nothing holds them but their addresses, which behind() has let go.
__device__ __forceinline__ uint2 loadPair(std::uint32_t address) {
  uint2 v;
  asm("ld.shared.v2.b32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "r"(address));
  return v;
}
__device__ __forceinline__ uint4 loadQuad(std::uint32_t address) {
  uint4 v;
  asm("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(address));
  return v;
}
__device__ __forceinline__ float loadFloat(std::uint32_t address) {
  float v;
  asm("ld.shared.f32 %0, [%1];" : "=f"(v) : "r"(address));
  return v;
}
/** The same address, which is not known before a wait that comes before. */
__device__ __forceinline__ std::uint32_t behind(std::uint32_t address) {
  asm volatile("" : "+r"(address)::"memory");
  return address;
}

/** The two weights of byte kByte of \a codes. \param place  the window's beginning + 4·lane */
template <int kByte>
__device__ __forceinline__ std::uint32_t decodePair(std::uint32_t codes, std::uint32_t place) {
  std::uint32_t pair;
  asm("ld.shared.b32 %0, [%1 + %2];" : "=r"(pair) : "r"(__byte_perm(codes, place, 0x7604 | kByte << 4)), "n"(kTableAt));
  return pair;
}

/** The row of a tile that lanes of group \a g hold, and the one 8 behind. */
__device__ __forceinline__ int rowOf(int g) { return g % 4 * 2 + g / 4; }

/** The sums of a warp: of up to four tiles, over its parts of K. */
template <typename T, typename Tiles, int kTiles>
class Sums {
 public:
  __device__ __forceinline__ Sums(const Memory<Tiles>& memory, int group, int part)
      : m_memory(memory), m_lane(static_cast<int>(threadIdx.x) % 32), m_part(part) {
    m_row = group * kTileRows + rowOf(m_lane / 4);
    m_place = memory.window | static_cast<std::uint32_t>(m_lane) * 4;
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
#pragma unroll
      for (int n = 0; n < Tiles::kColumns; ++n)
        m_sums[i][n][0] = m_sums[i][n][1] = m_sums[i][n][2] = m_sums[i][n][3] = 0;
    }
  }

  __device__ __forceinline__ void addStage(int slot) {
    const int g = m_lane / 4, c = m_lane % 4, line = m_part / kLineParts, within = m_part % kLineParts;
    const std::uint32_t piece = static_cast<std::uint32_t>((2 * within + c / 2) ^ rowOf(g));
    const std::uint32_t codes = behind(m_memory.codes(slot, line) + m_row * kLine + piece * 16 + c % 2 * 8);
    const std::uint32_t absmax = behind(m_memory.absmax(slot, line) + (m_row * kLineParts + within) * 4);
    const std::uint32_t tokens = behind(m_memory.x(slot) + m_part * Tiles::kXPartBytes + g * 2 * kDeep);
    uint4 x[Tiles::kColumns][2];
#pragma unroll
    for (int n = 0; n < Tiles::kColumns; ++n) {
      x[n][0] = loadQuad(tokens + n * 8 * 2 * kDeep + ((2 * c) ^ g) * 16);
      x[n][1] = loadQuad(tokens + n * 8 * 2 * kDeep + ((2 * c + 1) ^ g) * 16);
    }
#pragma unroll
    for (int i = 0; i < kTiles; ++i)
      addTile(m_sums[i], codes + i * Tiles::kGroupRows * kLine, absmax + i * Tiles::kGroupRows * kLineParts * 4, x);
  }

  /** Into the memory of the stages, which nobody reads any more. */
  __device__ __forceinline__ void put() const {
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
#pragma unroll
      for (int n = 0; n < Tiles::kColumns; ++n) {
#pragma unroll
        for (int v = 0; v < 4; ++v) {
          const int token = 8 * n + m_lane % 4 * 2 + v % 2, row = m_row + i * Tiles::kGroupRows + v / 2 * 8;
          fourbit::storeShared(m_memory.sums(m_part, token) + 4 * row, m_sums[i][n][v]);
        }
      }
    }
  }

 private:
  using OfTile = float[Tiles::kColumns][4];

  /** 16 rows × 64 k. */
  __device__ __forceinline__ void addTile(OfTile& sums, std::uint32_t codes, std::uint32_t absmax,
                                          const uint4 (&x)[Tiles::kColumns][2]) const {
    const uint2 low = loadPair(codes), high = loadPair(codes + 8 * kLine);
    const float first = loadFloat(absmax), second = loadFloat(absmax + 8 * kLineParts * 4);
    OfTile d = {};
    multiply<0>(d, low.x, high.x, x);
    multiply<1>(d, low.y, high.y, x);
#pragma unroll
    for (int n = 0; n < Tiles::kColumns; ++n) {
#pragma unroll
      for (int v = 0; v < 4; ++v) sums[n][v] = fmaf(d[n][v], v < 2 ? first : second, sums[n][v]);
    }
  }

  /** d += 16 rows × 32 k: the words of rows g and g + 8, half kHalf of the lane's values of X. */
  template <int kHalf>
  __device__ __forceinline__ void multiply(OfTile& d, std::uint32_t low, std::uint32_t high,
                                           const uint4 (&x)[Tiles::kColumns][2]) const {
    const std::uint32_t first[4] = {decodePair<0>(low, m_place), decodePair<0>(high, m_place),
                                    decodePair<1>(low, m_place), decodePair<1>(high, m_place)};
    const std::uint32_t second[4] = {decodePair<2>(low, m_place), decodePair<2>(high, m_place),
                                     decodePair<3>(low, m_place), decodePair<3>(high, m_place)};
#pragma unroll
    for (int n = 0; n < Tiles::kColumns; ++n)
      multiplyAccumulate(d[n], first, x[n][kHalf].x, x[n][kHalf].y, TypeTag<T>());
#pragma unroll
    for (int n = 0; n < Tiles::kColumns; ++n)
      multiplyAccumulate(d[n], second, x[n][kHalf].z, x[n][kHalf].w, TypeTag<T>());
  }

  const Memory<Tiles>& m_memory;
  int m_lane, m_part, m_row;
  std::uint32_t m_place;
  float m_sums[kTiles][Tiles::kColumns][4];
};

/** Waits for stages and gives them back. \a add  takes a slot */
template <typename Tiles, typename Add>
__device__ __forceinline__ void forEachStage(const Memory<Tiles>& memory, int parts, int part, const Add& add) {
  Slot slot;
  for (int first = 0; first < parts; first += Tiles::kParts, slot.advance(memory.stages)) {
    ptx::wait(memory.full(slot.index), slot.parity);
    if (first + part < parts) add(slot.index);
    __syncwarp();
    if (threadIdx.x % 32 == 0) ptx::arrive(memory.empty(slot.index));
  }
  ptx::syncThreads(kConsumerBarrier, kConsumers);
}

template <typename T, typename Tiles, int kTiles>
__device__ __forceinline__ void sumTiles(const Memory<Tiles>& memory, int parts, int group, int part) {
  if constexpr (kTiles == 0) {
    forEachStage(memory, parts, part, [](int) {});
  } else {
    Sums<T, Tiles, kTiles> sums(memory, group, part);
    forEachStage(memory, parts, part, [&](int slot) { sums.addStage(slot); });
    sums.put();
  }
}

/** Sums of rows \a col and col + 1 of W, which are columns of Y. */
template <typename T>
__device__ __forceinline__ void storeSums(const Problem& p, float2 sums, Index token, Index col) {
  if (col >= p.y.cols) return;
  if (p.pairs) return storePair<T>(p.y, p.epilogue, sums, columnBiases<T>(p.epilogue, col), token, col);
  storeResult<T>(p.y, p.epilogue, sums.x, token, col);
  if (col + 1 < p.y.cols) storeResult<T>(p.y, p.epilogue, sums.y, token, col + 1);
}

/** Adds up the parts of K: a warp for a token, a lane for two rows. */
template <typename T, typename Tiles>
__device__ __forceinline__ void finish(const Problem& p, const Memory<Tiles>& memory, const Share& share,
                                       float factor) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const Index firstCol = Index{share.first} * kTileRows;
  for (int token = warp; token < Tiles::kTokens && token < p.y.rows; token += kWarps) {
    for (int row = 2 * lane; row < share.tiles * kTileRows; row += 64) {
      float2 sum = {0, 0};
#pragma unroll
      for (int part = 0; part < Tiles::kParts; ++part) {
        const uint2 v = loadPair(behind(memory.sums(part, token) + 4 * row));
        sum.x += __uint_as_float(v.x);
        sum.y += __uint_as_float(v.y);
      }
      storeSums<T>(p, {sum.x * factor, sum.y * factor}, token, firstCol + row);
    }
  }
}

template <typename T, typename Tiles>
__device__ __forceinline__ void consume(const Problem& p, const Memory<Tiles>& memory, const Share& share,
                                        float factor) {
  const int warp = static_cast<int>(threadIdx.x) / 32, group = warp % Tiles::kGroups, part = warp / Tiles::kGroups;
  switch ((share.tiles - group + Tiles::kGroups - 1) / Tiles::kGroups) {
    case 4:
      if constexpr (Tiles::kTilesOfWarp >= 4) sumTiles<T, Tiles, 4>(memory, p.parts, group, part);
      break;
    case 3:
      sumTiles<T, Tiles, 3>(memory, p.parts, group, part);
      break;
    case 2:
      sumTiles<T, Tiles, 2>(memory, p.parts, group, part);
      break;
    case 1:
      sumTiles<T, Tiles, 1>(memory, p.parts, group, part);
      break;
    default:
      sumTiles<T, Tiles, 0>(memory, p.parts, group, part);
      break;
  }
  ptx::syncThreads(kConsumerBarrier, kConsumers);
  finish<T>(p, memory, share, factor);
}

template <typename T, typename Tiles>
__global__ void __launch_bounds__(kThreads, 1)
    rowsProduct(const __grid_constant__ Problem p, const __grid_constant__ Maps maps) {
  constexpr int kMostRows = Tiles::kMostTiles * kTileRows;
  static_assert(stagesFor<Tiles>(kMostRows) >= 2, "nothing is copied while something is multiplied");
  static_assert(kStagesAt + 4 * Tiles::kParts * Tiles::kTokens * (kMostRows + 4) <= kTableAt + kSharedBytes,
                "parts of sums do not fit where the stages were");
  extern __shared__ __align__(1024) unsigned char bytes[];
  const Memory<Tiles> memory(bytes, p.tilesOfBlock);
  const Share share(p);
  if (threadIdx.x == kConsumers) {
    for (int slot = 0; slot < memory.stages; ++slot) {
      ptx::initBarrier(memory.full(slot), 1);
      ptx::initBarrier(memory.empty(slot), kWarps);
    }
    ptx::fenceBarrierInit();
  }
  __syncthreads();
  ptx::waitForLastKernel();
  ptx::allowNextKernel();
  if (threadIdx.x >= kConsumers) {
    ptx::giveRegisters<kGivenRegisters>();
    if (threadIdx.x == kConsumers) Copier<Tiles>(p, maps, memory, share.first).run();
    return;
  }
  ptx::takeRegisters<kTakenRegisters>();
  const float factor = fourbit::fillPairTable<T>(memory.window + kTableAt, p.codeTable, kConsumers);
  ptx::syncThreads(kConsumerBarrier, kConsumers);
  consume<T>(p, memory, share, factor);
}

}  // namespace fourbit_rows
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_FOURBIT_ROWS_SM90_CUH
