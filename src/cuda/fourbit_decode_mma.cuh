// SPDX-License-Identifier: MPL-2.0
// fourbit_decode_mma.cuh: sums of X·Wᵀ for up to 16 rows of X on tensor cores, W in NF4 or FP4 as it is stored.
//
//   16 rows of W       │ warp 0: k0 … │ warp 1 │ … │ warp 15 │      a CTA's tile; K is split over its warps
//   a warp's unit      16 rows × 128 k = 1 KiB, in a ring of its own: cp.async in 64-byte pieces of rows
//   MMA m16n8k16       A: 16 rows of W, decoded;  B: 8 rows of X, in registers from the first tile to the last
//
//   k of a chunk of 64, two halves of 32:   lane c of a row's four holds k = 32·half + 8c + {0 … 7}: 4 bytes of codes,
//   16 bytes of X. The order of a sum is free, so the fragments' k 2c, 2c+1, 2c+8, 2c+9 stand for any four of these.
//
//   shared memory      │ 256 × [ pair table: 32 copies, 128 B │ partial sums, 128 B ] │ rings │ nested code table │
//
// Traffic  0.5 B of codes + 4/64 B of absmax per weight; X stays in registers, Y is noise.
// Work     2.2 instructions per weight at M ≤ 8, 2.9 with what a tile costs (K = 8192); 4.4 fit in the time of the
//          traffic. What counts is the load/store pipe: per 1024 weights 16 passes for the pair table, 8 for the ring,
//          2 for scales = 39 weights a clock, where memory gives 29.
// Depth    All but one stage of a warp's ring are under way: of six 80 KiB an SM, where 4.3 TB/s at 1 µs want 33. On
//          devices that give a block 99 KiB two stages fit: 16 KiB, where 1 TB/s on 128 SMs wants 8. Not measured
//          there.
// Scales   absmax multiplies the float sums of its block, so that a weight's only rounding is that of the table: with
//          levels pre-scaled by a constant that rounds well (bestScale) 7.8e-4 rms for NF4 in bfloat16, where
//          rounding each product gives 1.65e-3; FP4 is exact. They are loaded one tile ahead.
// Order    Warps' sums are added in ascending order of k, slices of K by a second kernel: the same bits in every run.
// Needs    Rows of W at multiples of 64 codes, K % 64 = 0, 16-byte aligned rows of X, 161 or 97 KiB of shared memory.
#ifndef EIGENQ_CUDA_FOURBIT_DECODE_MMA_CUH
#define EIGENQ_CUDA_FOURBIT_DECODE_MMA_CUH

#include <eigen_q/src/Lowering.h>

#include <cstddef>
#include <cstdint>

#include "epilogue.cuh"
#include "fourbit_pair_table.cuh"
#include "mma.cuh"
#include "ptx_shared.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace fourbit {

using EigenQ::internal::AbsmaxView;
using EigenQ::internal::WeightView;

constexpr int kWarps = 16, kThreads = 32 * kWarps;
constexpr int kTileRows = 16;            // of W
constexpr int kChunk = 64, kUnit = 128;  // values of a row that four MMAs, and one stage of a ring, cover
constexpr int kColumns = 8;              // rows of X of one MMA
constexpr int kManyStages = 6, kFewStages = 2;

constexpr int kStageRowBytes = kUnit / 2, kStageBytes = kTileRows * kStageRowBytes;
constexpr int kByteTableBytes = 256 * 4;
/** With rings of so many stages. */
constexpr std::size_t sharedBytes(int stages) {
  return std::size_t{kTableBytes} + kByteTableBytes + static_cast<std::size_t>(kWarps * stages * kStageBytes);
}

/** What a launch computes: sums of tokens × W's rows over slices of K. */
struct Problem {
  WeightView w;
  const void* x = nullptr;  // rows of X at multiples of 16 bytes
  Index xStride = 0;
  DenseView y;
  Epilogue epilogue;
  float* sums = nullptr;  // (slice, token, row) where K is split over CTAs; null: finish in place
};

// ---- what a warp reads

/** A warp's share of K: whole units but for the end of a row. */
struct Share {
  Index firstChunk;
  int chunks;

  __device__ __forceinline__ int units() const { return (chunks + 1) / 2; }
  __device__ __forceinline__ Index firstValue() const { return firstChunk * kChunk; }
};

