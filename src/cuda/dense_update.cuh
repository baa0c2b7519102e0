// SPDX-License-Identifier: MPL-2.0
// dense_update.cuh: Y = alpha·A·B + residual in 16 bits with a short sum, as an adapter adds its part to a layer's
// result.
//
//               16 columns (a step)        a warp's patch: 64 rows × 16 columns of Y, its sums in registers
//             ┌───┬───┬───┬─                A's 128 rows stay in shared memory while a block goes along B's columns;
//   64 rows   │ 0 │ 2 │ 4 │ …               the patches of a tile are numbered down, then across, and a block takes
//             ├───┼───┼───┤                 consecutive numbers, its warps consecutive parts of those
//             │ 1 │ 3 │ 5 │
//             ╞═══╪═══╪═══╡ 128 rows
//             │   │   │   │      lane 4g + c   loads, adds to and stores rows 8g … 8g + 7 of columns 2c, 2c + 1 of
//                                              each group of 8: 16 bytes; eight lanes make the 128 bytes of a line
//
//   A's rows    An MMA gives lane 4g + c rows g and g + 8 of its 16. For lanes to have neighbours, MMA t (of four)
//               multiplies rows 8g + 2t (as g) and 8g + 2t + 1 (as g + 8): row i of 64 lies at slot i % 8 · 8 + i / 8.
//   depth       The order of a sum is free: what an MMA calls k 2c, 2c+1, 2c+8, 2c+9 is half of eight neighbours in
//               memory, so that 16 bytes of a column of B are a lane's part of two MMAs. Of each 32 values of a slot,
//               pair 4c + w lies at word 4w + c. Slots are an odd number of 16-byte chunks apart: no access of eight
//               slots, be it by ldmatrix or by those who fill them, meets a bank twice.
//
// Traffic  Y twice, and half (depth 64) of a read of it again for B, from the second-level cache; A once a block.
// Time     H200, Y 4096×4096 by 64: 24.6 us, 2.7 TB/s, where a copy of Y moves 3.7; by way of float sums 54.
// Work     270 instructions a patch at depth 64, where four schedulers have time for 840 while memory moves its 4 KiB.
// Depth    A patch's Y is requested while the one before is multiplied: 32 KiB an SM with 16 warps, where 2.3 TB/s of
//          reads at 1 µs want 17.
// Rounding alpha·sum·sign + residualSign·residual in float as applyEpilogue() has it, then once to 16 bits.
// Order    Each sum is one warp's, by ascending k: the same bits in every run.
// In place Each value of Y is read and written by one thread; nothing else reads it.
#ifndef EIGENQ_CUDA_DENSE_UPDATE_CUH
#define EIGENQ_CUDA_DENSE_UPDATE_CUH

#include <cstddef>
#include <cstdint>

#include "device_lowering.h"
#include "eight_values.cuh"
#include "mma.cuh"
#include "op_launch.cuh"
#include "ptx_shared.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace update {

constexpr int kPatchRows = 64, kPatchColumns = 16;
constexpr int kGroups = kPatchColumns / 8;  // of columns: of an MMA
constexpr int kRun = 32;                    // values of a sum that a lane's 16 bytes of B belong to

/** \tparam kDepth_   most values of a sum: a multiple of 32
 * \tparam kPatches_  rows of A in shared memory, by patches
 * \tparam kBlocks_   that share a multiprocessor */
template <int kDepth_, int kPatches_, int kWarps_, int kBlocks_>
struct Tiles {
  static constexpr int kDepth = kDepth_, kPatches = kPatches_, kWarps = kWarps_, kBlocks = kBlocks_;
  static constexpr int kRows = kPatches * kPatchRows, kThreads = 32 * kWarps, kRuns = kDepth / kRun;
  static constexpr int kPitch = kDepth + 8;  // of a slot
  static constexpr std::size_t kSharedBytes = std::size_t{2} * kRows * kPitch;
  static_assert(kDepth % kRun == 0 && kPitch / 8 % 2 == 1, "neighbouring slots differ in their banks");
};

/** The product with Y's columns contiguous, and its residual's. */
struct Problem {
  DenseProduct p;
  bool aByRows = false;   // A is read along its columns, not its rows
  bool aVectors = false;  // by 16 bytes
  bool bVectors = false;
};

__device__ __forceinline__ int laneId() { return static_cast<int>(threadIdx.x % 32); }
__device__ __forceinline__ int warpId() { return static_cast<int>(threadIdx.x / 32); }

/** Eight values a step apart, zeros from \a count on.
 * \tparam kVectors  they are 16 aligned bytes, and all are there or none */
