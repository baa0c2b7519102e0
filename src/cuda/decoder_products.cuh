// SPDX-License-Identifier: MPL-2.0
// The products of the decoder's kernel: tiles of 16 rows of W, streamed by one warp and multiplied by sixteen.
//
//   stage     16 rows × 2048 k of codes, one box of 16 KiB, and their absmax, another
//   warps     0 … 7 take the stages of even numbers, 8 … 15 the others; of a stage each the 256 k of its number
//   MMA       m16n8k16, A: 16 rows of W decoded by the pair table; B: column 2j + t is token t in block j of 64 k
//
// With one or two tokens, seven or six of the eight columns of B would lie idle. Here each of the four blocks of 64 has
// two columns, and a lane keeps the sums of the block that its columns stand for, so that a lane multiplies by the two
// absmax of its rows in its own block: no value of absmax is decoded twice, where a column a token costs four lanes the
// same sixteen lookups. Passes of the load/store pipe per 4096 weights: 64 for the pair table, 16 for codes, 8 for X,
// 11 for nested absmax or 2 for plain: 41 or 46 weights a clock. Measured in a feed-forward of 4096×14336: 30. Neither
// fewer lookups, nor products, nor stages change that much; the way from one tile to the next does.
#ifndef EIGENQ_CUDA_DECODER_PRODUCTS_CUH
#define EIGENQ_CUDA_DECODER_PRODUCTS_CUH

#include "decoder_words.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace decoder {

// ---- warp 16

/** The second-level absmax of a tile: where they begin among those of the matrix, from a multiple of 16 bytes on. */
__device__ __forceinline__ int firstSecond(int row, int depth, int nestedShift) {
  return (row * (depth >> 6) >> nestedShift) & ~3;
}

/** What warp 16 does; one thread. It runs ahead of the products by all stages. */
template <bool kNested>
class Copier {
 public:
  __device__ __forceinline__ Copier(const Problem& p, const Memory& memory) : m_p(p), m_memory(memory) {}

  __device__ __forceinline__ void run() {
    const BlockData* const blocks = sharedPointer<BlockData>(m_memory.blocks);
#pragma unroll 1
    for (int b = 0; b < m_p.blockCount; ++b) {
      if (b + 1 < m_p.blockCount) prefetchMaps(m_p.maps[b + 1]);
#pragma unroll 1
      for (int kind = 0; kind < kProductGroups; ++kind) {
        const Group group(m_p, kind);
        if (group.tiles > 0 && group.norms()) copyGain(blocks[b].gains[kind / kFfnProducts]);
#pragma unroll 1
        for (int n = 0; n < group.tiles; ++n) {
          const Tile tile = group.tile(m_p, n);
          copyTile(m_p.maps[b].matrices[tile.matrix], blocks[b].absmax2[tile.matrix], tile.row, group.depth);
        }
      }
    }
  }

 private:
  using S = Stage<kNested>;

  __device__ __forceinline__ static void prefetchMaps(const BlockMaps& maps) {
#pragma unroll 1
    for (const Maps& matrix : maps.matrices) {
      ptx::prefetchMap(&matrix.codes);
      ptx::prefetchMap(&matrix.scales);
    }
  }
  /** Waits for a free stage. */
  __device__ __forceinline__ std::uint32_t next(std::uint32_t bytes) const {
    ptx::wait(m_memory.empty(m_slot.index), m_slot.parity ^ 1);
    ptx::arriveExpecting(m_memory.full(m_slot.index), bytes);
    return m_memory.stage(m_slot.index);
  }
  __device__ __forceinline__ void copyGain(const void* gain) {
    const auto bytes = static_cast<std::uint32_t>(2 * m_p.hidden);
    const std::uint32_t stage = next(bytes);
    ptx::copyBulk(stage, gain, bytes, m_memory.full(m_slot.index));
    m_slot.advance(m_memory.stages);
  }
  __device__ __forceinline__ void copyTile(const Maps& maps, const float* absmax2, int row, int depth) {
    const int begin = firstSecond(row, depth, m_p.nestedShift);
    const int end = ((row + kTileRows) * (depth / kBlock) - 1 >> m_p.nestedShift) + 1;
    const std::uint32_t secondBytes = kNested ? static_cast<std::uint32_t>((end - begin + 3) / 4 * 16) : 0;
#pragma unroll 1
    for (int k = 0; k < depth; k += kStageValues, m_slot.advance(m_memory.stages)) {
      const std::uint32_t full = m_memory.full(m_slot.index);
      const std::uint32_t stage = next(fourbit::kCodeBytes + S::kScaleBytes + secondBytes);
      ptx::copyBox(stage, &maps.codes, 0, row, k / kLineValues, full);
      ptx::copyBox(stage + S::kScalesAt, &maps.scales, k / kBlock * (kNested ? 1 : 4), row, full);
      if (kNested) ptx::copyBulk(stage + S::kSecondAt, absmax2 + begin, secondBytes, full);
    }
  }

