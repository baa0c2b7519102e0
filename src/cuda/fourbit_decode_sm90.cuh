// SPDX-License-Identifier: MPL-2.0
// fourbit_decode_sm90.cuh: Y = epilogue(X·Wᵀ) for up to 8 rows of X on Hopper, W in NF4 or FP4 as it is stored.
//
//   warp 16      has W copied: a stage is 16 rows × 2048 k of codes, one box of 16 KiB, and their absmax, another box
//   warps 0…15   each the 128 k of its number of every stage:  wait, codes → pair table → MMA m16n8k16
//                A: 16 rows of W, decoded;  B: the rows of X, read from shared memory
//
//   k of a chunk of 64: lane c of a row's four holds k = 16c + {0 … 15}, 8 bytes of codes and 32 of X. The order of a
//   sum is free, so the fragments' k 2c, 2c+1, 2c+8, 2c+9 of the MMA number j stand for 16c + 4j + {0, 1, 2, 3}. The
//   order of rows is free too: lane group g holds rows 2(g % 4) + g / 4 and that + 8, so that the swizzled pieces which
//   half a warp reads at once lie in different banks.
//
//   shared memory   │ barriers │ stages │ 64 KiB: 256 × [ pair table: 32 copies │ partial sums ] │ stages │ X │
//
// Traffic  0.5 B of codes + 4/64 B of absmax per weight; a box is one instruction of one thread. (Row by row, each
//          copy took some 85 clocks, whatever its length.)
// Work     Passes of the load/store pipe per 1024 weights: 16 for the pair table, 4 for codes, 2 for X, 1 for absmax:
//          45 weights a clock, where memory gives 29. A lookup a clock and SM is what the pipe was measured to do.
// Waiting  Nothing but a warp's own sums joins one tile to the next: no barrier until the partial sums of 16, 8 or 4
//          tiles have been put aside. A barrier a tile cost a fifth of the time, absmax loaded by the warps a sixth.
// Scales   absmax multiplies the float sums of its block; see fourbit_decode_mma.cuh.
// Order    Warps' sums are added in ascending order, slices of K by a second kernel: the same bits in every run.
// Needs    Blocks of 64; K and rows of W at multiples of 256 values, nested 1024; X of at most 64 KiB.
#ifndef EIGENQ_CUDA_FOURBIT_DECODE_SM90_CUH
#define EIGENQ_CUDA_FOURBIT_DECODE_SM90_CUH

#include "epilogue.cuh"
#include "fourbit_decode_sm90_stages.cuh"
#include "mma.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace fourbit {

// Reads of what has arrived: volatile keeps them behind the wait, and nothing else has to stand still for them.
__device__ __forceinline__ uint2 loadPair(std::uint32_t address) {
  uint2 v;
  asm volatile("ld.shared.v2.b32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "r"(address));
  return v;
}
__device__ __forceinline__ uint4 loadQuad(std::uint32_t address) {
  uint4 v;
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(address));
  return v;
}
__device__ __forceinline__ float loadFloat(std::uint32_t address) {
  float v;
  asm volatile("ld.shared.f32 %0, [%1];" : "=f"(v) : "r"(address));
  return v;
}
__device__ __forceinline__ std::uint32_t loadHalfWord(std::uint32_t address) {
  std::uint16_t v;
  asm volatile("ld.shared.u16 %0, [%1];" : "=h"(v) : "r"(address));
  return v;
}

/** The row of a tile that lanes of group \a g hold, half 0 or 1. */
__device__ __forceinline__ int rowOf(int g, int half) { return g % 4 * 2 + g / 4 + 8 * half; }

/** Absmax of the two blocks of a warp's unit, of one row. */
template <bool kNested>
class ScaleReader {
 public:
  __device__ __forceinline__ ScaleReader(const WeightView& w, std::uint32_t byteTable)
      : m_w(w), m_byteTable(byteTable) {
    if (kNested) m_offset = w.absmax.offsetAt ? *w.absmax.offsetAt : w.absmax.offset;
  }

  /** Where the tile's second level begins. */
  __device__ __forceinline__ void startTile(int tile) {
    if (kNested) m_second = SecondLevel::firstElement(m_w, Index{tile} * kTileRows) & ~Index{3};
  }

  /** \param unit  number of the unit in the stage; \param row  of the tile; \param flat  the row's first value there */
  __device__ __forceinline__ float2 operator()(std::uint32_t stage, int unit, int row, Index flat) const {
    if (!kNested) {
      const std::uint32_t piece = static_cast<std::uint32_t>(unit / 2 ^ row % 8);
      const uint2 bits = loadPair(stage + kScalesAt + row * kLine + piece * 16 + unit % 2 * 8);
      return {__uint_as_float(bits.x), __uint_as_float(bits.y)};
    }
    const std::uint32_t codes = loadHalfWord(stage + kScalesAt + row * kScalesPerRow + unit * 2);
    const Index second = (flat / kBlock >> m_w.absmax.nestedBlockShift) - m_second;
    const float absmax2 = loadFloat(stage + kSecondAt + static_cast<std::uint32_t>(4 * second));
    return {decode(codes & 255, absmax2), decode(codes >> 8, absmax2)};
  }

