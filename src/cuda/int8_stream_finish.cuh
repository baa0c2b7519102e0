// SPDX-License-Identifier: MPL-2.0
// Y out of the sums of a cluster's blocks, in int8_stream_sm90.cu.
//
//   sums, transposed   token 0 │ rows 0 … 127 │    in each block of the cluster, over the stages; a block finishes its
//                      token 1 │ …            │    share of rows: a thread four of them, token after token
#ifndef EIGENQ_CUDA_INT8_STREAM_FINISH_CUH
#define EIGENQ_CUDA_INT8_STREAM_FINISH_CUH

#include <eigen_q/src/Int8Codec.h>

#include <type_traits>

#include "epilogue.cuh"
#include "int8_scale.cuh"
#include "int8_stream_sm90.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace stream {

/** The weights of the gathered outliers, of the block's share of rows. */
template <int kTokens>
__device__ __forceinline__ void decodeOutliers(const StreamArgs& a, const Task& task, SharedMemory<kTokens>& shared) {
  const Outliers<kTokens>& from = shared.outliers;
  const int count = min(from.count, kMostGathered), thread = static_cast<int>(threadIdx.x);
  const int shift = 31 - __clz(task.rows), r = task.firstRow + (thread & (task.rows - 1));
  const Index j = task.row + r;
  const bool there = j < a.p.w.rows;
  const float absmax = shared.absmax[r];  // 0 where no row is
#pragma unroll 4
  for (int o = thread >> shift; o < count; o += kConsumers >> shift) {
    float w = EigenQ::internal::decodeInt8(from.wCodes[o / 4][r][o % 4], absmax);
    if (there && a.p.outlierWeights.data) w = readFloat(a.p.outlierWeights, j, from.columns[o]);
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
#pragma unroll 4
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

#endif  // EIGENQ_CUDA_INT8_STREAM_FINISH_CUH