/** Slices of K for CTAs, then shares for warps, as even as whole units allow. */
__device__ __forceinline__ Share shareOfWarp(Index cols, int slice, int slices, int warp) {
  const Index units = (cols + kUnit - 1) / kUnit;
  const Index sliceBegin = units * slice / slices, sliceEnd = units * (slice + 1) / slices;
  const Index begin = sliceBegin + (sliceEnd - sliceBegin) * warp / kWarps;
  const Index end = sliceBegin + (sliceEnd - sliceBegin) * (warp + 1) / kWarps;
  const Index chunks = cols / kChunk, last = 2 * end < chunks ? 2 * end : chunks;
  return {2 * begin, static_cast<int>(last > 2 * begin ? last - 2 * begin : 0)};
}

/** Keeps a warp's ring full: units of this tile, then of the CTA's next ones. */
class RingLoader {
 public:
  __device__ __forceinline__ RingLoader(const WeightView& w, const Share& share, std::uint32_t ring, int tiles)
      : m_w(w), m_share(share), m_tiles(tiles), m_tile(static_cast<int>(blockIdx.x)) {
    const int lane = threadIdx.x % 32;
    m_row = lane / 4;
    m_piece = lane % 4;
    // 16-byte pieces move within their row so that eight rows' pieces of one kind lie in different banks.
    m_target = ring + m_row * kStageRowBytes + (m_piece ^ (m_row / 2 % 4)) * 16;
    startTile();
  }

  /** Queues the next unit, or nothing behind the last: one group in either case. */
  __device__ __forceinline__ void loadUnit(int stage) {
    if (m_tile < m_tiles && m_share.chunks > 0) {
      const std::uint32_t target = m_target + stage * kStageBytes;
      const bool inside = 2 * m_unit + m_piece / 2 < m_share.chunks;
      ptx::copyAsyncLine(target, m_source[0] + m_unit * kStageRowBytes, inside);
      ptx::copyAsyncLine(target + 8 * kStageRowBytes, m_source[1] + m_unit * kStageRowBytes, inside);
      if (++m_unit == m_share.units()) {
        m_unit = 0;
        m_tile += static_cast<int>(gridDim.x);
        startTile();
      }
    }
    ptx::commitCopies();
  }

 private:
  /** Rows behind the last are read as the last; their sums go nowhere. */
  __device__ __forceinline__ void startTile() {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const Index row = Index{m_tile} * kTileRows + 8 * half + m_row, last = m_w.rows - 1;
      const Index flat = m_w.offset + (row < last ? row : last) * m_w.stride + m_share.firstValue();
      m_source[half] = static_cast<const std::uint8_t*>(m_w.codes) + flat / 2 + m_piece * 16;
    }
  }

  const WeightView& m_w;
  Share m_share;
  int m_tiles, m_tile, m_unit = 0;
  int m_row, m_piece;
  std::uint32_t m_target;
  const std::uint8_t* m_source[2];
};

/** The scales of a warp's share of a tile. Lane 4·g + c holds those number c, c + 4, … of rows g and g + 8.
 * \tparam kPerChunk  2 for blocks of 32, else 1 */
template <int kChunks, int kPerChunk>
class Scales {
 public:
  static constexpr int kHeld = kChunks * kPerChunk / 4;

  /** Loads without waiting: what is nested is put together in finish(). */
  __device__ __forceinline__ void load(const WeightView& w, const Share& share, int tile) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const Index row = Index{tile} * kTileRows + 8 * half + lane / 4, last = w.rows - 1;
      const Index flat = w.offset + (row < last ? row : last) * w.stride + share.firstValue();
#pragma unroll
      for (int i = 0; i < kHeld; ++i) {
        const int number = lane % 4 + 4 * i;
        if (number >= share.chunks * kPerChunk) continue;
        const Index block = (flat + number * (kChunk / kPerChunk)) >> w.blockShift;
        if (w.absmax.plain) {
          m_bits[half][i] = __float_as_uint(w.absmax.plain[block]);
        } else {
          m_bits[half][i] = w.absmax.codes[block];
          m_absmax2[half][i] = w.absmax.absmax2[block >> w.absmax.nestedBlockShift];
        }
      }
    }
  }

  /** AbsmaxView's roundings, its table in shared memory; then times \a factor. */
  __device__ __forceinline__ void finish(const AbsmaxView& absmax, std::uint32_t byteTable, float offset,
                                         float factor) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int i = 0; i < kHeld; ++i) {
        float value = __uint_as_float(m_bits[half][i]);
        if (!absmax.plain)
          value =
              EigenQ::internal::roundedProduct(loadSharedFloat(byteTable + 4 * m_bits[half][i]), m_absmax2[half][i]) +
              offset;
        m_scale[half][i] = value * factor;
      }
    }
  }

  /** Scale \a number of this lane's row g or g + 8. */
  __device__ __forceinline__ float operator()(int half, int number) const {
    return __shfl_sync(0xffffffffu, m_scale[half][number / 4], static_cast<int>(threadIdx.x % 32 / 4 * 4 + number % 4));
  }

 private:
  std::uint32_t m_bits[2][kHeld] = {};
  float m_absmax2[2][kHeld] = {};
  float m_scale[2][kHeld];
};