 private:
  /** AbsmaxView's roundings. */
  __device__ __forceinline__ float decode(std::uint32_t code, float absmax2) const {
    return EigenQ::internal::roundedProduct(loadFloat(m_byteTable + 4 * code), absmax2) + m_offset;
  }

  const WeightView& m_w;
  std::uint32_t m_byteTable;
  float m_offset = 0;
  Index m_second = 0;
};

/** d += 16 rows × 32 k: the words \a low and \a high of rows g and g + 8, the values \a x of token g. */
template <typename T>
__device__ __forceinline__ void multiplyWords(float (&d)[4], std::uint32_t low, std::uint32_t high, const uint4& x,
                                              std::uint32_t place) {
  const std::uint32_t first[4] = {decodeAlignedPair<0>(low, place), decodeAlignedPair<0>(high, place),
                                  decodeAlignedPair<1>(low, place), decodeAlignedPair<1>(high, place)};
  const std::uint32_t second[4] = {decodeAlignedPair<2>(low, place), decodeAlignedPair<2>(high, place),
                                   decodeAlignedPair<3>(low, place), decodeAlignedPair<3>(high, place)};
  multiplyAccumulate(d, first, x.x, x.y, TypeTag<T>());
  multiplyAccumulate(d, second, x.z, x.w, TypeTag<T>());
}

/** Sums of warps that wait to be added, in the halves of the table's entries that are free: 16, 8 or 4 tiles of them.
 */
template <int kTokens>
struct WaitingSums {
  static constexpr int kLanes = kTokens / 2;  // of a row's four that hold tokens
  static constexpr int kTiles = kTableEntries / (kConsumers * kLanes);

  __device__ __forceinline__ static void put(std::uint32_t table, int tile, int warp, const float (&sums)[4]) {
    const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, c = lane % 4;
    if (c >= kLanes) return;
#pragma unroll
    for (int v = 0; v < 4; ++v) storeShared(place(table, tile, c, warp) + 4 * (8 * v + g), sums[v]);
  }

  /** Adds up and stores the sums of \a count tiles, every gridDim.x-th from \a first. All consumers. */
  template <typename Store>
  __device__ __forceinline__ static void flush(std::uint32_t table, int first, int count, float factor,
                                               const Store& store) {
    ptx::syncThreads(kConsumerBarrier, kConsumerThreads);
    for (int i = static_cast<int>(threadIdx.x); i < count * kLanes * 32; i += kConsumerThreads) {
      const int word = i % 32, c = i / 32 % kLanes, tile = i / 32 / kLanes;
      float sum = loadSharedFloat(place(table, tile, c, 0) + 4 * word);
#pragma unroll
      for (int warp = 1; warp < kConsumers; ++warp) sum += loadSharedFloat(place(table, tile, c, warp) + 4 * word);
      const Index row = Index{first + tile * static_cast<int>(gridDim.x)} * kTileRows + rowOf(word % 8, word / 16);
      store(sum * factor, 2 * c + word / 8 % 2, row);
    }
    ptx::syncThreads(kConsumerBarrier, kConsumerThreads);
  }

 private:
  __device__ __forceinline__ static std::uint32_t place(std::uint32_t table, int tile, int c, int warp) {
    return table + kFreeOffset + ((tile * kLanes + c) * kConsumers + warp) * kEntryBytes;
  }
};

template <typename T>
__device__ __forceinline__ void storeSum(const StreamProblem& p, float sum, Index token, Index row) {
  if (token >= p.y.rows || row >= p.y.cols) return;
  if (p.sums) {
    p.sums[(Index{blockIdx.y} * p.y.rows + token) * p.y.cols + row] = sum;
  } else {
    storeResult<T>(p.y, p.epilogue, sum, token, row);
  }
}

/** Adds 16 rows × 128 k to \a acc. \param codes, x  of this lane; \param scale  of its rows' two blocks */
template <typename T>
__device__ __forceinline__ void multiplyUnit(float (&acc)[4], const uint2 (&codes)[2][2], const uint4 (&x)[2][2],
                                             const float2 (&scale)[2], std::uint32_t place) {
  float d[2][2][4] = {};
#pragma unroll
  for (int block = 0; block < 2; ++block) {
    multiplyWords<T>(d[block][0], codes[0][block].x, codes[1][block].x, x[block][0], place);
    multiplyWords<T>(d[block][1], codes[0][block].y, codes[1][block].y, x[block][1], place);
  }
#pragma unroll
  for (int v = 0; v < 4; ++v) {
    acc[v] = fmaf(d[0][0][v] + d[0][1][v], scale[v / 2].x, acc[v]);
    acc[v] = fmaf(d[1][0][v] + d[1][1][v], scale[v / 2].y, acc[v]);
  }
}

