// SPDX-License-Identifier: MPL-2.0
// What the blocks of int8_stream_sm90.cu know and do beside multiplying: statistics and outliers, brought by helping
// warps meanwhile, and Y out of the sums of a cluster.
//
//   sums, transposed   token 0 │ rows 0 … 127 │    in each block of the cluster, over the stages; a block finishes its
//                      token 1 │ …            │    share of rows: a thread four of them, token after token
#ifndef EIGENQ_CUDA_INT8_STREAM_SM90_CUH
#define EIGENQ_CUDA_INT8_STREAM_SM90_CUH

#include <eigen_q/src/Int8Codec.h>

#include <type_traits>

#include "epilogue.cuh"
#include "int8_kernels.h"
#include "int8_scale.cuh"
#include "int8_stages_sm90.cuh"
#include "outlier_marks.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace stream {

using namespace wgmma;

constexpr Index kMostTokens = 64;  // rows of X
constexpr int kMostShares = 4;     // of k: the blocks of a cluster, a power of two
constexpr int kConsumers = 2 * kGroup;
constexpr int kHelpers = 96;
constexpr int kThreads = kConsumers + 32 + kHelpers;
constexpr int kHelpersBarrier = 1, kConsumersBarrier = 2;

template <int kTokens>
struct Tiling {
  static constexpr int kStageBytes = kBytesP + kTokens * kTileK;
  static constexpr int kStages = kTokens == 64 ? 4 : 5;
};

constexpr int kMostGathered = 32;

/** The first outlier columns: of X for all tokens, of W for the block's share of rows. Zeros behind the last. */
template <int kTokens>
struct Outliers {
  alignas(16) float x[kMostGathered][kTokens];
  alignas(16) std::int8_t xCodes[kMostGathered / 4][kTokens][4];
  alignas(16) std::int8_t wCodes[kMostGathered / 4][kTileP][4];
  int columns[kMostGathered];
  int count;  // of all
};

/** Where the stages were, when all of them have been used. */
template <int kTokens>
struct Exchange {
  static constexpr int kPitch = kTileP + 4;  // lanes 4g + c write row g of token 2c: all banks
  alignas(16) int sums[kTokens][kPitch];
  alignas(16) float w[kMostGathered][kTileP];  // of the outliers
};

template <int kTokens>
struct SharedMemory {
  using Tiles = Tiling<kTokens>;
  alignas(1024) std::int8_t stages[Tiles::kStages][Tiles::kStageBytes];
  Outliers<kTokens> outliers;
  alignas(16) float rowStats[kTokens];
  alignas(16) float absmax[kTileP];  // of the block's share of rows
  alignas(8) std::uint64_t full[Tiles::kStages];
  alignas(8) std::uint64_t empty[Tiles::kStages];

  __device__ __forceinline__ Exchange<kTokens>& exchange() {
    static_assert(sizeof(Exchange<kTokens>) <= sizeof(stages), "the exchange lies within the stages");
    return *reinterpret_cast<Exchange<kTokens>*>(stages[0]);
  }
};

struct StreamArgs {
  DeviceDecomposedProduct p;
  const std::uint32_t* marks;  // a bit a column: an outlier, whose codes have been left; null: listed and cleared ones
  int* columns;                // room for a list of what the marks say: every block writes the same
  int tokens;
  int shares;
  int steps;   // of k
  bool plain;  // there is no epilogue
  bool vectorStores;
};

/** What a block does: a tile, a share of k, and in the end a share of the tile's rows. */
struct Task {
  Index row;  // of W, the tile's first
  int share;
  int firstStep;
  int steps;
  int firstRow;  // within the tile: this block's share of rows
  int rows;

  __device__ __forceinline__ explicit Task(const StreamArgs& a) {
    share = static_cast<int>(blockIdx.x % static_cast<unsigned>(a.shares));
    row = static_cast<Index>(blockIdx.x / static_cast<unsigned>(a.shares)) * kTileP;
    firstStep = a.steps * share / a.shares;
    steps = a.steps * (share + 1) / a.shares - firstStep;
    rows = kTileP / a.shares;
    firstRow = share * rows;
  }
};

__device__ __forceinline__ const int* columnsOf(const StreamArgs& a) {
  return a.marks ? a.columns : a.p.activations.outliers;
}

