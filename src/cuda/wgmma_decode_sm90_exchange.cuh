// SPDX-License-Identifier: MPL-2.0
// wgmma_decode_sm90_exchange.cuh: the blocks of a cluster have each summed a share of K of the same tile. Each adds up
// all shares of some of its tokens.
//
//   tokens of a tile    │ piece 0 │ 1 │ 2 │ 3 │ … 7 │    of three blocks the first has 0 to 2, the next 3 to 5
//
// Sums go from registers to the memory of the block that adds them up, where stages of X were: without a second kernel
// and a detour through the device's memory, and without a count that somebody would have to set back. On an H200 this
// takes about 1 us, where a second kernel takes 4 to 7. Numbers of blocks are constants here: divisions by one that is
// known only as the program runs took 1.5 us more. Shares are added in ascending order of k: the same bits in every
// run.
#ifndef EIGENQ_CUDA_WGMMA_DECODE_SM90_EXCHANGE_CUH
#define EIGENQ_CUDA_WGMMA_DECODE_SM90_EXCHANGE_CUH

#include "wgmma_decode_sm90_tiles.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace wgmma_decode {

constexpr int kMostBlocks = 3;  // of a cluster

/** What the threads that multiply do together. \tparam kBlocks  of a cluster */
template <typename Tiles, int kBlocks>
class Exchange {
 public:
  static constexpr int kPieces = Tiles::kTokens <= 32 ? 4 : 8;
  static constexpr int kPieceTokens = Tiles::kTokens / kPieces, kPieceSums = kPieceTokens / 2;  // sums of a thread
  using Piece = float[kPieceSums];

  /** \param share  of K, that this block has summed */
  __device__ __forceinline__ Exchange(const Memory<Tiles>& memory, int share)
      : m_memory(memory),
        m_rank(ptx::clusterRank()),
        m_share(share),
        m_begin(firstOf(share)),
        m_end(firstOf(share + 1)) {}

  /** Behind the last product of a unit. \a store  is called with the first token of each piece of this block's, and
   * its sums. \param parity  of the exchanges before */
  template <typename Store>
  __device__ __forceinline__ void run(const float (&sums)[Tiles::kSums], std::uint32_t parity, const Store& store) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    __syncwarp();
    if (lane < kBlocks) ptx::arriveAtBlock(m_memory.ready(), lane);
    if (threadIdx.x == 0) ptx::arriveExpecting(m_memory.received(), (kBlocks - 1) * (m_end - m_begin) * kPieceBytes);
    ptx::wait(m_memory.ready(), parity);
#pragma unroll
    for (int ahead = 1; ahead < kBlocks; ++ahead) send(ahead, sums);
    ptx::waitForBlocks(m_memory.received(), parity);
#pragma unroll
    for (int piece = 0; piece < kPieces; ++piece) {
      if (m_begin <= piece && piece < m_end) addInPlace(piece - m_begin, sums + piece * kPieceSums);
    }
#pragma unroll 1
    for (int piece = m_begin; piece < m_end; ++piece) {
      Piece total;
      load(m_memory.front + place(0, piece - m_begin), total);
      store(piece * kPieceTokens, total);
    }
    __syncwarp();
    if (lane == 0) ptx::arrive(m_memory.drained());
  }

 private:
  static constexpr int kThreads = Tiles::kGroups * kGroup;
  static constexpr int kPieceBytes = kThreads * kPieceSums * 4;
  static constexpr int kSlotPieces = (kPieces + kBlocks - 1) / kBlocks;
  static_assert((kBlocks - 1) * kSlotPieces * kPieceBytes <= Tiles::kXStages * Tiles::kXStageBytes,
                "sums do not fit where X was");

  /** The first piece of the block that has a share. */
  static __device__ __forceinline__ int firstOf(int share) { return (share * kPieces + kBlocks - 1) / kBlocks; }
  /** Where a thread's sums of the slot-th other share lie, of a block's i-th piece. */
  static __device__ __forceinline__ std::uint32_t place(int slot, int i) {
    return (slot * kSlotPieces + i) * kPieceBytes + threadIdx.x * 16;
  }

  /** To the block whose share comes so many behind, or goes round. */
  __device__ __forceinline__ void send(int ahead, const float (&sums)[Tiles::kSums]) const {
    const int owner = wrapped(m_share + ahead), rank = wrapped(m_rank + ahead), begin = firstOf(owner);
    const int end = firstOf(owner + 1);
    const std::uint32_t first = m_memory.front + place(m_share < owner ? m_share : m_share - 1, 0);
    const std::uint32_t to = ptx::addressInBlock(first, rank);
    const std::uint32_t barrier = ptx::addressInBlock(m_memory.received(), rank);
#pragma unroll
    for (int piece = 0; piece < kPieces; ++piece) {
      if (piece < begin || piece >= end) continue;
#pragma unroll
      for (int v = 0; v < kPieceSums; v += 4) {
        const float* const from = sums + piece * kPieceSums + v;
        ptx::sendFloats(to + (piece - begin) * kPieceBytes + v * kThreads * 4, {from[0], from[1], from[2], from[3]},
                        barrier);
      }
    }
  }
  static __device__ __forceinline__ int wrapped(int i) { return i < kBlocks ? i : i - kBlocks; }

  static __device__ __forceinline__ void load(std::uint32_t at, Piece& sums) {
#pragma unroll
    for (int v = 0; v < kPieceSums; v += 4) {
      const float4 four = loadFloats(at + v * kThreads * 4);
      sums[v] = four.x;
      sums[v + 1] = four.y;
      sums[v + 2] = four.z;
      sums[v + 3] = four.w;
    }
  }

  /** \a mine and the other shares of the block's i-th piece, to the place of the first of these. */
  __device__ __forceinline__ void addInPlace(int i, const float* mine) const {
    Piece others[kBlocks - 1], total;
#pragma unroll
    for (int slot = 0; slot < kBlocks - 1; ++slot) load(m_memory.front + place(slot, i), others[slot]);
#pragma unroll
    for (int v = 0; v < kPieceSums; ++v) {
      total[v] = m_share == 0 ? mine[v] : 0;
#pragma unroll
      for (int slot = 0; slot < kBlocks - 1; ++slot) {
        total[v] += others[slot][v];
        if (slot + 1 == m_share) total[v] += mine[v];
      }
    }
#pragma unroll
    for (int v = 0; v < kPieceSums; v += 4)
      storeFloats(m_memory.front + place(0, i) + v * kThreads * 4,
                  {total[v], total[v + 1], total[v + 2], total[v + 3]});
  }

  const Memory<Tiles>& m_memory;
  const int m_rank, m_share, m_begin, m_end;
};

}  // namespace wgmma_decode
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_WGMMA_DECODE_SM90_EXCHANGE_CUH