template <bool kVectors, typename T>
__device__ __forceinline__ EightValues<T> loadRun(const T* from, Index step, Index count) {
  EightValues<T> v = {};
  if constexpr (kVectors) {
    if (count > 0) v = loadEight(from);
  } else {
#pragma unroll
    for (int k = 0; k < kEight; ++k) {
      if (k < count)
        v.word[k / 2] |= std::uint32_t{reinterpret_cast<const std::uint16_t*>(from)[k * step]} << (k % 2 * 16);
    }
  }
  return v;
}

// ---- A in shared memory

/** Rows of A, from one on, by slots. */
template <typename T, typename Tiles>
class RowsOfA {
 public:
  __device__ __forceinline__ explicit RowsOfA(void* memory) : m_words(static_cast<std::uint32_t*>(memory)) {}

  /** Patches [first, first + count) of the rows from \a row on; zeros behind A's last row and value. */
  __device__ __forceinline__ void fill(const Problem& problem, Index row, int first, int count) {
    const ConstDenseView& a = problem.p.a;
    const Index begin = row + first * kPatchRows;
    const Region region = {static_cast<const T*>(a.data) + begin * a.rowStride,
                           a.rowStride,
                           a.colStride,
                           a.rows - begin,
                           static_cast<int>(a.cols),
                           first * kPatchRows,
                           count};
    if (problem.aByRows) {
      problem.aVectors ? fillAlongRows<true>(region) : fillAlongRows<false>(region);
    } else {
      problem.aVectors ? fillAlongDepth<true>(region) : fillAlongDepth<false>(region);
    }
  }

  /** What a lane gives ldmatrix for the first 16 slots of a patch and 16 values; others follow at whole pitches and at
   * 32 bytes. */
  __device__ __forceinline__ std::uint32_t fragmentAddress(int patch) const {
    const int slot = patch * kPatchRows + laneId() % 16;
    return static_cast<std::uint32_t>(__cvta_generic_to_shared(m_words)) + slot * kPitchBytes + laneId() / 16 * 16;
  }
  static constexpr int kPitchBytes = 2 * Tiles::kPitch;

 private:
  struct Region {
    const T* data;
    Index rowStride, colStride, rows;
    int depth, firstSlot, patches;
  };
  static constexpr int kRuns = Tiles::kRuns;

  __device__ __forceinline__ void put(int slot, int run, int w, int c, std::uint32_t pair) {
    m_words[slot * (Tiles::kPitch / 2) + run * (kRun / 2) + 4 * w + c] = pair;
  }

  /** A lane: eight values of one row; a warp: 32 of every eighth row of a patch. */
  template <bool kVectors>
  __device__ __forceinline__ void fillAlongDepth(const Region& region) {
    const int g = laneId() / 4, c = laneId() % 4;
#pragma unroll 4
    for (int item = warpId(); item < region.patches * 8 * kRuns; item += Tiles::kWarps) {
      const int run = item % kRuns, x = item / kRuns % 8, patch = item / kRuns / 8;
      const int i = patch * kPatchRows + 8 * g + x, k = run * kRun + 8 * c;
      const EightValues<T> v = loadRun<kVectors>(region.data + i * region.rowStride + k * region.colStride,
                                                 region.colStride, i < region.rows ? region.depth - k : 0);
#pragma unroll
      for (int w = 0; w < 4; ++w) put(region.firstSlot + patch * kPatchRows + 8 * x + g, run, w, c, v.word[w]);
    }
  }

  /** A lane: eight rows at two values, paired anew; a warp: a patch at four such pairs. */
  template <bool kVectors>
  __device__ __forceinline__ void fillAlongRows(const Region& region) {
    const int g = laneId() % 8, c = laneId() / 8;
#pragma unroll 2
    for (int item = warpId(); item < region.patches * 4 * kRuns; item += Tiles::kWarps) {
      const int w = item % 4, run = item / 4 % kRuns, patch = item / 4 / kRuns;
      const int i = patch * kPatchRows + 8 * g, k = run * kRun + 8 * c + 2 * w;
      const T* const from = region.data + i * region.rowStride + k * region.colStride;
      const Index left = region.rows - i;
      const EightValues<T> even = loadRun<kVectors>(from, region.rowStride, k < region.depth ? left : 0);
      const EightValues<T> odd =
          loadRun<kVectors>(from + region.colStride, region.rowStride, k + 1 < region.depth ? left : 0);
#pragma unroll
      for (int x = 0; x < 8; ++x) {
        const std::uint32_t pair = __byte_perm(even.word[x / 2], odd.word[x / 2], x % 2 ? 0x7632 : 0x5410);
        put(region.firstSlot + patch * kPatchRows + 8 * x + g, run, w, c, pair);
      }
    }
  }