/** The statistics, while the others multiply. */
template <int kTokens>
__device__ __forceinline__ void loadStatistics(const StreamArgs& a, const Task& task, int thread, int threads,
                                               SharedMemory<kTokens>& to) {
  for (int t = thread; t < a.tokens; t += threads) to.rowStats[t] = a.p.activations.rowStats[t];
  for (int r = task.firstRow + thread; r < task.firstRow + task.rows; r += threads)
    to.absmax[r] = task.row + r < a.p.w.rows ? a.p.w.rowAbsmax[task.row + r] : 0.0f;
}

/** Lists the first outliers. */
template <int kTokens>
__device__ __forceinline__ void list(const StreamArgs& a, int lane, Outliers<kTokens>& to) {
  int count = 0;
  if (a.marks) {
    count = listMarked(a.marks, a.p.w.cols, [&](int o, int k) {
      a.columns[o] = k;
      if (o < kMostGathered) to.columns[o] = k;
    });
  } else {
    count = outlierCount(a.p.activations);
    for (int o = lane; o < min(count, kMostGathered); o += 32) to.columns[o] = a.p.activations.outliers[o];
  }
  if (lane == 0) to.count = count;
}

// Loads of a batch go out together only where no branch stands between them: what is not there is read elsewhere and
// set to zero afterwards.
constexpr int kBatch = 8;

/** X in the columns listed, and its codes there, by so many threads. */
template <typename T, int kTokens>
__device__ __forceinline__ void gatherX(const StreamArgs& a, int count, int thread, int threads,
                                        Outliers<kTokens>& to) {
  const T* const x = static_cast<const T*>(a.p.x.data);
  const int all = (count + 3) / 4 * 4 * kTokens;
  for (int begin = thread; begin < all; begin += kBatch * threads) {
    T values[kBatch];
    std::int8_t codes[kBatch];
#pragma unroll
    for (int u = 0; u < kBatch; ++u) {
      const int at = begin + u * threads, k = to.columns[min(at / kTokens, count - 1)];
      const Index i = min(at % kTokens, a.tokens - 1);
      values[u] = x[i * a.p.x.rowStride + k * a.p.x.colStride];
      codes[u] = a.p.activations.codes[i * a.p.activations.stride + k];
    }
#pragma unroll
    for (int u = 0; u < kBatch; ++u) {
      const int at = begin + u * threads, o = at / kTokens, t = at % kTokens;
      if (at >= all) break;
      to.x[o][t] = o < count ? toFloat(values[u]) : 0.0f;
      to.xCodes[o / 4][t][o % 4] = o < count ? codes[u] : std::int8_t{0};
    }
  }
}

/** The codes of the block's share of rows of W in the columns listed. */
template <int kTokens>
__device__ __forceinline__ void gatherW(const StreamArgs& a, const Task& task, int count, int thread, int threads,
                                        Outliers<kTokens>& to) {
  const std::int8_t* const w = codesOf(a.p.w);
  const int shift = 31 - __clz(task.rows), mask = task.rows - 1;  // a power of two
  const int all = (count + 3) / 4 * 4 << shift;
  for (int begin = thread; begin < all; begin += kBatch * threads) {
    std::int8_t codes[kBatch];
#pragma unroll
    for (int u = 0; u < kBatch; ++u) {
      const int at = begin + u * threads, k = to.columns[min(at >> shift, count - 1)];
      const Index j = task.row + task.firstRow + (at & mask);
      codes[u] = w[min(j, a.p.w.rows - 1) * a.p.w.stride + k];
    }
#pragma unroll
    for (int u = 0; u < kBatch; ++u) {
      const int at = begin + u * threads, o = at >> shift;
      if (at >= all) break;
      to.wCodes[o / 4][task.firstRow + (at & mask)][o % 4] = o < count ? codes[u] : std::int8_t{0};
    }
  }
}

/** The helping warps: statistics, and the first outliers. One warp sees to X, the others to W. */
template <int kTokens>
__device__ __forceinline__ void help(const StreamArgs& a, const Task& task, SharedMemory<kTokens>& shared) {
  const int helper = static_cast<int>(threadIdx.x) - (kThreads - kHelpers);
  Outliers<kTokens>& to = shared.outliers;
  const bool outliers = a.marks || a.p.activations.outlierCount;
  if (outliers && helper < 32) {
    list(a, helper, to);
  } else {
    const int skipped = outliers ? 32 : 0;
    loadStatistics(a, task, helper - skipped, kHelpers - skipped, shared);
  }
  if (!outliers) return;
  ptx::syncThreads(kHelpersBarrier, kHelpers);
  const int count = min(to.count, kMostGathered);
  if (count == 0) return;
  const int ofX = kTokens > 16 ? 64 : 32;
  if (helper >= ofX) return gatherW(a, task, count, helper - ofX, kHelpers - ofX, to);
  switch (a.p.x.scalar) {
    case ScalarType::kFloat:
      return gatherX<float>(a, count, helper, ofX, to);
    case ScalarType::kHalf:
      return gatherX<__half>(a, count, helper, ofX, to);
    default:
      return gatherX<__nv_bfloat16>(a, count, helper, ofX, to);
  }
}