  const Problem& m_p;
  const Memory& m_memory;
  Slot m_slot;
};

// ---- warps 0 … 15

/** Sums of warps that wait to be added, in the halves of the table's entries that are free: 16 tiles of them. */
struct PartialSums {
  static constexpr int kTiles = fourbit::kTableEntries / kWarps;

  /** \param sums  of rows g and g + 8, two tokens each, in a lane's own block. */
  __device__ __forceinline__ static void put(std::uint32_t table, int tile, const Lane& lane, const float (&sums)[4]) {
    const bool high = (lane.c & 2) != 0,
               odd = (lane.c & 1) != 0;  // lane c ends up with value c of its row's four lanes
    const float first = exchange(high ? sums[2] : sums[0], high ? sums[0] : sums[2], 2);
    const float second = exchange(high ? sums[3] : sums[1], high ? sums[1] : sums[3], 2);
    fourbit::storeShared(place(table, tile, lane.warp) + 4 * (8 * lane.c + lane.g),
                         exchange(odd ? second : first, odd ? first : second, 1));
  }
  __device__ __forceinline__ static float get(std::uint32_t table, int tile, int row, int token) {
    // The inverse of rowOf().
    const int half = row / 8, g = row % 8 / 2 + row % 2 * 4, word = 8 * (2 * half + token) + g;
    float sum = fourbit::loadSharedFloat(place(table, tile, 0) + 4 * word);
#pragma unroll
    for (int warp = 1; warp < kWarps; ++warp) sum += fourbit::loadSharedFloat(place(table, tile, warp) + 4 * word);
    return sum;
  }

 private:
  __device__ __forceinline__ static float exchange(float kept, float sent, int mask) {
    return kept + __shfl_xor_sync(0xffffffffu, sent, mask);
  }
  __device__ __forceinline__ static std::uint32_t place(std::uint32_t table, int tile, int warp) {
    return table + fourbit::kFreeOffset + (tile * kWarps + warp) * fourbit::kEntryBytes;
  }
};

__device__ __forceinline__ std::uint32_t loadByte(std::uint32_t address) {
  std::uint16_t v;
  asm volatile("{\n.reg .b16 v;\nld.shared.u8 v, [%1];\nmov.b16 %0, v;\n}" : "=h"(v) : "r"(address));
  return v;
}

/** What a lane does to its shares of stages. */
template <typename T, bool kNested>
class Multiplier {
 public:
  __device__ __forceinline__ Multiplier(const Problem& p, const Memory& memory)
      : m_p(p), m_memory(memory), m_place(memory.table | m_lane.lane * 4), m_next(m_lane.half) {
    if (m_lane.half == 1) m_slot.advance(memory.stages);
  }

  __device__ __forceinline__ const Lane& lane() const { return m_lane; }

  /** The products of a tile's rows, two tokens each, in the block of this lane. */
  __device__ __forceinline__ void operator()(const Tile& tile, int depth, float offset, float (&acc)[4]) {
    const int second = firstSecond(tile.row, depth, m_p.nestedShift);
    const int end = m_begun + (depth + kStageValues - 1 >> 11);
#pragma unroll 1
    for (; m_next < end; advance()) {
      const int k = (m_next - m_begun) * kStageValues;
      ptx::wait(m_memory.full(m_slot.index), m_slot.parity);
      if (k + m_lane.line * kLineValues < depth) multiplyLine(tile.row, depth, k, offset, second, acc);
      release();
    }
    m_begun = end;
  }
  /** Where the gain of a norm lies that stands before the tiles. */
  __device__ __forceinline__ std::uint32_t waitForGain() const {
    Slot slot = m_slot;
    if (m_next != m_begun) slot.goBack(m_memory.stages);
    ptx::wait(m_memory.full(slot.index), slot.parity);
    return m_memory.stage(slot.index);
  }
  /** After all have read it. */
  __device__ __forceinline__ void releaseGain() {
    if (m_next == m_begun) {
      release();
      advance();
    }
    ++m_begun;
  }