  std::uint32_t* m_words;
};

// ---- a patch

/** A step's columns of B: a lane's values of each run, of one column each group. */
template <typename T, typename Tiles>
struct ColumnsOfB {
  EightValues<T> run[Tiles::kRuns][kGroups];

  __device__ __forceinline__ void load(const Problem& problem, Index column) {
    problem.bVectors ? loadBy<true>(problem.p.b, column) : loadBy<false>(problem.p.b, column);
  }

 private:
  template <bool kVectors>
  __device__ __forceinline__ void loadBy(const ConstDenseView& b, Index column) {
#pragma unroll
    for (int q = 0; q < kGroups; ++q) {
      const Index j = column + 8 * q + laneId() / 4;
#pragma unroll
      for (int r = 0; r < Tiles::kRuns; ++r) {
        const int k = r * kRun + laneId() % 4 * 8;
        const T* const from = static_cast<const T*>(b.data) + j * b.colStride + k * b.rowStride;
        run[r][q] = loadRun<kVectors>(from, b.rowStride, j < b.cols ? b.rows - k : 0);
      }
    }
  }
};

using Sums = float[4][kGroups][4];  // (MMA, group of columns, as an MMA leaves them)

template <typename T, typename Tiles>
__device__ __forceinline__ void multiply(const RowsOfA<T, Tiles>& a, int patch, const ColumnsOfB<T, Tiles>& b,
                                         Sums& sums) {
  const std::uint32_t from = a.fragmentAddress(patch);
#pragma unroll
  for (int half = 0; half < 2 * Tiles::kRuns; ++half) {  // of a run
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      std::uint32_t x[4];
      ptx::loadMatrices(x, from + t * 16 * a.kPitchBytes + half * 32);
#pragma unroll
      for (int q = 0; q < kGroups; ++q) {
        const std::uint32_t(&y)[4] = b.run[half / 2][q].word;
        multiplyAccumulate(sums[t][q], x, y[half % 2 * 2], y[half % 2 * 2 + 1], TypeTag<T>());
      }
    }
  }
}

/** Where a lane's values of a patch are: eight from \a row on, in columns column + 8q + e. */
struct Place {
  Index row, column;

  __device__ __forceinline__ Place(Index firstRow, Index firstColumn)
      : row(firstRow + laneId() / 4 * 8), column(firstColumn + laneId() % 4 * 2) {}
};

/** A lane's values of a patch of a matrix of contiguous columns: [q][e]. */
template <typename T>
struct Values {
  EightValues<T> at[kGroups][2];

  /** Past the first-level cache: they are read once. */
  template <bool kVectors>
  __device__ __forceinline__ void load(const ConstDenseView& m, const Place& place) {
#pragma unroll
    for (int n = 0; n < 2 * kGroups; ++n) {
      const Index j = place.column + n / 2 * 8 + n % 2;
      const T* const from = static_cast<const T*>(m.data) + j * m.colStride + place.row;
      EightValues<T>& v = at[n / 2][n % 2];
      if constexpr (kVectors) {
        uint4 words = make_uint4(0, 0, 0, 0);
        if (j < m.cols && place.row < m.rows) words = __ldcg(reinterpret_cast<const uint4*>(from));
        v = {{words.x, words.y, words.z, words.w}};
      } else {
        v = loadSome(from, j < m.cols ? m.rows - place.row : 0);
      }
    }
  }
};

template <bool kVectors, typename T>
__device__ __forceinline__ void store(const DenseProduct& p, const Place& place, const Sums& sums,
                                      const Values<T>& residual) {
  const Epilogue& e = p.epilogue;
#pragma unroll
  for (int n = 0; n < 2 * kGroups; ++n) {
    const int q = n / 2, odd = n % 2;
    const Index j = place.column + 8 * q + odd;
    float old[kEight], v[kEight];
    toFloats(residual.at[q][odd], old);
#pragma unroll
    for (int x = 0; x < kEight; ++x)
      v[x] = e.alpha * sums[x / 2][q][x % 2 * 2 + odd] * e.sign + e.residualSign * old[x];
    EightValues<T> rounded;
    fromFloats(v, rounded);
    const Index left = j < p.y.cols ? p.y.rows - place.row : 0;
    T* const to = static_cast<T*>(p.y.data) + j * p.y.colStride + place.row;
    if constexpr (kVectors) {
      if (left > 0)
        *reinterpret_cast<uint4*>(to) = make_uint4(rounded.word[0], rounded.word[1], rounded.word[2], rounded.word[3]);
    } else {
      storeEight(rounded, to, left, false);
    }
  }
}

