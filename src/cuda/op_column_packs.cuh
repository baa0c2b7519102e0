// SPDX-License-Identifier: MPL-2.0
// The packs of a column that one thread of a block works on, where an op passes over the column more than once.
//
//   column │ pack 0 │ pack 1 │ … │ pack B │ …    thread n of B has packs n, n + B, n + 2B, …
//
// Held     up to kPacks of them stay in registers from fetch() on: one read of memory for all passes, and the next
//          column is on its way while this one is reduced. All loads of a fetch() are in flight at once.
// Streamed kPacks = 0, columns of any length: each pass reads them again, from L1 or L2.
// Either way a thread meets its entries in the same order, so that sums are the same to the bit.
#ifndef EIGENQ_CUDA_OP_COLUMN_PACKS_CUH
#define EIGENQ_CUDA_OP_COLUMN_PACKS_CUH

#include "op_columns.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {

/** Calls \a f(n, i) for this thread's packs n, which begin at row i. */
template <int kPacks, int kWidth, typename F>
__device__ __forceinline__ void forEachPack(Index rows, F f) {
  const Index step = Index{blockDim.x} * kWidth;
  Index i = Index{threadIdx.x} * kWidth;
  if constexpr (kPacks > 0) {
#pragma unroll
    for (int n = 0; n < kPacks; ++n, i += step)
      if (i < rows) f(n, i);
  } else {
    for (; i < rows; i += step) f(0, i);
  }
}

template <typename T, int kWidth, int kPacks>
class ColumnPacks {
  static_assert(sizeof(Pack<T, kWidth>) == sizeof(uint4), "held packs are of 16 bytes");

 public:
  __device__ __forceinline__ void fetch(const T* column, Index rows) {
    forEachPack<kPacks, kWidth>(rows, [&](int n, Index i) { m_bits[n] = *reinterpret_cast<const uint4*>(column + i); });
  }
  /** Pack \a n, which begins at row i. */
  __device__ __forceinline__ void get(int n, Index /*i*/, float (&v)[kWidth]) const {
    load(reinterpret_cast<const T*>(&m_bits[n]), v);
  }
  /** Replaces a pack by what was stored at its place of the column. */
  __device__ __forceinline__ void put(int n, const float (&v)[kWidth]) { store(reinterpret_cast<T*>(&m_bits[n]), v); }

 private:
  uint4 m_bits[kPacks];  // of 16-bit scalars the compiler would keep each in a register of its own
};

template <typename T, int kWidth>
class ColumnPacks<T, kWidth, 0> {
 public:
  __device__ __forceinline__ void fetch(const T* column, Index /*rows*/) { m_column = column; }
  __device__ __forceinline__ void get(int /*n*/, Index i, float (&v)[kWidth]) const { load(m_column + i, v); }
  __device__ __forceinline__ void put(int /*n*/, const float (&)[kWidth]) {}

 private:
  const T* m_column;
};

constexpr int kMostHeldPacks = 2;

/** Threads of a multiprocessor that the registers of an op have room for. */
template <int kPacks, unsigned kHoldingOne, unsigned kHoldingMore>
constexpr unsigned kResidentThreads = kPacks == 0   ? 1536
                                      : kPacks == 1 ? kHoldingOne
                                                    : kHoldingMore;

/** Calls \a f(threads of a block, packs that a thread holds as a constant) for an op with a block a column. */
template <int kWidth, typename F>
void dispatchPacks(Index rows, F&& f) {
  const Index packs = rows / kWidth;
  const unsigned threads = threadsForColumn(packs);
  if constexpr (kWidth > 1) {
    if (packs <= Index{threads}) return f(threads, std::integral_constant<int, 1>());
    if (packs <= Index{kMostHeldPacks} * threads) return f(threads, std::integral_constant<int, kMostHeldPacks>());
  }
  f(threads, std::integral_constant<int, 0>());
}

/** Blocks for \a cols columns: those that hold packs fetch their next column early, so they are as many as find room.
 */
template <int kPacks>
unsigned blocksForColumns(Index cols, unsigned threads, unsigned residentThreads, Context& context) {
  if (kPacks == 0) return gridFor(cols);
  return gridFor(std::min(cols, Index{context.multiprocessors()} * (residentThreads / threads)));
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_OP_COLUMN_PACKS_CUH