/** The weights of the gathered outliers, of the block's share of rows. */
template <int kTokens>
__device__ __forceinline__ void decodeOutliers(const StreamArgs& a, const Task& task, SharedMemory<kTokens>& shared) {
  const int count = min(shared.outliers.count, kMostGathered);
  for (int at = static_cast<int>(threadIdx.x); at < count * task.rows; at += kConsumers) {
    const int o = at / task.rows, r = task.firstRow + at % task.rows;
    const Index j = task.row + r;
    float w = 0;
    if (j < a.p.w.rows)
      w = a.p.outlierWeights.data
              ? readFloat(a.p.outlierWeights, j, shared.outliers.columns[o])
              : EigenQ::internal::decodeInt8(shared.outliers.wCodes[o / 4][r][o % 4], shared.absmax[r]);
    shared.exchange().w[o][r] = w;
  }
}

/** Four rows of W by one token. */
struct Quad {
  int sums[4];
  float outliers[4];
};

/** Takes the codes of the gathered outliers off the sums and adds them as floats, for tokens \a step apart. */
template <int kTokens, int kAtOnce>
__device__ __forceinline__ void addGathered(SharedMemory<kTokens>& shared, int row, int token, int step,
                                            Quad (&quads)[kAtOnce]) {
  const Outliers<kTokens>& from = shared.outliers;
  const int gathered = min(from.count, kMostGathered);
  for (int o = 0; o < gathered; o += 4) {
    const int4 w = *reinterpret_cast<const int4*>(from.wCodes[o / 4][row]);
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      const int x = *reinterpret_cast<const int*>(from.xCodes[o / 4][min(token + u * step, kTokens - 1)]);
      quads[u].sums[0] -= __dp4a(x, w.x, 0);
      quads[u].sums[1] -= __dp4a(x, w.y, 0);
      quads[u].sums[2] -= __dp4a(x, w.z, 0);
      quads[u].sums[3] -= __dp4a(x, w.w, 0);
    }
  }
#pragma unroll 2
  for (int o = 0; o < gathered; ++o) {
    const float4 w = *reinterpret_cast<const float4*>(&shared.exchange().w[o][row]);
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      const float x = from.x[o][min(token + u * step, kTokens - 1)];
      quads[u].outliers[0] = fmaf(x, w.x, quads[u].outliers[0]);
      quads[u].outliers[1] = fmaf(x, w.y, quads[u].outliers[1]);
      quads[u].outliers[2] = fmaf(x, w.z, quads[u].outliers[2]);
      quads[u].outliers[3] = fmaf(x, w.w, quads[u].outliers[3]);
    }
  }
}

/** The same for those that were not gathered, read where they lie: slow and right. */
__device__ __forceinline__ void addOthers(const StreamArgs& a, int count, Index j, Index i, Quad& quad) {
  for (int o = kMostGathered; o < count; ++o) {
    const Index k = columnsOf(a)[o];
    const float x = readFloat(a.p.x, i, k);
    const int code = a.p.activations.codes[i * a.p.activations.stride + k];
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      if (j + r >= a.p.w.rows) break;
      quad.sums[r] -= code * codesOf(a.p.w)[(j + r) * a.p.w.stride + k];
      quad.outliers[r] = fmaf(x, outlierWeight(a.p, j + r, k), quad.outliers[r]);
    }
  }
}