// ---- who does which

/** Patches [begin, end) of one tile of A's rows, numbered from the tile's first. */
struct Part {
  Index row;    // the tile's first
  int patches;  // of the tile, from top to bottom
  int begin, end;

  /** This warp's. */
  __device__ __forceinline__ Part share(int warps) const {
    const int count = end - begin;
    return {row, patches, begin + count * warpId() / warps, begin + count * (warpId() + 1) / warps};
  }
};

/** Goes along a part. */
struct Cursor {
  int patch;  // of its step
  Index step;

  __device__ __forceinline__ Cursor(const Part& part, int number)
      : patch(number % part.patches), step(number / part.patches) {}

  __device__ __forceinline__ Place place(const Part& part) const {
    return Place(part.row + patch * kPatchRows, step * kPatchColumns);
  }
  __device__ __forceinline__ void advance(const Part& part) {
    if (++patch < part.patches) return;
    patch = 0;
    ++step;
  }
};

/** All patches of Y: tile by tile, down and across each. */
template <typename Tiles>
struct Patches {
  Index down, steps;  // of all tiles; of one

  __host__ __device__ explicit Patches(const DenseView& y)
      : down((y.rows + kPatchRows - 1) / kPatchRows), steps((y.cols + kPatchColumns - 1) / kPatchColumns) {}

  __host__ __device__ Index count() const { return down * steps; }

  /** Those of [begin, end) that are of the first one's tile. */
  __device__ __forceinline__ Part firstPart(Index begin, Index end) const {
    const Index perTile = Tiles::kPatches * steps, tile = begin / perTile, before = tile * perTile;
    const Index left = down - tile * Tiles::kPatches, patches = left < Tiles::kPatches ? left : Tiles::kPatches;
    const Index inTile = end - before < patches * steps ? end - before : patches * steps;
    return {tile * Tiles::kRows, static_cast<int>(patches), static_cast<int>(begin - before), static_cast<int>(inTile)};
  }
};

/** The rows of A that a part needs: all of its tile's but in a single step. */
template <typename T, typename Tiles>
__device__ __forceinline__ void fillFor(const Part& part, const Problem& problem, RowsOfA<T, Tiles>& rows) {
  const Cursor first(part, part.begin), last(part, part.end - 1);
  const bool single = first.step == last.step;
  rows.fill(problem, part.row, single ? first.patch : 0, single ? part.end - part.begin : part.patches);
}

template <bool kVectors, typename T, typename Tiles>
__device__ __forceinline__ void updatePart(const Problem& problem, const Part& part, RowsOfA<T, Tiles>& rows) {
  const DenseProduct& p = problem.p;
  const Part mine = part.share(Tiles::kWarps);
  Cursor at(mine, mine.begin), ahead = at;
  Values<T> next;
  if (mine.begin < mine.end) next.template load<kVectors>(p.epilogue.residual, ahead.place(mine));
  fillFor(part, problem, rows);
  __syncthreads();
  ColumnsOfB<T, Tiles> columns;
  for (int number = mine.begin; number < mine.end; ++number, at.advance(mine)) {
    const Values<T> residual = next;
    if (number == mine.begin || at.patch == 0) columns.load(problem, at.step * kPatchColumns);
    ahead.advance(mine);
    if (number + 1 < mine.end) next.template load<kVectors>(p.epilogue.residual, ahead.place(mine));
    Sums sums = {};
    multiply(rows, at.patch, columns, sums);
    store<kVectors>(p, at.place(mine), sums, residual);
  }
  __syncthreads();  // A's next rows take their place
}

/** \tparam kVectors  Y and the residual are accessed by 16 bytes, else by values */
template <typename T, typename Tiles, bool kVectors>
__global__ void __launch_bounds__(Tiles::kThreads, Tiles::kBlocks)
    updateKernel(const __grid_constant__ Problem problem) {
  joinStream();
  RowsOfA<T, Tiles> rows(dynamicShared<void>());
  const Patches<Tiles> all(problem.p.y);
  const Index end = all.count() * (Index{blockIdx.x} + 1) / gridDim.x;
  for (Index begin = all.count() * Index{blockIdx.x} / gridDim.x; begin < end;) {
    const Part part = all.firstPart(begin, end);
    updatePart<kVectors>(problem, part, rows);
    begin += part.end - part.begin;
  }
}

}  // namespace update
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_DENSE_UPDATE_CUH