 private:
  __device__ __forceinline__ void release() const {
    __syncwarp();
    if (m_lane.lane == 0) ptx::arrive(m_memory.empty(m_slot.index));
  }
  __device__ __forceinline__ void advance() {
    m_next += 2;
    m_slot.advance(m_memory.stages);
    m_slot.advance(m_memory.stages);
  }

  /** 16 rows × 256 k. */
  __device__ __forceinline__ void multiplyLine(int firstRow, int depth, int k, float offset, int second,
                                               float (&acc)[4]) const {
    const int g = m_lane.g, c = m_lane.c, line = m_lane.line, token = g & 1;
    const std::uint32_t stage = m_memory.stage(m_slot.index), codesAt = stage + line * kTileRows * kLine + (c & 1) * 8;
    uint2 codes[2][4];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = rowOf(g, half);
#pragma unroll
      for (int block = 0; block < 4; ++block)
        codes[half][block] = fourbit::loadPair(codesAt + row * kLine + (2 * block ^ (c >> 1) ^ (row & 7)) * 16);
    }
    uint4 x[2] = {};
    if (token < m_p.tokens) {
      const std::uint32_t at = m_memory.x + token * (2 * depth + fourbit::kXPadding) +
                               2 * (k + line * kLineValues + (g >> 1) * kBlock + 16 * c);
      x[0] = fourbit::loadQuad(at);
      x[1] = fourbit::loadQuad(at + 16);
    }
    float scale[2];
#pragma unroll
    for (int half = 0; half < 2; ++half)
      scale[half] = absmax(stage, rowOf(g, half), c, firstRow, depth, k, offset, second);
    // Lookups of one step are under way while the products of the last are formed: four chains of four.
    float d[4][4] = {};
    std::uint32_t a[2][4][4];
    lookUp<0>(a[0], codes);
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      if (step == 0) lookUp<1>(a[1], codes);
      if (step == 1) lookUp<2>(a[0], codes);
      if (step == 2) lookUp<3>(a[1], codes);
      const uint4 xs = x[step / 2];
#pragma unroll
      for (int block = 0; block < 4; ++block)
        multiplyAccumulate(d[block], a[step % 2][block], step % 2 == 0 ? xs.x : xs.z, step % 2 == 0 ? xs.y : xs.w,
                           TypeTag<T>());
    }
#pragma unroll
    for (int v = 0; v < 4; ++v) {
      const float low = (c & 1) == 0 ? d[0][v] : d[1][v], high = (c & 1) == 0 ? d[2][v] : d[3][v];
      acc[v] = fmaf((c & 2) == 0 ? low : high, scale[v / 2], acc[v]);
    }
  }

  /** The weights of an MMA a block: bytes 2·(kStep % 2) and on of words kStep / 2, rows g and g + 8. */
  template <int kStep>
  __device__ __forceinline__ void lookUp(std::uint32_t (&a)[4][4], const uint2 (&codes)[2][4]) const {
#pragma unroll
    for (int block = 0; block < 4; ++block) {
      const std::uint32_t low = kStep < 2 ? codes[0][block].x : codes[0][block].y;
      const std::uint32_t high = kStep < 2 ? codes[1][block].x : codes[1][block].y;
      constexpr int kByte = kStep % 2 * 2;
      a[block][0] = lookUpPair<kByte>(low);
      a[block][1] = lookUpPair<kByte>(high);
      a[block][2] = lookUpPair<kByte + 1>(low);
      a[block][3] = lookUpPair<kByte + 1>(high);
    }
  }
  /** decodeAlignedPair(), in the order of the program: the compiler would put it right before its use. */
  template <int kByte>
  __device__ __forceinline__ std::uint32_t lookUpPair(std::uint32_t codes) const {
    std::uint32_t pair;
    asm volatile("ld.shared.b32 %0, [%1];" : "=r"(pair) : "r"(__byte_perm(codes, m_place, 0x7604 | kByte << 4)));
    return pair;
  }

  /** Of block \a c of this warp's four. */
  __device__ __forceinline__ float absmax(std::uint32_t stage, int row, int c, int firstRow, int depth, int k,
                                          float offset, int second) const {
    using S = Stage<kNested>;
    if (!kNested)
      return fourbit::loadFloat(stage + S::kScalesAt + row * kLine + (m_lane.line ^ (row & 7)) * 16 + c * 4);
    const std::uint32_t code = loadByte(stage + S::kScalesAt + row * kScalesPerRow + m_lane.line * 4 + c);
    const int block = (firstRow + row) * (depth >> 6) + (k >> 6) + m_lane.line * 4 + c;
    const int from = (block >> m_p.nestedShift) - second;
    // AbsmaxView's roundings.
    return EigenQ::internal::roundedProduct(fourbit::loadFloat(m_memory.byteTable + 4 * code),
                                            fourbit::loadFloat(stage + S::kSecondAt + 4 * from)) +
           offset;
  }

  const Problem& m_p;
  const Memory& m_memory;
  Lane m_lane;
  std::uint32_t m_place;
  Slot m_slot;      // of the next stage that is this warp's,
  int m_next;       // of that number
  int m_begun = 0;  // stages before the tile or gain in hand
};