/** \tparam kPlain  there is no epilogue */
template <typename T, bool kPlain>
__device__ __forceinline__ void store(const StreamArgs& a, Index i, Index j, const float (&values)[4]) {
  using Vector = typename std::conditional<sizeof(T) == 2, uint2, uint4>::type;
  const DenseView& y = a.p.y;
  const int there = static_cast<int>(a.p.w.rows - j < 4 ? a.p.w.rows - j : 4);
  alignas(16) T results[4];
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    if (kPlain || r < there)
      results[r] = fromFloat<T>(kPlain ? values[r] : applyEpilogue<T>(a.p.epilogue, values[r], i, j + r));
  }
  T* const to = static_cast<T*>(y.data) + i * y.rowStride + j * y.colStride;
  if (there == 4 && a.vectorStores) {
    *reinterpret_cast<Vector*>(to) = *reinterpret_cast<const Vector*>(results);
    return;
  }
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    if (r < there) to[r * y.colStride] = results[r];
  }
}

/** Of four rows from \a row on, by a token: the sums of all blocks of the cluster. */
template <int kTokens>
__device__ __forceinline__ int4 sumShares(const StreamArgs& a, SharedMemory<kTokens>& shared, int token, int row) {
  const std::uint32_t from = ptx::sharedAddress(&shared.exchange().sums[token][row]);
  int4 sum = ptx::loadFromBlock(from, 0);
#pragma unroll 3
  for (int share = 1; share < a.shares; ++share) {
    const int4 s = ptx::loadFromBlock(from, share);
    sum = make_int4(sum.x + s.x, sum.y + s.y, sum.z + s.z, sum.w + s.w);
  }
  return sum;
}

/** The block's share of rows: a thread keeps to four of them and goes from token to token, several at a time where the
 * code of an epilogue does not stand in between. */
template <typename T, int kTokens, bool kPlain, bool kOutliers>
__device__ __forceinline__ void finishRows(const StreamArgs& a, const Task& task, SharedMemory<kTokens>& shared) {
  constexpr int kAtOnce = !kPlain ? 1 : kOutliers ? 2 : 4;
  const int quadCount = task.rows / 4, step = kConsumers / quadCount;
  const int first = static_cast<int>(threadIdx.x) / quadCount;
  const int row = task.firstRow + static_cast<int>(threadIdx.x) % quadCount * 4;
  const Index j = task.row + row;
  if (j >= a.p.w.rows) return;
  const float4 absmax = *reinterpret_cast<const float4*>(&shared.absmax[row]);
#pragma unroll 1
  for (int begin = first; begin < a.tokens; begin += kAtOnce * step) {
    Quad quads[kAtOnce];
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      const int4 sums = sumShares(a, shared, min(begin + u * step, a.tokens - 1), row);
      quads[u] = {{sums.x, sums.y, sums.z, sums.w}, {}};
    }
    if (kOutliers) addGathered<kTokens, kAtOnce>(shared, row, begin, step, quads);
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      const int token = begin + u * step;
      if (token >= a.tokens) break;
      Quad& quad = quads[u];
      if (kOutliers && shared.outliers.count > kMostGathered) addOthers(a, shared.outliers.count, j, token, quad);
      const double scale = rowScale(shared.rowStats[token]);
      const float values[4] = {scaledSum(exactDouble(quad.sums[0]), scale, absmax.x, quad.outliers[0]),
                               scaledSum(exactDouble(quad.sums[1]), scale, absmax.y, quad.outliers[1]),
                               scaledSum(exactDouble(quad.sums[2]), scale, absmax.z, quad.outliers[2]),
                               scaledSum(exactDouble(quad.sums[3]), scale, absmax.w, quad.outliers[3])};
      store<T, kPlain>(a, token, j, values);
    }
  }
}

template <typename T, int kTokens>
__device__ __forceinline__ void finishAs(const StreamArgs& a, const Task& task, SharedMemory<kTokens>& shared) {
  if (!a.plain) return finishRows<T, kTokens, false, true>(a, task, shared);
  if (shared.outliers.count > 0) return finishRows<T, kTokens, true, true>(a, task, shared);
  finishRows<T, kTokens, true, false>(a, task, shared);
}

template <int kTokens>
__device__ __forceinline__ void finish(const StreamArgs& a, const Task& task, SharedMemory<kTokens>& shared) {
  if (shared.outliers.count > 0) {
    decodeOutliers<kTokens>(a, task, shared);
    ptx::syncThreads(kConsumersBarrier, kConsumers);
  }
  switch (a.p.y.scalar) {
    case ScalarType::kFloat:
      return finishAs<float>(a, task, shared);
    case ScalarType::kHalf:
      return finishAs<__half>(a, task, shared);
    default:
      return finishAs<__nv_bfloat16>(a, task, shared);
  }
}

}  // namespace stream
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_INT8_STREAM_SM90_CUH