template <typename T, int kTokens, bool kNested>
__device__ __forceinline__ void consume(const StreamProblem& p, const StreamMemory& memory, const Slice& slice,
                                        int tiles, float factor) {
  using Sums = WaitingSums<kTokens>;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int g = lane / 4, c = lane % 4, step = static_cast<int>(gridDim.x);
  const std::uint32_t place = memory.table | static_cast<std::uint32_t>(lane) * 4;
  const std::uint32_t activations = memory.x + g * memory.xStride + 2 * (warp * kUnit + 16 * c);
  const bool holdsToken = g < p.y.rows;
  // This lane's codes: pieces 4·(warp % 2) + 2·block + c/2 of line warp/2, 8 bytes each.
  const std::uint32_t line = warp / 2 * kTileRows * kLine + c % 2 * 8, piece = warp % 2 * 4 + c / 2;
  ScaleReader<kNested> scales(p.w, memory.byteTable);
  const auto store = [&](float sum, int token, Index row) { storeSum<T>(p, sum, token, row); };
  ptx::wait(memory.xArrived(), 0);
  Slot slot;
  int waiting = 0, firstWaiting = static_cast<int>(blockIdx.x);
  for (int tile = firstWaiting; tile < tiles; tile += step) {
    scales.startTile(tile);
    float acc[4] = {};
    for (int k = 0; k < slice.depth; k += kStageValues, slot.advance(memory.stages)) {
      ptx::wait(memory.full(slot.index), slot.parity);
      if (k + warp * kUnit < slice.depth) {
        const std::uint32_t stage = memory.stage(slot.index);
        uint2 codes[2][2];
        uint4 x[2][2];
        float2 scale[2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int row = rowOf(g, half);
#pragma unroll
          for (int block = 0; block < 2; ++block) {
            codes[half][block] = loadPair(stage + line + row * kLine + ((piece + 2 * block) ^ row % 8) * 16);
            x[block][half] =
                holdsToken ? loadQuad(activations + 2 * (k + kBlock * block) + 16 * half) : make_uint4(0, 0, 0, 0);
          }
          const Index flat =
              kNested ? p.w.offset + (Index{tile} * kTileRows + row) * p.w.stride + slice.begin + k + warp * kUnit : 0;
          scale[half] = scales(stage, warp, row, flat);
        }
        multiplyUnit<T>(acc, codes, x, scale, place);
      }
      __syncwarp();
      if (lane == 0) ptx::arrive(memory.empty(slot.index));
    }
    Sums::put(memory.table, waiting, warp, acc);
    if (++waiting < Sums::kTiles && tile + step < tiles) continue;
    Sums::flush(memory.table, firstWaiting, waiting, factor, store);
    waiting = 0;
    firstWaiting = tile + step;
  }
}

/** CTAs (x) take every gridDim.x-th tile of rows; y is the slice of K. \tparam kTokens  2, 4 or 8, at least Y's rows */
template <typename T, int kTokens, bool kNested>
__global__ void __launch_bounds__(kStreamThreads, 1)
    decodeStream(const __grid_constant__ StreamProblem p, const __grid_constant__ StreamMaps maps) {
  extern __shared__ __align__(1024) unsigned char bytes[];
  const Slice slice(p.w.cols, kNested);
  const StreamMemory memory(bytes, p.y.rows, slice.depth);
  const int tiles = static_cast<int>((p.w.rows + kTileRows - 1) / kTileRows);
  if (threadIdx.x == kConsumerThreads) {
    for (int slot = 0; slot < memory.stages; ++slot) {
      ptx::initBarrier(memory.full(slot), 1);
      ptx::initBarrier(memory.empty(slot), kConsumers);
    }
    ptx::initBarrier(memory.xArrived(), static_cast<int>(p.y.rows));
    ptx::fenceBarrierInit();
  }
  __syncthreads();
  ptx::allowNextKernel();
  ptx::waitForLastKernel();
  if (threadIdx.x >= kConsumerThreads) {
    copyActivations(p, memory, slice);
    if (threadIdx.x == kConsumerThreads) copyWeights(p, maps, memory, slice, tiles);
    return;
  }
  const float factor = fillPairTable<T>(memory.table, p.w.codeTable, kConsumerThreads);
  if (kNested && threadIdx.x < 256) storeShared(memory.byteTable + 4 * threadIdx.x, p.w.absmax.codeTable[threadIdx.x]);
  ptx::syncThreads(kConsumerBarrier, kConsumerThreads);
  consume<T, kTokens, kNested>(p, memory, slice, tiles, factor);
}

}  // namespace fourbit
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_FOURBIT_DECODE_SM90_CUH