template <typename T>
__device__ __forceinline__ float rounded(float v) {
  return toFloat(fromFloat<T>(v));
}

/** Where a group's products go. Roundings are those of the separate ops: the product, then what is made of it. */
template <typename T>
struct Output {
  const Group& group;
  const BlockData& block;
  std::uint32_t* words;
  Tag tag;
  const std::uint32_t* residual;  // what products are added to, and the tag it has; null: nothing
  Tag residualTag;
  T* y;  // of the last block; null in others

  __device__ __forceinline__ float product(float sum, const Tile& tile, int row) const {
    const T* const bias = static_cast<const T*>(block.biases[tile.matrix]);
    return rounded<T>(bias ? sum + toFloat(bias[tile.row + row]) : sum);
  }
  __device__ __forceinline__ void put(int at, float v) const {
    tag.put<T>(words + at, v);
    if (y) y[at] = fromFloat<T>(v);
  }
};

/** All tiles of a group: sums of warps wait until those of 16 tiles, or all, are added up and stored. */
template <typename T, bool kNested>
__device__ __forceinline__ void multiply(const Problem& p, const Group& group, Multiplier<T, kNested>& product,
                                         std::uint32_t table, float factor, const Output<T>& out) {
  // What this thread stores of a batch of tiles.
  const int row = static_cast<int>(threadIdx.x % kTileRows), item = static_cast<int>(threadIdx.x / kTileRows);
  const int token = p.tokens == 1 ? 0 : item & 1, mine = (p.tokens == 1 ? item : item >> 1) << group.pairs();
#pragma unroll 1
  for (int first = 0; first < group.tiles; first += PartialSums::kTiles) {
    const int count = min(group.tiles - first, PartialSums::kTiles);
    const bool stores = mine < count;
    const Tile tile = group.tile(p, first + mine);
    const int at = token * group.results + tile.result + row;
    std::uint32_t residual = 0;
    if (stores && out.residual) residual = loadWord(out.residual + at);  // on its way while tiles are multiplied
#pragma unroll 1
    for (int n = 0; n < count; ++n) {
      const Tile t = group.tile(p, first + n);
      float acc[4] = {};
      product(t, group.depth, kNested ? out.block.offset[t.matrix] : 0.0f, acc);
      PartialSums::put(table, n, product.lane(), acc);
    }
    ptx::syncThreads(kConsumerBarrier, kConsumerThreads);
    if (stores) {
      float v = out.product(PartialSums::get(table, mine, row, token) * factor, tile, row);
      if (group.kind == kFfnProducts) {
        const Tile up = {tile.matrix + 1, tile.row, tile.result};
        v = activate(Activation::kSilu, v) *
            out.product(PartialSums::get(table, mine + 1, row, token) * factor, up, row);
      }
      if (out.residual)
        v += valueOf<T>(out.residualTag.on(residual) ? residual : out.residualTag.wait(out.residual + at));
      out.put(at, v);
    }
    // Behind the last batch the barriers of the next X come before the next sums.
    if (first + count < group.tiles) ptx::syncThreads(kConsumerBarrier, kConsumerThreads);
  }
}

}  // namespace decoder
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_DECODER_PRODUCTS_CUH