// ---- a tile

/** B fragments of a warp's share of K: a lane's eight values of each half chunk, of one token each group of columns. */
template <int kGroups, int kChunks>
struct Activations {
  uint4 values[kGroups][kChunks][2];

  __device__ __forceinline__ void load(const Problem& p, const Share& share) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      const int token = kColumns * group + lane / 4;
      const std::uint16_t* const row =
          static_cast<const std::uint16_t*>(p.x) + token * p.xStride + share.firstValue() + lane % 4 * 8;
#pragma unroll
      for (int i = 0; i < 2 * kChunks; ++i) {
        const bool inside = token < p.y.rows && i / 2 < share.chunks;
        values[group][i / 2][i % 2] =
            inside ? __ldg(reinterpret_cast<const uint4*>(row + i * (kChunk / 2))) : make_uint4(0, 0, 0, 0);
      }
    }
  }
};

/** Sums of a chunk, added to \a acc with their scales. \param stage  the unit in shared memory, at this lane's codes */
template <typename T, int kGroups, int kChunks, int kPerChunk>
__device__ __forceinline__ void multiplyChunk(float (&acc)[kGroups][4], std::uint32_t stage, int chunk,
                                              const Activations<kGroups, kChunks>& x,
                                              const Scales<kChunks, kPerChunk>& scales, std::uint32_t table) {
  const std::uint32_t lane4 = threadIdx.x % 32 * 4;
  float d[kGroups][4] = {};
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const std::uint32_t place = stage ^ ((chunk % 2 * 2 + half) << 4);
    const std::uint32_t low = loadShared(place), high = loadShared(place + 8 * kStageRowBytes);  // rows g, g + 8
    const std::uint32_t first[4] = {decodePair<0>(low, lane4, table), decodePair<0>(high, lane4, table),
                                    decodePair<1>(low, lane4, table), decodePair<1>(high, lane4, table)};
    const std::uint32_t second[4] = {decodePair<2>(low, lane4, table), decodePair<2>(high, lane4, table),
                                     decodePair<3>(low, lane4, table), decodePair<3>(high, lane4, table)};
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      const uint4& b = x.values[group][chunk][half];
      multiplyAccumulate(d[group], first, b.x, b.y, TypeTag<T>());
      multiplyAccumulate(d[group], second, b.z, b.w, TypeTag<T>());
    }
    if (kPerChunk == 1 && half == 0) continue;
    const int number = kPerChunk == 1 ? chunk : 2 * chunk + half;
    const float scale[2] = {scales(0, number), scales(1, number)};
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
#pragma unroll
      for (int v = 0; v < 4; ++v) {
        acc[group][v] = fmaf(d[group][v], scale[v / 2], acc[group][v]);
        d[group][v] = 0;
      }
    }
  }
}

/** Where the warps of a CTA meet: in the free halves of the table's entries, two buffers in turn. A lane writes and
 * reads its own bank. */
template <int kValues>
class PartialSums {
 public:
  static_assert(2 * kValues * kWarps <= kTableEntries, "an entry has room for one value of a warp");

  __device__ __forceinline__ explicit PartialSums(std::uint32_t table)
      : m_base(table + kFreeOffset + threadIdx.x % 32 * 4) {}

  __device__ __forceinline__ void put(int buffer, int value, int warp, float sum) const {
    storeShared(place(buffer, value, warp), sum);
  }
  __device__ __forceinline__ float total(int buffer, int value) const {
    float sum = loadSharedFloat(place(buffer, value, 0));
#pragma unroll
    for (int warp = 1; warp < kWarps; ++warp) sum += loadSharedFloat(place(buffer, value, warp));
    return sum;
  }

 private:
  __device__ __forceinline__ std::uint32_t place(int buffer, int value, int warp) const {
    return m_base + ((buffer * kValues + value) * kWarps + warp) * kEntryBytes;
  }
  std::uint32_t m_base;
};

template <typename T>
__device__ __forceinline__ void storeSum(const Problem& p, float sum, Index token, Index row) {
  if (token >= p.y.rows || row >= p.y.cols) return;
  if (p.sums) {
    p.sums[(Index{blockIdx.y} * p.y.rows + token) * p.y.cols + row] = sum;
  } else {
    storeResult<T>(p.y, p.epilogue, sum, token, row);
  }
}

/** CTAs (x) take every gridDim.x-th tile of rows; y is the slice of K.
 * \tparam kGroups    of 8 rows of X
 * \tparam kUnits     most units of a warp's share
 * \tparam kPerChunk  scales of a chunk: 2 for blocks of 32, else 1
 * \tparam kStages    of a warp's ring */
template <typename T, int kGroups, int kUnits, int kPerChunk, int kStages>
__global__ void __launch_bounds__(kThreads, 1) decodeProduct(const __grid_constant__ Problem p) {
  extern __shared__ __align__(1024) unsigned char memory[];
  constexpr int kRingBytes = kStages * kStageBytes;
  const std::uint32_t table = static_cast<std::uint32_t>(__cvta_generic_to_shared(memory));
  const std::uint32_t byteTable = table + kTableBytes + kWarps * kRingBytes;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const std::uint32_t ring = table + kTableBytes + warp * kRingBytes;
  const int tiles = static_cast<int>((p.w.rows + kTileRows - 1) / kTileRows);
  const Share share = shareOfWarp(p.w.cols, static_cast<int>(blockIdx.y), static_cast<int>(gridDim.y), warp);

  RingLoader loader(p.w, share, ring, tiles);
#pragma unroll
  for (int stage = 0; stage < kStages - 1; ++stage) loader.loadUnit(stage);
  Scales<2 * kUnits, kPerChunk> scales;
  scales.load(p.w, share, static_cast<int>(blockIdx.x));
  Activations<kGroups, 2 * kUnits> x;
  x.load(p, share);
  const float factor = fillPairTable<T>(table, p.w.codeTable, kThreads);
  const AbsmaxView& absmax = p.w.absmax;
  const float offset = absmax.offsetAt ? *absmax.offsetAt : absmax.offset;
  if (!absmax.plain && threadIdx.x < 256) storeShared(byteTable + 4 * threadIdx.x, absmax.codeTable[threadIdx.x]);
  __syncthreads();

  constexpr int kValues = 4 * kGroups;
  const PartialSums<kValues> partial(table);
  const std::uint32_t codes = ring + lane / 4 * kStageRowBytes + (lane / 8 % 4 << 4) + lane % 4 * 4;
  int stage = 0, turn = 0;
  for (int tile = static_cast<int>(blockIdx.x); tile < tiles; tile += static_cast<int>(gridDim.x), ++turn) {
    scales.finish(absmax, byteTable, offset, factor);
    if (tile + static_cast<int>(gridDim.x) < tiles) scales.load(p.w, share, tile + static_cast<int>(gridDim.x));
    float acc[kGroups][4] = {};
#pragma unroll
    for (int unit = 0; unit < kUnits; ++unit) {
      if (unit >= share.units()) break;
      ptx::waitForCopies<kStages - 2>();
      __syncwarp();  // every lane's copies have landed, and every lane is done with the stage that is filled next
      loader.loadUnit(stage == 0 ? kStages - 1 : stage - 1);
      const std::uint32_t at = codes + stage * kStageBytes;
      multiplyChunk<T>(acc, at, 2 * unit, x, scales, table);
      if (2 * unit + 1 < share.chunks) multiplyChunk<T>(acc, at, 2 * unit + 1, x, scales, table);
      stage = stage == kStages - 1 ? 0 : stage + 1;
    }
#pragma unroll
    for (int v = 0; v < kValues; ++v) partial.put(turn % 2, v, warp, acc[v / 4][v % 4]);
    // One barrier a tile: what is read behind it is written again only behind the next.
    __syncthreads();
    const int value = (warp + kWarps - turn * kValues % kWarps) % kWarps;  // the work goes round among the warps
    if (value < kValues)
      storeSum<T>(p, partial.total(turn % 2, value), kColumns * (value / 4) + lane % 4 * 2 + value % 2,
                  Index{tile} * kTileRows + value % 4 / 2 * 8 + lane / 4);
  }
}

}  // namespace fourbit
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_FOURBIT_DECODE_MMA_CUH
